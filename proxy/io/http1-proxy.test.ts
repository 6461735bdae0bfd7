// Server, pool and TLS together, between Node's own http client and server: an independent reader on either end.

import { createHash, randomBytes } from 'node:crypto';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { systemClock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { connectTcp } from './connect.ts';
import { createHttp1Pool } from './http1-pool.ts';
import { serveHttp1 } from './http1-server.ts';
import { queuedBytesTotal } from './socket.ts';
import { TestAuthority } from './testing/certificates.ts';
import { until } from './testing/recorder.ts';
import { listenLoopback } from './testing/tcp-pair.ts';
import { createTlsContext } from './tls.ts';

const PEER = 'peer.test';
const HANDSHAKE = { timeoutMs: 5000 };
/** Queues of the two streams of a blocked exchange, with what each may have gathered in one turn. */
const QUEUED_BYTES_MAX = 2 << 20;

const digest = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

/** Echoes the request: what it was in fields, its body as the body. */
const origin = http.createServer((request, response) => {
  response.setHeader('x-method', request.method ?? '');
  response.setHeader('x-path', request.url ?? '');
  response.setHeader('x-host', request.headers.host ?? '');
  if (request.url === '/large') {
    const part = Buffer.alloc(1 << 20, 0x61);
    let left = 64;
    response.setHeader('content-length', String(left * part.length));
    Readable.from(
      (function* () {
        while (left-- > 0) yield part;
      })(),
    ).pipe(response);
  } else if (request.url === '/count') {
    let bytes = 0;
    request.on('data', (chunk: Buffer) => (bytes += chunk.length));
    request.on('end', () => response.end(String(bytes)));
  } else if (request.url === '/length') {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks);
      response.setHeader('content-length', String(body.length));
      response.end(body);
    });
  } else request.pipe(response);
});
origin.on('upgrade', (_request, socket) => {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n');
  socket.pipe(socket);
});

interface Proxy {
  port: number;
  close(): void;
}

/** One hop: accepts on `accept`'s stream, forwards over `connect`'s. */
function hop(accept: (stream: Duplex) => Promise<Duplex>, connect: (signal: AbortSignal) => Promise<Duplex>): Proxy {
  const pool = createHttp1Pool({ clock: systemClock, connect });
  const { listener, port } = listenLoopback((stream) => {
    accept(stream).then(
      (served) => serveHttp1(served, { service: pool, clock: systemClock, clientIdentity: null }),
      () => stream.reset(),
    );
  });
  return {
    port,
    close() {
      listener.close();
      pool.close();
    },
  };
}

const plain = (stream: Duplex): Promise<Duplex> => Promise.resolve(stream);
const dial = (port: number, signal: AbortSignal): Promise<Duplex> =>
  connectTcp({ address: '127.0.0.1', port, timeoutMs: 2000 }, signal);

const agent = new http.Agent({ keepAlive: true, maxSockets: 16 });
const authority = new TestAuthority();
const tls = createTlsContext({
  anchorsPem: authority.anchorPem,
  certificate: authority.leaf({ subjectAltName: `DNS:${PEER}` }),
});
const proxies: Proxy[] = [];
const ports: Record<string, number> = {};

beforeAll(async () => {
  const listening = Promise.withResolvers<void>();
  origin.listen(0, '127.0.0.1', listening.resolve);
  await listening.promise;
  const originPort = (origin.address() as AddressInfo).port;
  const single = hop(plain, (signal) => dial(originPort, signal));
  const inbound = hop(
    (stream) => tls.accept(stream, HANDSHAKE),
    (signal) => dial(originPort, signal),
  );
  const outbound = hop(plain, async (signal) =>
    tls.connect(await dial(inbound.port, signal), { ...HANDSHAKE, serverName: PEER }, signal),
  );
  proxies.push(single, inbound, outbound);
  ports['one proxy'] = single.port;
  ports['a pair with TLS'] = outbound.port;
});

afterAll(() => {
  agent.destroy();
  for (const proxy of proxies) proxy.close();
  origin.close();
  origin.closeAllConnections();
  authority[Symbol.dispose]();
});

interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: Buffer;
}

function send(port: number, options: http.RequestOptions, body: Buffer[] = []): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const request = http.request({ port, host: '127.0.0.1', agent, ...options }, (response) => {
    const chunks: Buffer[] = [];
    response.on('error', reject);
    response.on('data', (chunk: Buffer) => chunks.push(chunk));
    response.on('end', () =>
      resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }),
    );
  });
  request.on('error', reject);
  for (const part of body) request.write(part);
  request.end();
  return promise;
}

