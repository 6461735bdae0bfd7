import { createHash } from 'node:crypto';
import net from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { systemClock } from '#lib/clock.ts';
import type { HeddleError } from '#lib/errors.ts';
import { memoryPair } from '#lib/memory-duplex.ts';
import { answerLater } from '../answer.ts';
import type { Exchange, HttpService, RequestHead, RequestStream, ResponseHead } from '../http.ts';
import { HeaderList } from '../wire/headers.ts';
import { connectTcp } from './connect.ts';
import type { HttpServerConnection } from './http-connection.ts';
import { createHttp2Pool, type Http2Pool } from './http2-pool.ts';
import { serveHttp2 } from './http2-server.ts';
import { wrapSocket } from './socket.ts';

const EXCHANGE: Exchange = { clientAddress: '127.0.0.1', clientPort: 1, clientIdentity: null, startedMs: 0 };

/** Sends every body back as it comes, with the backpressure it gets. */
const echo: HttpService = {
  call: (_head, _exchange, response) => {
    let hasHead = false;
    const begin = () => {
      if (hasHead) return;
      hasHead = true;
      response.head({ status: 200, reason: '', version: 'HTTP/2', headers: new HeaderList(), bodyBytes: 'unknown' });
    };
    return {
      data: (bytes) => {
        begin();
        return response.data(bytes);
      },
      end: (trailers) => {
        queueMicrotask(() => {
          begin();
          response.end(trailers);
        });
      },
      reset: () => {},
      resumeResponse: () => response.resumeRequest(),
    };
  },
};

class Server {
  readonly connections = new Set<HttpServerConnection>();
  readonly #server: net.Server;
  accepted = 0;

  constructor(service: HttpService, limits: { maxConcurrentStreams?: number } = {}) {
    this.#server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
      this.accepted++;
      const connection = serveHttp2(wrapSocket(socket), {
        service,
        clock: systemClock,
        clientIdentity: null,
        limits,
        onClose: () => this.connections.delete(connection),
      });
      this.connections.add(connection);
    });
  }

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return (this.#server.address() as net.AddressInfo).port;
  }

  close(): void {
    for (const connection of this.connections) connection.close();
    this.#server.close();
  }
}

interface Answer {
  head: ResponseHead | null;
  bytes: number;
  digest: string;
  trailer: string | undefined;
  error: HeddleError | null;
}

/** Sends a request whose body is `size` bytes in pieces, obeying backpressure, and gathers the answer. */
function send(pool: Http2Pool, size: number, pieceBytes = 10_000): Promise<Answer> {
  const done = Promise.withResolvers<Answer>();
  const hash = createHash('sha256');
  const answer: Answer = { head: null, bytes: 0, digest: '', trailer: undefined, error: null };
  let left = size;
  let stream: RequestStream;
  const pump = () => {
    while (left > 0) {
      const piece = Buffer.alloc(Math.min(left, pieceBytes), left % 251);
      left -= piece.length;
      const goesOn = stream.data(piece);
      piece.fill(0xff);
      if (!goesOn) return;
    }
    if (left === 0) {
      left = -1;
      const trailers = new HeaderList();
      trailers.add('x-end', 'yes');
      stream.end(trailers);
    }
  };
  const headers = new HeaderList();
  const head: RequestHead = {
    method: 'POST',
    scheme: 'http',
    authority: 'a',
    path: '/',
    version: 'HTTP/2',
    headers,
    bodyBytes: 'unknown',
    upgrade: null,
  };
  stream = pool.call(head, EXCHANGE, {
    informational: () => {},
    head: (response) => {
      answer.head = response;
    },
    data: (bytes) => {
      hash.update(bytes);
      answer.bytes += bytes.length;
      return true;
    },
    end: (trailers) => {
      done.resolve({ ...answer, digest: hash.digest('hex'), trailer: trailers?.get('x-end') });
    },
    fail: (error) => done.resolve({ ...answer, error }),
    resumeRequest: pump,
  });
  pump();
  return done.promise;
}

function digestOf(size: number, pieceBytes = 10_000): string {
  const hash = createHash('sha256');
  for (let left = size; left > 0; left -= Math.min(left, pieceBytes)) {
    hash.update(
      Buffer.alloc(Math.min(left, pieceBytes), (left - Math.min(left, pieceBytes) + Math.min(left, pieceBytes)) % 251),
    );
  }
  return hash.digest('hex');
}

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

