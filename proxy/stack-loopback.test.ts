// The outbound proxy between real programs: node:http clients and servers, real sockets on loopback, real time.

import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import tls from 'node:tls';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Backend, TlsRoute } from '#api/gen/outbound.ts';
import type { SniMatch } from '#api/gen/tls_route.ts';
import { systemClock } from '#lib/clock.ts';
import { silentLog } from '#lib/log.ts';
import { FakeTransport } from './control/testing.ts';
import { wrapSocket } from './io/socket.ts';
import { LiveConnections } from './live-connections.ts';
import { silentRecorder } from './observe/silent-recorder.ts';
import {
  balancerBackend,
  detectPolicy,
  duration,
  forwardBackend,
  route,
  rule,
  settle,
  TestControlPlane,
  weightedAddr,
} from './outbound/testing.ts';
import { createOutbound, type Outbound } from './stack.ts';
import { workerConfig } from './testing.ts';

const PATH = 'web.shop.svc.cluster.local:80';

let outbound: Outbound;
let control: TestControlPlane;
let listener: net.Server;
let proxyPort: number;
let agent: http.Agent;
const servers: (http.Server | net.Server)[] = [];

beforeEach(async () => {
  const transport = new FakeTransport();
  control = new TestControlPlane(transport);
  outbound = createOutbound({
    clock: systemClock,
    log: silentLog,
    random: Math.random,
    recorder: silentRecorder,
    transport,
    live: new LiveConnections(),
    config: () => workerConfig(),
    tls: () => null,
  });
  listener = net.createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
    void outbound.accept(wrapSocket(socket), { address: '10.96.0.1', port: 80 });
  });
  proxyPort = await listen(listener);
  agent = new http.Agent({ keepAlive: true });
  // The first connection makes the target, so that it can be told about.
  const first = net.connect(proxyPort, '127.0.0.1');
  first.on('error', () => {});
  await once(first, 'connect');
  await settle(10);
  control.profile();
  answerPolicy();
  first.destroy();
});

afterEach(async () => {
  agent.destroy();
  outbound.close();
  listener.close();
  for (const server of servers.splice(0)) {
    server.close();
    if (server instanceof http.Server) server.closeAllConnections();
  }
});

async function listen(server: net.Server | http.Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

function answerPolicy(part: Parameters<typeof rule>[2] = {}): void {
  control.policy(detectPolicy([route([rule('/', [balancerBackend(PATH)], part)])], balancerBackend(PATH)));
}

async function origin(handler: http.RequestListener): Promise<{ port: number; server: http.Server }> {
  const server = http.createServer({ keepAliveTimeout: 60_000 }, handler);
  servers.push(server);
  return { port: await listen(server), server };
}

/** Sends a body back, with the server's name in front. */
const echo =
  (name: string): http.RequestListener =>
  (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => response.end(`${name}:${Buffer.concat(chunks).toString('latin1')}`));
  };

interface Answer {
  status: number;
  body: string;
}

async function send(options: http.RequestOptions, body = ''): Promise<Answer> {
  const request = http.request({ host: '127.0.0.1', port: proxyPort, agent, ...options });
  request.end(body);
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  let text = '';
  response.setEncoding('latin1');
  response.on('data', (chunk) => {
    text += chunk;
  });
  await once(response, 'end');
  const reason = response.headers['l5d-proxy-error'];
  return { status: response.statusCode!, body: typeof reason === 'string' ? reason : text };
}