describe.each(['one proxy', 'a pair with TLS'])('through %s', (name) => {
  const port = (): number => ports[name]!;

  test('requests of every kind arrive as they were sent, many at a time', async () => {
    const bodies = Array.from({ length: 120 }, (_, index) => randomBytes((index * 997) % 40_000));
    const answers = await Promise.all(
      bodies.map((body, index) => {
        const framing = index % 2 === 0 ? { 'content-length': body.length } : {};
        const path = index % 3 === 0 ? '/length' : '/echo';
        const middle = body.length >> 1;
        return send(
          port(),
          {
            method: index % 5 === 0 ? 'PUT' : 'POST',
            path: `${path}`,
            headers: { ...framing, 'x-index': String(index) },
          },
          [body.subarray(0, middle), body.subarray(middle)].filter((part) => part.length > 0),
        );
      }),
    );
    for (const [index, answer] of answers.entries()) {
      expect(answer.status).toBe(200);
      expect(answer.headers['x-method']).toBe(index % 5 === 0 ? 'PUT' : 'POST');
      expect(answer.headers['x-host']).toBe(`127.0.0.1:${port()}`);
      expect(digest(answer.body)).toBe(digest(bodies[index]!));
    }
  });

  test('GET, HEAD and DELETE on one connection', async () => {
    const single = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (let round = 0; round < 20; round++) {
      for (const method of ['GET', 'HEAD', 'DELETE']) {
        const answer = await send(port(), { method, path: `/${round}`, agent: single });
        expect(answer.headers['x-path']).toBe(`/${round}`);
        expect(answer.headers['x-method']).toBe(method);
        expect(answer.body.length).toBe(0);
      }
    }
    single.destroy();
  });

  test('a large answer to a slow reader holds little memory', async () => {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    let queuedMax = 0;
    const request = http.get({ port: port(), host: '127.0.0.1', path: '/large', agent: false }, (response) => {
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        queuedMax = Math.max(queuedMax, queuedBytesTotal());
        // A reader that stops for a turn at every chunk.
        response.pause();
        setImmediate(() => response.resume());
      });
      response.on('end', () => resolve(bytes));
      response.on('error', reject);
    });
    request.on('error', reject);
    expect(await promise).toBe(64 << 20);
    expect(queuedMax).toBeLessThan(QUEUED_BYTES_MAX);
  }, 20_000);

  test('a large request passes', async () => {
    const part = Buffer.alloc(1 << 20, 0x62);
    let queuedMax = 0;
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const request = http.request(
      { port: port(), host: '127.0.0.1', path: '/count', method: 'POST', agent },
      (response) => {
        let text = '';
        response.on('data', (chunk: Buffer) => (text += chunk.toString()));
        response.on('end', () => resolve(text));
      },
    );
    request.on('error', reject);
    let left = 64;
    Readable.from(
      (function* () {
        while (left-- > 0) {
          queuedMax = Math.max(queuedMax, queuedBytesTotal());
          yield part;
        }
      })(),
    ).pipe(request);
    expect(await promise).toBe(String(64 << 20));
    expect(queuedMax).toBeLessThan(QUEUED_BYTES_MAX);
  }, 20_000);

  test('an upgraded connection carries bytes both ways', async () => {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const sent = randomBytes(300_000);
    const request = http.request({
      port: port(),
      host: '127.0.0.1',
      agent: false,
      headers: { connection: 'upgrade', upgrade: 'echo' },
    });
    request.on('error', reject);
    request.on('upgrade', (response, socket, head) => {
      expect(response.statusCode).toBe(101);
      const chunks: Buffer[] = [head];
      let bytes = head.length;
      socket.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        bytes += chunk.length;
        if (bytes === sent.length) {
          socket.destroy();
          resolve(Buffer.concat(chunks));
        }
      });
      socket.write(sent);
    });
    request.end();
    expect(digest(await promise)).toBe(digest(sent));
  });

  test('clients that leave in the middle leave nothing behind', async () => {
    for (let index = 0; index < 20; index++) {
      const request = http.get({ port: port(), host: '127.0.0.1', path: '/large', agent: false });
      const started = Promise.withResolvers<void>();
      request.on('response', (response) => response.once('data', () => started.resolve()));
      request.on('error', () => {});
      await started.promise;
      request.destroy();
    }
    await until(() => queuedBytesTotal() === 0);
    const answer = await send(port(), { path: '/after' });
    expect(answer.headers['x-path']).toBe('/after');
  });
});
