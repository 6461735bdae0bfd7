// The tests of the peers' benchmark: what each sends, with which generator, through which route of a pair.

import path from 'node:path';
import { runLoad, type Target } from './load/command.ts';
import { framedMessage, GRPC_PATH } from './load/grpc-message.ts';
import { runH2load } from './load/h2load.ts';
import { runIperf3 } from './load/iperf3.ts';
import type { LoadResult } from './load/result.ts';
import { ORIGIN_BODY } from './pair/origin.ts';
import { ROUTES, type Route } from './pair/system.ts';
import { runWrk } from './wrk.ts';

export interface PeerTest {
  /** As in the rows; `connections-opaque` becomes measures of the row `connections`. */
  name: string;
  route: Route;
  run(target: Target, seconds: number, directory: string): Promise<LoadResult>;
}

export const OPAQUE_CONNECTIONS = 'connections-opaque';

const GRPC_HEADERS = ['content-type: application/grpc', 'te: trailers'];
const HTTP2 = { connections: 4, streams: 32 };
const CONCURRENT_NEW_CONNECTIONS = 16;
const OPEN_LOOP_CONNECTIONS = 32;

export const PEER_TESTS: readonly PeerTest[] = [
  http1(16),
  http1(128),
  {
    name: 'http2',
    route: ROUTES.http2,
    run: (target, seconds, directory) =>
      runH2load({ target, seconds, directory, ...HTTP2, responseBytes: ORIGIN_BODY.length }),
  },
  {
    name: 'grpc-unary',
    route: ROUTES.grpc,
    run: (target, seconds, directory) => {
      const body = framedMessage();
      const call = { path: GRPC_PATH, headers: GRPC_HEADERS, body, responseBytes: body.length };
      return runH2load({ target, seconds, directory, ...HTTP2, ...call });
    },
  },
  {
    name: 'grpc-stream',
    route: ROUTES.grpc,
    run: (target, seconds) => own('grpc-stream', target, seconds, HTTP2.connections, ['--streams', `${HTTP2.streams}`]),
  },
  { name: 'tcp', route: ROUTES.throughput, run: (target, seconds) => runIperf3(target, seconds) },
  newConnections('connections', ROUTES.http),
  newConnections(OPAQUE_CONNECTIONS, ROUTES.opaque),
  openLoop(1000),
  openLoop(5000),
];

function http1(connections: number): PeerTest {
  return {
    name: `http1-${connections}`,
    route: ROUTES.http,
    run: async ({ netns, host, port }, seconds) => {
      const url = `http://${host}:${port}/`;
      return { ...(await runWrk({ netns, url, connections, durationSeconds: seconds })), p999Ms: null };
    },
  };
}

function newConnections(name: string, route: Route): PeerTest {
  return {
    name,
    route,
    run: (target, seconds) => own('new-connections', target, seconds, CONCURRENT_NEW_CONNECTIONS, []),
  };
}

function openLoop(rate: number): PeerTest {
  return {
    name: `rate-${rate}`,
    route: ROUTES.http,
    run: (target, seconds) => own('open-loop', target, seconds, OPEN_LOOP_CONNECTIONS, ['--rate', String(rate)]),
  };
}

/** A generator of our own, in a process of its own. */
async function own(
  kind: string,
  target: Target,
  seconds: number,
  connections: number,
  more: readonly string[],
): Promise<LoadResult> {
  const main = path.join(import.meta.dirname, 'load/main.ts');
  const where = ['--host', target.host, '--port', String(target.port)];
  const how = ['--seconds', String(seconds), '--connections', String(connections), ...more];
  return JSON.parse(await runLoad(target.netns, [process.execPath, main, kind, ...where, ...how], seconds));
}
