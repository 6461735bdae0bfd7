// Two workers' proxies between a client and a server: the client's outbound half, mutual TLS over loopback, the
// server's inbound half. What one does the other must undo, and nothing may travel in clear.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { WeightedAddr } from '#api/gen/destination.ts';
import type { DefaultInboundPolicy } from '#api/worker-config.ts';
import { systemClock } from '#lib/clock.ts';
import { silentLog } from '#lib/log.ts';
import { FakeTransport } from './control/testing.ts';
import { Inbound } from './inbound/inbound.ts';
import { type ConnectTarget, connectTcp } from './io/connect.ts';
import { wrapSocket } from './io/socket.ts';
import { TestAuthority } from './io/testing/certificates.ts';
import { createTlsContext, type TlsContext } from './io/tls.ts';
import { LiveConnections } from './live-connections.ts';
import { Metrics } from './observe/metrics.ts';
import {
  balancerBackend,
  detectPolicy,
  route,
  rule,
  settle,
  TestControlPlane,
  weightedAddr,
} from './outbound/testing.ts';
import { createOutbound, type Outbound } from './stack.ts';
import { workerConfig } from './testing.ts';

const PATH = 'web.shop.svc.cluster.local:80';
const POD = '10.1.0.9';
const PORT = 8080;
const PROXY_PORT = 4143;
const CART = 'cart.shop.serviceaccount.identity.heddle.cluster.local';
const WEB = 'web.shop.serviceaccount.identity.heddle.cluster.local';

const authority = new TestAuthority();
afterAll(() => authority[Symbol.dispose]());
const material = (name: string) => ({
  anchorsPem: authority.anchorPem,
  certificate: authority.leaf({ subjectAltName: `DNS:${name}` }),
});
const [cartMaterial, webMaterial] = [material(CART), material(WEB)];

let closers: (() => void)[] = [];
let outbound: Outbound;
let control: TestControlPlane;
let clientTls: TlsContext;
let metrics: Metrics;
let listenerPort: number;
let agent: http.Agent;
/** Where connections to the server's pod go on loopback, by the port they are for. */
let podPorts: Map<number, number>;
let connects: number[];
/** Everything that left the client's proxy. */
let wire: Buffer[];

beforeEach(async () => {
  closers = [];
  podPorts = new Map();
  connects = [];
  wire = [];
  clientTls = createTlsContext(cartMaterial);
  metrics = new Metrics(systemClock);
  const transport = new FakeTransport();
  control = new TestControlPlane(transport);
  outbound = createOutbound({
    clock: systemClock,
    log: silentLog,
    random: Math.random,
    recorder: metrics,
    transport,
    live: new LiveConnections(),
    config: () => workerConfig(),
    tls: () => clientTls,
    connect: (target: ConnectTarget, signal?: AbortSignal) => {
      connects.push(target.port);
      return connectTcp({ ...target, address: '127.0.0.1', port: podPorts.get(target.port) ?? 1 }, signal);
    },
  });
  closers.push(() => outbound.close());
  listenerPort = await accept((stream) => void outbound.accept(stream, { address: '10.96.0.1', port: 80 }));
  agent = new http.Agent({ keepAlive: true });
  closers.push(() => agent.destroy());
  const first = net.connect(listenerPort, '127.0.0.1');
  first.on('error', () => {});
  await once(first, 'connect');
  await settle(10);
  control.profile();
  control.policy(detectPolicy([route([rule('/', [balancerBackend(PATH)])])], balancerBackend(PATH)));
  first.destroy();
});

afterEach(() => {
  for (const close of closers) close();
});

async function listen(server: net.Server | http.Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => {
    server.close();
    if (server instanceof http.Server) server.closeAllConnections();
  });
  return (server.address() as AddressInfo).port;
}

function accept(onStream: (stream: ReturnType<typeof wrapSocket>) => void): Promise<number> {
  return listen(
    net.createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) =>
      onStream(wrapSocket(socket)),
    ),
  );
}