async function start(service: HttpService = echo, limits: { maxConcurrentStreams?: number } = {}) {
  const server = new Server(service, limits);
  const port = await server.listen();
  const closed: (HeddleError | null)[] = [];
  const pool = createHttp2Pool({
    clock: systemClock,
    connect: (signal) => connectTcp({ address: '127.0.0.1', port, timeoutMs: 2_000 }, signal),
    onConnectionClosed: (_duplex, error) => closed.push(error),
  });
  cleanups.push(() => server.close());
  return { server, pool, port, closed };
}

describe('a pool against a server over TCP', () => {
  test('bodies of many sizes at once on one connection come back byte for byte, with trailers', async () => {
    const { server, pool } = await start();
    const sizes = [
      0,
      1,
      9_999,
      65_535,
      65_536,
      1_000_000,
      5_000_000,
      ...Array.from({ length: 60 }, (_, index) => index * 997),
    ];
    const answers = await Promise.all(sizes.map((size) => send(pool, size)));
    expect(answers.map(({ error, bytes, digest, trailer }) => ({ error, bytes, digest, trailer }))).toEqual(
      sizes.map((size) => ({ error: null, bytes: size, digest: digestOf(size), trailer: 'yes' })),
    );
    expect(server.accepted).toBe(1);
  });

  test('more requests than streams share few connections', async () => {
    const { server, pool } = await start(echo, { maxConcurrentStreams: 10 });
    await send(pool, 1);
    const answers = await Promise.all(Array.from({ length: 500 }, () => send(pool, 100)));
    expect(answers.every(({ error, bytes }) => error === null && bytes === 100)).toBe(true);
    expect(server.accepted).toBeLessThanOrEqual(8);
  });

  test('a server that drains again and again loses no request', async () => {
    const { server, pool } = await start();
    let failures = 0;
    let rounds = 0;
    for (; rounds < 40; rounds++) {
      const batch = Array.from({ length: 20 }, () => send(pool, 50_000));
      for (const connection of server.connections) connection.drain();
      const answers = await Promise.all([...batch, ...Array.from({ length: 5 }, () => send(pool, 10))]);
      failures += answers.filter(({ error, bytes }) => error !== null || bytes === 0).length;
    }
    expect(failures).toBe(0);
    expect(server.accepted).toBeGreaterThan(10);
  });

  test('a connection that breaks fails what is on it, and the next request has a new one', async () => {
    const never: HttpService = {
      call: () => ({ data: () => true, end: () => {}, reset: () => {}, resumeResponse: () => {} }),
    };
    const { server, pool, closed } = await start(never);
    const pending = send(pool, 10);
    await expect.poll(() => server.connections.size).toBe(1);
    await expect.poll(() => [...server.connections][0]?.activeExchanges).toBe(1);
    for (const connection of server.connections) connection.close();
    expect((await pending).error?.source).toBe('upstream');
    expect(closed).toHaveLength(1);
    void send(pool, 10);
    await expect.poll(() => server.accepted).toBe(2);
  });

  test('nobody listens: every request that waits fails and may be sent elsewhere', async () => {
    const { server, pool } = await start();
    server.close();
    const answers = await Promise.all([send(pool, 1), send(pool, 1)]);
    expect(answers.map(({ error }) => [error?.code, error?.retry])).toEqual([
      ['connect-refused', 'yes'],
      ['connect-refused', 'yes'],
    ]);
  });
});

