// A pair of proxies between a client's and a server's network namespace: what every system of the benchmark provides.

import type { Program } from '../program.ts';

export interface PairOptions {
  /** For configuration files; removed by the caller. */
  directory: string;
  clientNetns: string;
  serverNetns: string;
  /** The server's address on the network between the two. */
  serverAddress: string;
  /** host:port of the origin, in the server's namespace. */
  origin: string;
  /** http: HTTP/1.1 on both outer sides; http2: HTTP/2 all the way; tcp: opaque. */
  mode: 'http' | 'http2' | 'tcp';
}

export interface Pair {
  /** What the client's namespace dials. */
  host: string;
  port: number;
  programs: Program[];
}
