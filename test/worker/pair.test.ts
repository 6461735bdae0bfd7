// Two workers, a client's and a server's, with mTLS between them: what one counts the other must have counted too.

import http from 'node:http';
import net from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { DestinationProfile, type WeightedAddr } from '#api/gen/destination.ts';
import { WatchKind } from '#api/worker-link.ts';
import { FakeAgent, Issuer } from './support/agent.ts';
import { echo, httpApplication, TcpClient, tcpApplication } from './support/application.ts';
import { API, meshConfig, WEB } from './support/config.ts';
import { cleanUp, until, WorkerUnderTest } from './support/process.ts';

afterEach(cleanUp);

const NOT_FOUND = 5;
/** Where the first destination of worker-main.ts is reached. */
const FIRST_DESTINATION = '127.78.0.0';

/** `api` calls `web`: the application's port behind a meshed endpoint. */
async function pair(applicationPort: number, hint: 'http1' | 'http2' | 'opaque', part: { identity?: string } = {}) {
  const issuer = new Issuer();
  const server = new WorkerUnderTest();
  const serverAgent = await FakeAgent.connect(server.sockets.controlPath, issuer);
  serverAgent.configure(meshConfig(server.sockets, issuer.anchorsPem));
  await serverAgent.whenState('ready');

  // Loopback is never redirected, so the application dials an address of its own; discovery says where that is.
  const destination = { address: '10.1.0.2', port: applicationPort };
  const client = new WorkerUnderTest({
    environment: { DESTINATIONS: JSON.stringify([destination]), POD_ADDRESS: '127.0.0.4' },
  });
  const clientAgent = await FakeAgent.connect(client.sockets.controlPath, issuer);
  const identity = part.identity ?? WEB;
  const protocol = {
    http1: undefined,
    http2: { $case: 'h2' as const, value: {} },
    opaque: { $case: 'opaque' as const, value: {} },
  }[hint];
  const endpoint: WeightedAddr = {
    addr: { ip: { ip: { $case: 'ipv4', value: 0x7f000002 } }, port: applicationPort },
    weight: 10_000,
    metricLabels: { pod: 'web-1', deployment: 'web', namespace: 'shop' },
    tlsIdentity: {
      strategy: { $case: 'dnsLikeIdentity', value: { name: identity } },
      serverName: { name: identity },
    },
    protocolHint: { protocol, opaqueTransport: { inboundPort: server.sockets.ports.inbound4 } },
    authorityOverride: undefined,
    http2: undefined,
    resourceRef: undefined,
  };
  clientAgent.onWatch = (watch) => {
    if (watch.kind === WatchKind.profile) {
      clientAgent.update(
        watch.stream,
        DestinationProfile.encode({
          routes: [],
          retryBudget: undefined,
          dstOverrides: [],
          opaqueProtocol: hint === 'opaque',
          fullyQualifiedName: '',
          parentRef: undefined,
          profileRef: undefined,
          endpoint,
        }).finish(),
      );
    } else clientAgent.endWatch(watch.stream, NOT_FOUND, 'no such service');
  };
  const config = meshConfig(client.sockets, issuer.anchorsPem, { name: API });
  clientAgent.configure({ ...config, pod: { ...config.pod, ips: ['127.0.0.4'] } });
  await clientAgent.whenState('ready');
  return { issuer, client, clientAgent, server, serverAgent };
}

type Pair = Awaited<ReturnType<typeof pair>>;

function get(
  rig: Pair,
  path: string,
  agent?: http.Agent,
): Promise<{ status: number; body: string; headers: http.IncomingHttpHeaders }> {
  const { promise, resolve, reject } = Promise.withResolvers<Awaited<ReturnType<typeof get>>>();
  const outgoing = http.get({
    host: FIRST_DESTINATION,
    port: rig.client.sockets.ports.outbound4,
    path,
    headers: { host: 'web.shop' },
    agent: agent ?? false,
  });
  outgoing.setTimeout(10_000, () => outgoing.destroy(new Error('no answer within 10 s')));
  outgoing.on('error', reject);
  outgoing.on('response', (response) => {
    let body = '';
    response.setEncoding('latin1').on('data', (text: string) => {
      body += text;
    });
    response.on('error', reject);
    response.on('end', () => resolve({ status: response.statusCode!, body, headers: response.headers }));
  });
  return promise;
}

