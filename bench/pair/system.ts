// A pair of proxies between a client's and a server's network namespace: what every system of the benchmark provides.
// One pair of processes carries all routes, as a worker does.

import type { Program } from '../program.ts';

/** One way through the pair to one port of the origin. */
export interface Route {
  /** http: HTTP/1.1 on both outer sides; http2: HTTP/2 all the way; tcp: opaque. */
  mode: 'http' | 'http2' | 'tcp';
  /** On 127.0.0.1 of the client's namespace. */
  clientPort: number;
  /** Between the two proxies, with mutual TLS. */
  serverPort: number;
  /** On 127.0.0.1 of the server's namespace. */
  originPort: number;
}

export const ROUTES = {
  http: { mode: 'http', clientPort: 15_001, serverPort: 15_441, originPort: 8080 },
  http2: { mode: 'http2', clientPort: 15_002, serverPort: 15_442, originPort: 8081 },
  grpc: { mode: 'http2', clientPort: 15_003, serverPort: 15_443, originPort: 8083 },
  /** HTTP/1.1 that the proxies take for bytes. */
  opaque: { mode: 'tcp', clientPort: 15_004, serverPort: 15_444, originPort: 8082 },
  throughput: { mode: 'tcp', clientPort: 15_005, serverPort: 15_445, originPort: 5201 },
} as const satisfies Record<string, Route>;

export interface PairOptions {
  /** For configuration files; removed by the caller. */
  directory: string;
  clientNetns: string;
  serverNetns: string;
  /** The server's address on the network between the two. */
  serverAddress: string;
  routes: readonly Route[];
}

export interface Pair {
  client: Program;
  server: Program;
}
