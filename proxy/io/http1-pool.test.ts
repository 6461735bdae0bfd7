import { describe, expect, test } from 'vitest';
import { FakeClock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import type { RequestStream } from '../http.ts';
import { createHttp1Pool, type Http1PoolOptions } from './http1-pool.ts';
import { EXCHANGE, type RawPeer, ReceivedResponse, rawPair, requestHead } from './testing/http1.ts';
import { turns, until } from './testing/recorder.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

function setUp(options: Partial<Http1PoolOptions> = {}) {
  const clock = new FakeClock();
  const servers: RawPeer[] = [];
  const gone: (string | null)[] = [];
  const signals: AbortSignal[] = [];
  const pool = createHttp1Pool({
    clock,
    connect: (signal) => {
      signals.push(signal);
      const [server, far] = rawPair();
      servers.push(server);
      return Promise.resolve(far);
    },
    onConnectionClosed: (_connection: Duplex, error) => gone.push(error?.code ?? null),
    ...options,
  });
  const get = (part: Parameters<typeof requestHead>[0] = {}): [RequestStream, ReceivedResponse] => {
    const response = new ReceivedResponse();
    const request = pool.call(requestHead(part), EXCHANGE, response);
    if (part.bodyBytes === undefined) request.end(null);
    return [request, response];
  };
  return { clock, servers, pool, get, gone, signals };
}

describe('connections', () => {
  test('are opened as needed and used again, the last one first', async () => {
    const { servers, pool, get } = setUp();
    const responses = [get()[1], get()[1], get()[1]];
    expect([pool.connectingConnections, pool.waitingRequests]).toEqual([3, 3]);
    await until(() => servers.length === 3 && servers.every((server) => server.text !== ''));
    expect([pool.busyConnections, pool.idleConnections]).toEqual([3, 0]);
    for (const server of servers) server.send(OK);
    await until(() => responses.every((response) => response.isEnded));
    expect([pool.busyConnections, pool.idleConnections]).toEqual([0, 3]);
    for (let index = 0; index < 10; index++) {
      const [, response] = get();
      await until(() => servers[2]!.text.split('GET').length === index + 3);
      servers[2]!.send(OK);
      await until(() => response.isEnded);
    }
    expect(servers.length).toBe(3);
  });

  test('close when they idle too long, the oldest first', async () => {
    const { servers, pool, get, clock, gone } = setUp({ idleTimeoutMs: 1000 });
    const responses = [get()[1], get()[1]];
    await until(() => servers.length === 2);
    servers[0]!.send(OK);
    await until(() => responses[0]!.isEnded);
    clock.advance(600);
    servers[1]!.send(OK);
    await until(() => responses[1]!.isEnded);
    expect(pool.idleConnections).toBe(2);
    clock.advance(500);
    await until(() => servers[0]!.isEnded);
    expect(pool.idleConnections).toBe(1);
    clock.advance(600);
    await until(() => servers[1]!.isEnded && gone.length === 2);
    expect(pool.idleConnections).toBe(0);
    expect(gone).toEqual([null, null]);
  });

  test('are kept up to a number', async () => {
    const { servers, pool, get } = setUp({ idleMax: 1 });
    const responses = [get()[1], get()[1]];
    await until(() => servers.length === 2);
    for (const server of servers) server.send(OK);
    await until(() => responses.every((response) => response.isEnded));
    expect(pool.idleConnections).toBe(1);
    await until(() => servers[0]!.isEnded);
  });

  test('are opened up to a number; further requests wait, in order', async () => {
    const { servers, pool, get } = setUp({ connectionsMax: 1 });
    const answered: string[] = [];
    const responses = ['/1', '/2', '/3'].map((path) => get({ path })[1]);
    await until(() => servers.length === 1 && servers[0]!.text !== '');
    expect(pool.waitingRequests).toBe(2);
    for (const [index, response] of responses.entries()) {
      await until(() => servers[0]!.text.includes(`/${index + 1} `));
      servers[0]!.send(OK);
      await until(() => response.isEnded);
      answered.push(response.body);
    }
    expect(servers.length).toBe(1);
    expect(answered).toEqual(['ok', 'ok', 'ok']);
  });

  test('that a server closes while idle are forgotten', async () => {
    const { servers, pool, get } = setUp();
    const [, response] = get();
    await until(() => servers.length === 1);
    servers[0]!.send(OK);
    await until(() => response.isEnded);
    servers[0]!.stream.end();
    await until(() => pool.idleConnections === 0);
    get();
    await until(() => servers.length === 2);
  });
});

describe('a request', () => {
  test('that waits takes whichever connection is free first', async () => {
    const pending: ((duplex: Duplex) => void)[] = [];
    const { pool, get } = setUp({ connect: () => new Promise<Duplex>((resolve) => pending.push(resolve)) });
    const [server, far] = rawPair();
    get({ path: '/1' });
    const [, second] = get({ path: '/2' });
    expect(pending.length).toBe(2);
    pending[0]!(far);
    await until(() => server.text.includes('/1 '));
    server.send(OK);
    await until(() => server.text.includes('/2 '));
    server.send(OK);
    await until(() => second.isEnded);
    const [late, lateFar] = rawPair();
    pending[1]!(lateFar);
    await turns(3);
    expect(late.text).toBe('');
    expect(pool.idleConnections).toBe(2);
  });

  test('that waits keeps what its client sends, little of it', async () => {
    const pending: ((duplex: Duplex) => void)[] = [];
    const { get } = setUp({ connect: () => new Promise<Duplex>((resolve) => pending.push(resolve)) });
    const [request, response] = get({ method: 'POST', bodyBytes: 'unknown' });
    let sent = 0;
    for (; sent < 1_000_000 && request.data(Buffer.alloc(1000, 65)); sent += 1000);
    expect(sent).toBeLessThan(100_000);
    const [server, far] = rawPair();
    pending[0]!(far);
    await until(() => response.resumes > 0 && server.bytes > sent);
    request.end(null);
    await until(() => server.text.endsWith('0\r\n\r\n'));
    expect(server.text.match(/A/g)!.length).toBe(sent + 1000);
  });

  test('that gives up while it waits leaves the connection to others', async () => {
    const pending: ((duplex: Duplex) => void)[] = [];
    const { pool, get } = setUp({ connect: () => new Promise<Duplex>((resolve) => pending.push(resolve)) });
    const [request, response] = get();
    request.reset(new HeddleError('test', 'enough'));
    expect(pool.waitingRequests).toBe(0);
    const [server, far] = rawPair();
    pending[0]!(far);
    await until(() => pool.idleConnections === 1);
    expect(server.text).toBe('');
    expect(response.isOver).toBe(false);
  });

  test('fails with the connection that was opened for it', async () => {
    let attempts = 0;
    const { pool, get } = setUp({
      connect: () => {
        attempts++;
        return Promise.reject(new HeddleError('connect-refused', 'no', { source: 'upstream', retry: 'yes' }));
      },
    });
    const responses = [get()[1], get()[1]];
    await until(() => responses.every((response) => response.failure !== null));
    expect(responses.map((response) => response.failure!.code)).toEqual(['connect-refused', 'connect-refused']);
    expect(attempts).toBe(2);
    expect([pool.connectingConnections, pool.waitingRequests, pool.busyConnections]).toEqual([0, 0, 0]);
  });

  test('too many fails at once', async () => {
    const { get } = setUp({ connect: () => new Promise<Duplex>(() => {}), waitingMax: 2 });
    get();
    get();
    const [, response] = get();
    await until(() => response.failure !== null);
    expect(response.failure).toMatchObject({ code: 'pool-queue-full', retry: 'yes' });
  });

  test('sent on a connection that the server has just closed is sent again on another', async () => {
    const { servers, get } = setUp();
    const [, first] = get();
    await until(() => servers.length === 1);
    servers[0]!.send(OK);
    await until(() => first.isEnded);
    const [, second] = get({ path: '/again' });
    await until(() => servers[0]!.text.includes('/again'));
    servers[0]!.stream.reset();
    await until(() => servers.length === 2 && servers[1]!.text.includes('/again'));
    servers[1]!.send(OK);
    await until(() => second.isEnded);
    expect(second.body).toBe('ok');
  });

  test('with POST is not', async () => {
    const { servers, get } = setUp();
    const [, first] = get();
    await until(() => servers.length === 1);
    servers[0]!.send(OK);
    await until(() => first.isEnded);
    const [, second] = get({ method: 'POST' });
    await until(() => servers[0]!.text.includes('POST'));
    servers[0]!.stream.reset();
    await until(() => second.failure !== null);
    expect(second.failure).toMatchObject({ code: 'upstream-closed', retry: 'if-reused' });
    expect(servers.length).toBe(1);
  });
});

describe('closing', () => {
  test('ends idle connections now, busy ones behind their exchange, and fails what waits', async () => {
    const { servers, pool, get, signals } = setUp({ connectionsMax: 2 });
    const [, done] = get();
    const [, busy] = get();
    await until(() => servers.length === 2);
    servers[0]!.send(OK);
    await until(() => done.isEnded && pool.idleConnections === 1);
    pool.close();
    pool.close();
    await until(() => servers[0]!.isEnded);
    expect(servers[1]!.isEnded).toBe(false);
    expect(signals[0]!.aborted).toBe(true);
    servers[1]!.send(OK);
    await until(() => busy.isEnded && servers[1]!.isEnded);
    const [, late] = get();
    await until(() => late.failure !== null);
    expect(late.failure!.code).toBe('pool-closed');
  });

  test('gives up connections that are being opened', async () => {
    const { pool, get } = setUp({
      connect: (signal) =>
        new Promise<Duplex>((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    });
    const [, response] = get();
    pool.close();
    await until(() => response.failure !== null);
    expect(response.failure!.code).toBe('pool-closed');
    await until(() => pool.connectingConnections === 0);
  });
});