describe('a pair of workers', () => {
  test.each(['http1', 'http2'] as const)(
    'carries HTTP/1.1 (%s between them), secured by the metrics of both',
    async (hint) => {
      const application = await httpApplication();
      const rig = await pair(application.port, hint);
      const answers = await Promise.all(Array.from({ length: 40 }, (_, index) => get(rig, `/${index}`)));
      expect(answers.map(({ status, body }) => `${status} ${body}`)).toEqual(
        Array.from({ length: 40 }, (_, index) => `200 GET /${index} `),
      );
      expect(new Set(application.seen.map(({ headers }) => headers['l5d-client-id']))).toEqual(new Set([API]));
      const outbound = ['direction="outbound"', 'tls="true"', `server_id="${WEB}"`, 'dst_deployment="web"'];
      const inbound = ['direction="inbound"', 'tls="true"', `client_id="${API}"`, 'srv_name="all-unauthenticated"'];
      expect(await rig.clientAgent.metric('response_total', ...outbound, 'classification="success"')).toBe(40);
      expect(await rig.serverAgent.metric('response_total', ...inbound, 'classification="success"')).toBe(40);
      expect(await rig.clientAgent.metric('response_latency_ms_count', ...outbound)).toBe(40);
      expect(await rig.serverAgent.metric('response_latency_ms_count', ...inbound)).toBe(40);
      expect(
        await rig.serverAgent.metric('inbound_tcp_transport_header_connections_total', `session_protocol="${hint}"`),
      ).toBeGreaterThan(0);
    },
  );

  test('carries bytes, half-closes included', async () => {
    const application = await tcpApplication(echo);
    const rig = await pair(application.port, 'opaque');
    const socket = net.connect({
      host: FIRST_DESTINATION,
      port: rig.client.sockets.ports.outbound4,
      allowHalfOpen: true,
    });
    const client = new TcpClient(socket);
    const bytes = 'secret payload '.repeat(20_000);
    client.socket.end(bytes);
    await until('the echo', () => client.closed !== null);
    expect([client.closed, client.received.length, client.received === bytes]).toEqual(['', bytes.length, true]);
    expect(await rig.clientAgent.metric('tcp_open_total', 'peer="dst"', 'tls="true"', `server_id="${WEB}"`)).toBe(1);
    expect(await rig.serverAgent.metric('tcp_open_total', 'peer="src"', 'tls="true"', `client_id="${API}"`)).toBe(1);
  });

  test('a server that proves to be somebody else is refused; nothing reaches it', async () => {
    const application = await httpApplication();
    const rig = await pair(application.port, 'http1', {
      identity: 'other.shop.serviceaccount.identity.heddle.cluster.local',
    });
    const answer = await get(rig, '/');
    expect(answer.status).toBe(502);
    expect(answer.headers['l5d-proxy-error']).toBeDefined();
    expect(application.seen).toEqual([]);
  });

  test('a denied request is 403 at the client, and counted where it was denied', async () => {
    const application = await httpApplication();
    const rig = await pair(application.port, 'http1');
    expect((await get(rig, '/')).status).toBe(200);
    const config = meshConfig(rig.server.sockets, rig.issuer.anchorsPem, { inbound: { defaultPolicy: 'deny' } });
    rig.serverAgent.configure(config);
    await rig.server.whenLogged('configuration changed');
    await until('the denial', async () => (await get(rig, '/denied')).status === 403);
    expect(application.seen.map(({ url }) => url)).toEqual(['/']);
    expect(await rig.serverAgent.metric('inbound_http_authz_deny_total', `client_id="${API}"`)).toBeGreaterThan(0);
  });

  test("the server's worker may be replaced under load: no request is lost", async () => {
    const application = await httpApplication();
    const rig = await pair(application.port, 'http2');
    const failed: string[] = [];
    let done = 0;
    let isOver = false;
    const load = async (agent?: http.Agent): Promise<void> => {
      while (!isOver) {
        await get(rig, '/load', agent).then(
          ({ status, body }) => (status === 200 && body === 'GET /load ' ? done++ : failed.push(`${status} ${body}`)),
          (error) => failed.push(String(error)),
        );
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    const kept = Array.from({ length: 4 }, () => new http.Agent({ keepAlive: true, maxSockets: 1 }));
    const loads = [...kept.map((agent) => load(agent)), load(), load()];
    await until('load flows', () => done > 100);
    let old = { worker: rig.server, agent: rig.serverAgent };
    for (let round = 0; round < 2; round++) {
      const worker = new WorkerUnderTest({ sockets: rig.server.sockets });
      const agent = await FakeAgent.connect(rig.server.sockets.controlPath, rig.issuer);
      agent.configure(meshConfig(rig.server.sockets, rig.issuer.anchorsPem));
      await agent.whenState('ready');
      old.agent.drain({ graceMs: 10_000, reason: 'successor' });
      expect(await old.worker.whenGone()).toEqual({ code: 0, signal: null });
      const soFar = done;
      await until('load flows on', () => done > soFar + 100);
      old = { worker, agent };
    }
    isOver = true;
    await Promise.all(loads);
    for (const agent of kept) agent.destroy();
    expect(failed).toEqual([]);
  });
});