/** Keeps `concurrency` requests under way until `isDone`, each with a body that must come back. */
async function load(concurrency: number, isDone: () => boolean): Promise<{ sent: number; faults: string[] }> {
  const faults: string[] = [];
  let sent = 0;
  const worker = async (): Promise<void> => {
    while (!isDone()) {
      const body = `body ${sent++} ${'x'.repeat(sent % 3_000)}`;
      // Half of them on connections of their own.
      const options: http.RequestOptions = sent % 2 === 0 ? { method: 'POST' } : { method: 'POST', agent: false };
      const answer = await send(options, body).catch((error: Error) => ({ status: 0, body: error.message }));
      if (answer.status !== 200 || !answer.body.endsWith(`:${body}`)) {
        faults.push(`${answer.status} ${answer.body.slice(0, 100)}`);
      }
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  return { sent, faults };
}

describe('HTTP', () => {
  test('many requests, few connections, every body back', async () => {
    let connections = 0;
    const { port, server } = await origin(echo('a'));
    server.on('connection', () => connections++);
    control.add(PATH, weightedAddr('127.0.0.1', port));
    let rounds = 0;
    const { sent, faults } = await load(8, () => rounds++ >= 1_000);
    expect(faults).toEqual([]);
    expect(sent).toBeGreaterThanOrEqual(1_000);
    expect(connections).toBeLessThanOrEqual(8);
  });

  test('endpoints come and go under load without a failed request', async () => {
    const all = await Promise.all(['a', 'b', 'c', 'd'].map((name) => origin(echo(name))));
    const addrs = all.map(({ port }) => weightedAddr('127.0.0.1', port));
    control.add(PATH, addrs[0]!, addrs[1]!);
    let isDone = false;
    const running = load(16, () => isDone);
    for (let round = 0; round < 12; round++) {
      const [next, previous] = [addrs[(round + 2) % 4]!, addrs[round % 4]!];
      control.add(PATH, next);
      control.remove(PATH, previous);
      // As a pod that is deleted: it finishes what is on its way to it, then it is gone.
      const { server } = all[round % 4]!;
      await settle(150);
      server.close();
      server.closeIdleConnections();
      await settle(50);
      await listenAgain(server, all[round % 4]!.port);
    }
    isDone = true;
    const { sent, faults } = await running;
    expect(faults).toEqual([]);
    expect(sent).toBeGreaterThan(200);
  });

  test('an endpoint that is gone before discovery knows costs no request', async () => {
    const [a, b] = await Promise.all([origin(echo('a')), origin(echo('b'))]);
    control.add(PATH, weightedAddr('127.0.0.1', a.port), weightedAddr('127.0.0.1', b.port));
    a.server.close();
    let rounds = 0;
    const { faults } = await load(8, () => rounds++ >= 200);
    expect(faults).toEqual([]);
  });

  test('a failure is tried again where the route says so', async () => {
    let calls = 0;
    const { port } = await origin((request, response) => {
      calls++;
      if (calls % 2 === 1) response.writeHead(503);
      echo('a')(request, response);
    });
    control.add(PATH, weightedAddr('127.0.0.1', port));
    answerPolicy({
      retry: {
        maxRetries: 1,
        maxRequestBytes: 0,
        conditions: { statusRanges: [{ start: 500, end: 599 }] },
        timeout: undefined,
        backoff: { minBackoff: duration(5), maxBackoff: duration(10), jitterRatio: 0, respectRetryAfterHint: false },
      },
    });
    for (let index = 0; index < 20; index++) {
      expect(await send({ method: 'PUT' }, `body ${index}`)).toEqual({ status: 200, body: `a:body ${index}` });
    }
    expect(calls).toBe(40);
  });

  test('no endpoint for three seconds is 504', async () => {
    const startedMs = systemClock.nowMs();
    expect((await send({})).status).toBe(504);
    expect(systemClock.nowMs() - startedMs).toBeGreaterThanOrEqual(2_990);
    const { port } = await origin(echo('a'));
    expect((await send({})).status).toBe(504);
    control.add(PATH, weightedAddr('127.0.0.1', port));
    expect((await send({})).status).toBe(200);
  });

  test('large bodies flow both ways at the pace of the slower side', async () => {
    const { port } = await origin((request, response) => void request.pipe(response));
    control.add(PATH, weightedAddr('127.0.0.1', port));
    const body = randomBytes(10 * 1024 * 1024);
    const request = http.request({ host: '127.0.0.1', port: proxyPort, agent, method: 'POST' });
    request.end(body);
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    const hash = createHash('sha256');
    response.on('data', (chunk: Buffer) => hash.update(chunk));
    await once(response, 'end');
    expect(hash.digest('hex')).toBe(createHash('sha256').update(body).digest('hex'));
  });

  test('a websocket passes as what it is', async () => {
    const { port, server } = await origin(() => {});
    server.on('upgrade', (_request, socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n');
      socket.pipe(socket);
    });
    control.add(PATH, weightedAddr('127.0.0.1', port));
    const request = http.request({
      host: '127.0.0.1',
      port: proxyPort,
      agent: false,
      headers: { connection: 'upgrade', upgrade: 'echo' },
    });
    request.end();
    const [response, socket] = (await once(request, 'upgrade')) as [http.IncomingMessage, net.Socket];
    expect(response.statusCode).toBe(101);
    socket.write('hello');
    const [data] = (await once(socket, 'data')) as [Buffer];
    expect(data.toString()).toBe('hello');
    socket.end();
    await once(socket, 'close');
  });
});

describe('opaque TCP', () => {
  test('10 MB each way at once, then half-close', async () => {
    const [up, down] = [randomBytes(10 * 1024 * 1024), randomBytes(10 * 1024 * 1024)];
    // Text that is no protocol, so that the first bytes decide for opaque whatever chance made them.
    up.write('opaque bytes!!', 'latin1');
    const hashOf = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
    const uploaded = Promise.withResolvers<string>();
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      const hash = createHash('sha256');
      socket.write(down);
      socket.on('data', (chunk) => hash.update(chunk));
      socket.on('end', () => {
        uploaded.resolve(hash.digest('hex'));
        socket.end('goodbye');
      });
    });
    servers.push(server);
    control.add(PATH, weightedAddr('127.0.0.1', await listen(server)));
    const client = net.connect({ host: '127.0.0.1', port: proxyPort, allowHalfOpen: true });
    const received: Buffer[] = [];
    client.on('data', (chunk: Buffer) => received.push(chunk));
    client.end(up);
    await once(client, 'end');
    expect(await uploaded.promise).toBe(hashOf(up));
    const bytes = Buffer.concat(received);
    expect(hashOf(bytes.subarray(0, down.length))).toBe(hashOf(down));
    expect(bytes.subarray(down.length).toString()).toBe('goodbye');
  });

  test('a refused connection is a reset', async () => {
    const { port, server } = await origin(() => {});
    server.close();
    control.add(PATH, weightedAddr('127.0.0.1', port));
    const client = net.connect(proxyPort, '127.0.0.1');
    client.write('opaque bytes');
    const [error] = (await once(client, 'error')) as [NodeJS.ErrnoException];
    expect(error.code).toBe('ECONNRESET');
  });
});