test('a peer that resets the connection before its SETTINGS is at fault, and requests may go elsewhere', async () => {
  const server = net.createServer((socket) =>
    socket.on('error', () => {}).once('data', () => socket.resetAndDestroy()),
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanups.push(() => server.close());
  const { port } = server.address() as net.AddressInfo;
  const connect = () => connectTcp({ address: '127.0.0.1', port, timeoutMs: 2_000 });
  const { error } = await send(createHttp2Pool({ clock: systemClock, connect }), 1);
  expect(error).toMatchObject({ code: 'h2-not-established', source: 'upstream', retry: 'yes' });
});

describe('a reader that does not read', () => {
  test('stops the writer at its windows', async () => {
    let written = 0;
    const flood: HttpService = {
      call: (_head, _exchange, response) => {
        const write = () => {
          while (written < 50_000_000) {
            written += 10_000;
            if (!response.data(Buffer.alloc(10_000))) return;
          }
        };
        queueMicrotask(() => {
          response.head({
            status: 200,
            reason: '',
            version: 'HTTP/2',
            headers: new HeaderList(),
            bodyBytes: 'unknown',
          });
          write();
        });
        return { data: () => true, end: () => {}, reset: () => {}, resumeResponse: write };
      },
    };
    const { pool } = await start(flood);
    let received = 0;
    let resume = false;
    const headers = new HeaderList();
    const stream = pool.call(
      {
        method: 'GET',
        scheme: 'http',
        authority: 'a',
        path: '/',
        version: 'HTTP/2',
        headers,
        bodyBytes: null,
        upgrade: null,
      },
      EXCHANGE,
      {
        informational: () => {},
        head: () => {},
        data: (bytes) => {
          received += bytes.length;
          return resume;
        },
        end: () => {},
        fail: () => {},
        resumeRequest: () => {},
      },
    );
    stream.end(null);
    await expect.poll(() => received).toBe(65_535);
    expect(written).toBeLessThan(200_000);
    resume = true;
    stream.resumeResponse();
    await expect.poll(() => received).toBeGreaterThan(5_000_000);
    for (const cleanup of cleanups.splice(0)) cleanup();
  });
});

/** A frame of stream 0 without flags. */
function frame(type: number, payload: Uint8Array = new Uint8Array(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  return Buffer.concat([head, payload]);
}

test('a peer that goes away and talks on behind our end is not answered, and harms nobody', async () => {
  const [client, server] = memoryPair();
  let isClosed = false;
  serveHttp2(server, { service: echo, clock: systemClock, clientIdentity: null, onClose: () => (isClosed = true) });
  const ended = Promise.withResolvers<void>();
  client.listener = { onData: () => {}, onEnd: ended.resolve, onDrain: () => {}, onClose: () => {} };
  client.resume();
  const goaway = frame(7, new Uint8Array(8));
  const ping = frame(6, new Uint8Array(8));
  client.write(Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(4), goaway]));
  await ended.promise;
  // What is written behind an end is an assertion that fails, and the worker with it.
  client.write(ping);
  client.end();
  await expect.poll(() => isClosed).toBe(true);
});

test('a client that asks on and on without reading is cut off', async () => {
  const [client, server] = memoryPair();
  const closed = Promise.withResolvers<HeddleError | null>();
  const headers = new HeaderList();
  headers.add('x-large', 'x'.repeat(30_000));
  const service: HttpService = {
    call: (_head, _exchange, response) =>
      answerLater(response, (target) =>
        target.head({ status: 200, reason: '', version: 'HTTP/2', headers, bodyBytes: null }),
      ),
  };
  serveHttp2(server, { service, clock: systemClock, clientIdentity: null, onClose: closed.resolve });
  client.write(Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(4)]));
  const get = (streamId: number) => {
    const head = Buffer.from('000006010500000000828684410161', 'hex');
    head.writeUInt32BE(streamId, 5);
    return head;
  };
  for (let streamId = 1; streamId < 1_000; streamId += 2) {
    client.write(get(streamId));
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(await closed.promise).toMatchObject({ code: 'peer-stalled' });
  expect(server.bytesQueued).toBeLessThan(8 * 1024 * 1024);
});

describe('keep-alive', () => {
  test('a peer that answers no PING is given up', async () => {
    const silent = net.createServer((socket) => socket.on('error', () => {}).resume());
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    cleanups.push(() => silent.close());
    const { port } = silent.address() as net.AddressInfo;
    const pool = createHttp2Pool({
      clock: systemClock,
      connect: (signal) => connectTcp({ address: '127.0.0.1', port, timeoutMs: 2_000 }, signal),
      keepAlive: { intervalMs: 20, timeoutMs: 50, whileIdle: true },
    });
    const answer = await send(pool, 1);
    expect(answer.error?.source).toBe('upstream');
  });
});