/** A proxy that only listens: forwards the bytes and keeps a copy of what came from the client's side. */
async function wiretap(toPort: number): Promise<number> {
  return listen(
    net.createServer({ allowHalfOpen: true }, (near) => {
      const far = net.connect({ port: toPort, host: '127.0.0.1', allowHalfOpen: true });
      near.on('data', (bytes: Buffer) => wire.push(bytes));
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        from.pipe(to);
        from.on('error', () => to.destroy());
      }
    }),
  );
}

/** The server's pod: its inbound proxy, in front of what listens on `applicationPort`. */
async function pod(applicationPort: number, defaultPolicy: DefaultInboundPolicy = 'all-unauthenticated') {
  const serverTls = createTlsContext(webMaterial);
  const base = workerConfig();
  const config = workerConfig({
    pod: { ...base.pod, ips: [POD] },
    inbound: { ...base.inbound, defaultPolicy, connectTimeoutMs: 1_000 },
  });
  const inbound = new Inbound(config, {
    clock: systemClock,
    log: silentLog,
    random: Math.random,
    metrics: new Metrics(systemClock),
    live: new LiveConnections(),
    transport: new FakeTransport(),
    identity: () => ({ name: WEB, tls: serverTls }),
    connect: (target, signal) => connectTcp({ ...target, address: '127.0.0.1', port: applicationPort }, signal),
  });
  for (const port of [PORT, PROXY_PORT]) {
    const inboundPort = await accept((stream) => inbound.accept(stream, { address: POD, port }));
    podPorts.set(port, await wiretap(inboundPort));
  }
  return { serverTls };
}

async function origin(handler: http.RequestListener): Promise<number> {
  return listen(http.createServer({ keepAliveTimeout: 60_000 }, handler));
}

const endpoint = (part: Partial<WeightedAddr> = {}, identity = WEB): WeightedAddr => {
  const name = { name: identity };
  const tlsIdentity = { strategy: { $case: 'dnsLikeIdentity' as const, value: name }, serverName: name };
  return weightedAddr(POD, PORT, { tlsIdentity, ...part });
};
const HINT_H2 = { protocol: { $case: 'h2' as const, value: {} }, opaqueTransport: undefined };
const TRANSPORT = { protocol: undefined, opaqueTransport: { inboundPort: PROXY_PORT } };

async function send(body = ''): Promise<{ status: number; body: string }> {
  const request = http.request({ host: '127.0.0.1', port: listenerPort, agent, method: 'POST' });
  request.end(body);
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  let text = '';
  response.setEncoding('latin1').on('data', (chunk: string) => {
    text += chunk;
  });
  await once(response, 'end');
  return { status: response.statusCode ?? 0, body: text };
}

/** Tells who asked, over which version, and sends the body back. */
const echo: http.RequestListener = (request, response) => {
  let body = '';
  request.setEncoding('latin1').on('data', (chunk: string) => {
    body += chunk;
  });
  request.on('end', () => response.end(`${request.headers['l5d-client-id']} ${request.httpVersion} ${body}`));
};

const isOnWire = (text: string) => Buffer.concat(wire).includes(text);

