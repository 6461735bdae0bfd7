import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import net, { type AddressInfo, type Server } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { ORIGIN_BODY } from '../pair/origin.ts';
import { runGrpcStreams } from './grpc-stream.ts';
import { runNewConnections } from './new-connections.ts';
import { runOpenLoop } from './open-loop.ts';

const servers: Server[] = [];

async function listen(server: Server): Promise<{ host: string; port: number }> {
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { host: '127.0.0.1', port: (server.address() as AddressInfo).port };
}

afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

/** An origin that answers `wrongEvery`-th request with another body. */
function origin(wrongEvery = 0): http.Server {
  let asked = 0;
  return http.createServer((_, response) => {
    asked += 1;
    response.end(wrongEvery > 0 && asked % wrongEvery === 0 ? 'y'.repeat(ORIGIN_BODY.length) : ORIGIN_BODY);
  });
}

describe('open loop', () => {
  test('asks exactly as often as it should', async () => {
    const at = await listen(origin());
    const result = await runOpenLoop({ ...at, ratePerSecond: 200, seconds: 1, connections: 4 });
    expect(result).toMatchObject({ requests: 200, rps: 200, failures: 0 });
    expect(result.p50Ms).toBeGreaterThan(0);
  });

  test('counts a wrong body as a failure and goes on by a new connection', async () => {
    const at = await listen(origin(10));
    const result = await runOpenLoop({ ...at, ratePerSecond: 200, seconds: 1, connections: 4 });
    expect(result).toMatchObject({ requests: 180, failures: 20, failure: 'another body than expected' });
  });

  test('counts from when a request was due: a stall is seen by all that it delayed', async () => {
    const stallMs = 300;
    let first = true;
    const server = http.createServer((_, response) => {
      const isStalled = first;
      first = false;
      setTimeout(() => response.end(ORIGIN_BODY), isStalled ? stallMs : 0);
    });
    // One connection: the others wait for the first.
    const result = await runOpenLoop({ ...(await listen(server)), ratePerSecond: 100, seconds: 1, connections: 1 });
    expect(result).toMatchObject({ requests: 100, failures: 0 });
    expect(result.p99Ms).toBeGreaterThan(stallMs - 20);
  });
});

describe('new connections', () => {
  test('one for each request', async () => {
    let accepted = 0;
    const server = origin();
    server.on('connection', () => {
      accepted += 1;
    });
    const result = await runNewConnections({ ...(await listen(server)), seconds: 0.3, connections: 4 });
    expect(result.requests).toBe(accepted);
    expect(result).toMatchObject({ failures: 0 });
  });

  test('a peer that closes without an answer fails them all', async () => {
    const server = net.createServer((socket) => socket.destroy());
    const result = await runNewConnections({ ...(await listen(server)), seconds: 0.2, connections: 2 });
    expect(result.requests).toBe(0);
    expect(result.failures).toBeGreaterThan(0);
  });
});

describe('gRPC streams', () => {
  function echo(status: string): http2.Http2Server {
    const server = http2.createServer();
    server.on('stream', (stream: http2.ServerHttp2Stream) => {
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': status }));
      stream.pipe(stream);
    });
    return server;
  }
  const options = { seconds: 0.2, connections: 2, streamsPerConnection: 3 };

  test('count echoes and end with status 0', async () => {
    const result = await runGrpcStreams({ ...(await listen(echo('0') as unknown as Server)), ...options });
    expect(result.requests).toBeGreaterThan(6);
    expect(result.failures).toBe(0);
  });

  test('another status fails each stream', async () => {
    const result = await runGrpcStreams({ ...(await listen(echo('14') as unknown as Server)), ...options });
    expect(result).toMatchObject({ failures: 6, failure: 'gRPC status 14' });
  });
});