describe('TLS of the application', () => {
  test('the server name chooses the backend, and the bytes go on as they are', async () => {
    const hellos: Record<string, Buffer> = {};
    const backend = async (name: string): Promise<Backend> => {
      const server = net.createServer((socket) => {
        socket.on('error', () => {});
        socket.on('data', (bytes: Buffer) => {
          hellos[name] = bytes;
          socket.destroy();
        });
      });
      servers.push(server);
      return forwardBackend('127.0.0.1', await listen(server));
    };
    const tlsRoute = (snis: SniMatch[], to: Backend): TlsRoute => ({
      metadata: undefined,
      snis,
      rules: [
        {
          filters: [],
          backends: { kind: { $case: 'firstAvailable', value: { backends: [{ backend: to, filters: [] }] } } },
        },
      ],
    });
    const routes = [
      tlsRoute([{ match: { $case: 'exact', value: 'a.example' } }], await backend('exact')),
      tlsRoute([{ match: { $case: 'suffix', value: { reverseLabels: ['com', 'shop'] } } }], await backend('suffix')),
    ];
    control.policy({ kind: { $case: 'tls', value: { routes } } });
    for (const servername of ['a.example', 'www.shop.com', 'b.example']) {
      const client = tls.connect({ port: proxyPort, host: '127.0.0.1', servername });
      await once(client, 'error');
    }
    expect(Object.keys(hellos)).toEqual(['exact', 'suffix']);
    expect(hellos.exact!.includes('a.example')).toBe(true);
    expect(hellos.suffix!.includes('www.shop.com')).toBe(true);
  });
});

/** The port may still be taken by connections that are closing. */
async function listenAgain(server: http.Server, port: number): Promise<void> {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
}