describe('HTTP', () => {
  test.each([
    ['one HTTP/2 connection', { protocolHint: HINT_H2 }, [PORT]],
    [
      'HTTP/2 behind a transport header',
      { protocolHint: { ...HINT_H2, ...{ opaqueTransport: TRANSPORT.opaqueTransport } } },
      [PROXY_PORT],
    ],
  ])('%s carries the requests of many', async (_name, part, ports) => {
    await pod(await origin(echo));
    control.add(PATH, endpoint(part));
    const answers = await Promise.all(Array.from({ length: 60 }, (_, index) => send(`secret ${index}`)));
    for (const [index, answer] of answers.entries()) {
      expect(answer).toEqual({ status: 200, body: `${CART} 1.1 secret ${index}` });
    }
    expect(connects).toEqual(ports);
    expect([isOnWire('secret'), isOnWire('POST'), wire.length > 0]).toEqual([false, false, true]);
  });

  test.each([
    ['to the port', {}],
    ['behind a transport header', { protocolHint: TRANSPORT }],
  ])('HTTP/1 %s', async (_name, part) => {
    await pod(await origin(echo));
    control.add(PATH, endpoint(part));
    for (let index = 0; index < 20; index++) {
      expect(await send('secret')).toEqual({ status: 200, body: `${CART} 1.1 secret` });
    }
    expect(connects).toHaveLength(1);
    expect(isOnWire('secret')).toBe(false);
  });

  test('in clear everything is seen: the tap works', async () => {
    await pod(await origin(echo));
    control.add(PATH, weightedAddr(POD, PORT));
    expect((await send('secret')).status).toBe(200);
    expect(isOnWire('secret')).toBe(true);
  });

  test('a peer with another identity gets nothing', async () => {
    let requests = 0;
    await pod(await origin((_request, response) => void response.end(String(requests++))));
    control.add(PATH, endpoint({}, 'other.shop.serviceaccount.identity.heddle.cluster.local'));
    expect((await send('secret')).status).toBe(502);
    expect(requests).toBe(0);
  });

  test('a server that wants an identity gets it', async () => {
    await pod(await origin(echo), 'all-authenticated');
    control.add(PATH, endpoint({ protocolHint: HINT_H2 }));
    expect((await send('hello')).status).toBe(200);
    control.add(PATH, weightedAddr(POD, PORT));
    expect((await send('hello')).status).toBe(403);
  });

  test('certificates change under load without a failed request', async () => {
    const { serverTls } = await pod(await origin(echo));
    control.add(PATH, endpoint());
    let isDone = false;
    const faults: string[] = [];
    let sent = 0;
    const loops = Array.from({ length: 4 }, async () => {
      while (!isDone) {
        sent++;
        const { status, body } = await send('x');
        if (status !== 200) faults.push(`${status} ${body}`);
      }
    });
    for (let round = 0; round < 5; round++) {
      clientTls.update(material(CART));
      serverTls.update(material(WEB));
      const before = sent;
      while (sent < before + 20) await settle(1);
    }
    isDone = true;
    await Promise.all(loops);
    expect(faults).toEqual([]);
  });

  test('both sides tell that the connection is secured', async () => {
    await pod(await origin(echo));
    control.add(PATH, endpoint({ metricLabels: { pod: 'web-1' } }));
    await send('hello');
    const lines = [...metrics.scrape()].join('').split('\n');
    const response = lines.filter((line) => line.startsWith('response_total{'));
    expect(response).toHaveLength(1);
    for (const label of ['dst_pod="web-1"', `server_id="${WEB}"`, 'tls="true"', 'status_code="200"']) {
      expect(response[0]).toContain(label);
    }
    const open = lines.filter((line) => line.startsWith('tcp_open_connections{') && line.includes('peer="dst"'));
    expect(open).toHaveLength(1);
    expect(open[0]).toMatch(/tls="true".*\} 1$/);
  });
});

describe('opaque connections', () => {
  test.each([
    ['in TLS', {}],
    ['behind a transport header', { protocolHint: TRANSPORT }],
  ])('%s: 1 MB each way, half-close', async (_name, part) => {
    const down = randomBytes(1 << 20);
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      const chunks: Buffer[] = [];
      socket.on('data', (chunk: Buffer) => chunks.push(chunk));
      socket.on('end', () => {
        const up = Buffer.concat(chunks);
        socket.end(Buffer.concat([down, Buffer.from(`${up.length} ${up.subarray(-6).toString('latin1')}`)]));
      });
    });
    await pod(await listen(server));
    control.add(PATH, endpoint(part));
    const client = net.connect({ host: '127.0.0.1', port: listenerPort, allowHalfOpen: true });
    const received: Buffer[] = [];
    client.on('data', (chunk: Buffer) => received.push(chunk));
    client.end(Buffer.concat([Buffer.from('\x00\x01\x02 secret'), Buffer.alloc(1 << 20, 0), Buffer.from('theend')]));
    await once(client, 'end');
    const bytes = Buffer.concat(received);
    expect(bytes.subarray(0, down.length).equals(down)).toBe(true);
    expect(bytes.subarray(down.length).toString()).toBe(`${(1 << 20) + 16} theend`);
    expect(isOnWire('secret')).toBe(false);
  });
});
