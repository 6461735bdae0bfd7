// Inbound traffic through a worker process: TLS or not, HTTP or not, permitted or not.

import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import tls from 'node:tls';
import { afterEach, describe, expect, test } from 'vitest';
import { Header } from '#api/gen/transport_header.ts';
import { TRANSPORT_ALPN } from '#api/names.ts';
import type { DefaultInboundPolicy, WorkerConfig } from '#api/worker-config.ts';
import { FakeAgent, Issuer } from './support/agent.ts';
import { echo, httpApplication, request, TcpClient, tcpApplication } from './support/application.ts';
import { API, meshConfig, POD_ADDRESS, WEB } from './support/config.ts';
import { meshSocket, peerCertificate, secured } from './support/mesh.ts';
import { permit, route, server } from './support/policy.ts';
import { cleanUp, freePort, until, WorkerUnderTest } from './support/process.ts';

afterEach(cleanUp);

/** A meshed worker that is ready. */
async function ready(inbound: Partial<WorkerConfig['inbound']> = {}) {
  const issuer = new Issuer();
  const worker = new WorkerUnderTest();
  const agent = await FakeAgent.connect(worker.sockets.controlPath, issuer);
  const config = meshConfig(worker.sockets, issuer.anchorsPem, { inbound });
  agent.configure(config);
  await agent.whenState('ready');
  return { issuer, worker, agent, config, sockets: worker.sockets };
}

type Ready = Awaited<ReturnType<typeof ready>>;

/** A request over mesh TLS as `name`; null: without a client certificate. */
function meshRequest(rig: Ready, port: number, name: string | null, options: Parameters<typeof request>[2] = {}) {
  const certificate = name === null ? undefined : peerCertificate(rig.issuer, name);
  const mesh = { ...(certificate && { certificate }), ...(options.from && { from: options.from }) };
  return request(rig.sockets, port, { ...options, connect: () => meshSocket(rig.sockets, rig.issuer, port, mesh) });
}

describe('HTTP in clear', () => {
  test('reaches the application as it was, bodies and all', async () => {
    const rig = await ready();
    const application = await httpApplication();
    const answer = await request(rig.sockets, application.port, {
      method: 'POST',
      path: '/things?x=1',
      headers: { 'X-Custom': 'kept', host: 'web.shop:80' },
      body: 'x'.repeat(200_000),
    });
    expect([answer.status, answer.body.length]).toEqual([200, 'POST /things?x=1 '.length + 200_000]);
    expect(application.seen[0]!.headers).toMatchObject({ 'x-custom': 'kept', host: 'web.shop:80' });
    expect(application.seen[0]!.headers['l5d-client-id']).toBeUndefined();
  });

  test('an identity that the client claims is removed', async () => {
    const rig = await ready();
    const application = await httpApplication();
    await request(rig.sockets, application.port, { headers: { 'L5d-Client-Id': API, 'l5d-orig-proto': 'HTTP/2' } });
    expect(application.seen[0]!.headers).not.toHaveProperty('l5d-client-id');
    expect(application.seen[0]!.headers).not.toHaveProperty('l5d-orig-proto');
  });

  test('requests on one connection share one connection to the application', async () => {
    const rig = await ready();
    const application = await httpApplication();
    const keepAlive = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (let count = 0; count < 10; count++) await request(rig.sockets, application.port, { agent: keepAlive });
    keepAlive.destroy();
    expect(await rig.agent.metric('tcp_open_total', 'peer="src"', `target_port="${application.port}"`)).toBe(1);
    expect(await rig.agent.metric('tcp_open_total', 'peer="dst"', `target_port="${application.port}"`)).toBe(1);
    expect(await rig.agent.metric('request_total', 'direction="inbound"', `target_port="${application.port}"`)).toBe(
      10,
    );
  });

  test('an application that is not there is answered 502, without details to a stranger', async () => {
    const rig = await ready();
    const port = await freePort();
    const answer = await request(rig.sockets, port);
    expect(answer).toMatchObject({ status: 502, body: '' });
    expect(answer.headers['content-length']).toBe('0');
    expect(answer.headers).not.toHaveProperty('l5d-proxy-error');
    expect(await rig.agent.metric('inbound_http_errors_total', 'error="i/o"')).toBe(1);
    expect(await rig.agent.metric('response_total', 'classification="failure"', 'status_code="502"')).toBe(1);
  });
});

describe('mesh TLS', () => {
  test('is terminated for our name, and the application learns who calls', async () => {
    const rig = await ready();
    const application = await httpApplication();
    const answer = await meshRequest(rig, application.port, API, { headers: { 'l5d-client-id': 'somebody.else' } });
    expect(answer.status).toBe(200);
    expect(application.seen[0]!.headers['l5d-client-id']).toBe(API);
    expect(await rig.agent.metric('request_total', 'tls="true"', `client_id="${API}"`, 'direction="inbound"')).toBe(1);
    expect(await rig.agent.metric('response_latency_ms_count', `client_id="${API}"`)).toBe(1);
  });

  test('is TLS 1.3 with the certificate of the pod', async () => {
    const rig = await ready();
    const application = await httpApplication();
    const certificate = peerCertificate(rig.issuer, API);
    const socket = await secured(meshSocket(rig.sockets, rig.issuer, application.port, { certificate }));
    expect([socket.getProtocol(), socket.authorized, socket.getPeerX509Certificate()?.subjectAltName]).toEqual([
      'TLSv1.3',
      true,
      expect.stringContaining(`DNS:${WEB}`),
    ]);
  });

  test('a peer learns why its request failed, and that the connection ends', async () => {
    const rig = await ready();
    const answer = await meshRequest(rig, await freePort(), API);
    expect(answer.status).toBe(502);
    expect(answer.headers['l5d-proxy-error']).toMatch(/ECONNREFUSED/);
    expect(answer.headers['l5d-proxy-connection']).toBe('close');
  });

  test('without a client certificate has no identity', async () => {
    const rig = await ready();
    const application = await httpApplication();
    expect((await meshRequest(rig, application.port, null)).status).toBe(200);
    expect(application.seen[0]!.headers).not.toHaveProperty('l5d-client-id');
    expect(await rig.agent.metric('request_total', 'tls="true"', 'client_id=""')).toBe(1);
  });

  test('several records read at once all arrive', async () => {
    const rig = await ready();
    const application = await httpApplication();
    const certificate = peerCertificate(rig.issuer, API);
    const socket = await secured(meshSocket(rig.sockets, rig.issuer, application.port, { certificate }));
    // Three writes are three records; corked, they leave in one segment.
    socket.cork();
    socket.write('POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n');
    socket.write('abc');
    socket.write('def');
    socket.uncork();
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    expect(chunk.toString()).toMatch(/^HTTP\/1\.1 200 [\s\S]*POST \/a abcdef$/);
  });

  test.each<[string, (rig: Ready) => Parameters<typeof meshSocket>[3]]>([
    ['of another authority', () => ({ certificate: peerCertificate(new Issuer(), API) })],
    ['that has expired', (rig) => ({ certificate: peerCertificate(rig.issuer, API, 1_000, Date.now() - 3_600_000) })],
  ])('with a client certificate %s is refused, its twin is served', async (_name, options) => {
    const rig = await ready();
    const application = await httpApplication();
    const connect = () => meshSocket(rig.sockets, rig.issuer, application.port, options(rig));
    await expect(request(rig.sockets, application.port, { connect })).rejects.toThrow();
    expect(application.seen).toEqual([]);
    expect((await meshRequest(rig, application.port, API)).status).toBe(200);
  });

  test('for another name is not ours: it goes to the application as it is', async () => {
    const rig = await ready();
    const { key, cert } = peerCertificate(rig.issuer, API);
    const secure = tls.createServer({ key, cert }, (socket) => socket.end('from the application'));
    secure.listen(0, POD_ADDRESS);
    await once(secure, 'listening');
    const { port } = secure.address() as net.AddressInfo;
    const socket = meshSocket(rig.sockets, rig.issuer, port, { serverName: API });
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    expect(chunk.toString()).toBe('from the application');
    expect(await rig.agent.metric('tcp_open_total', 'peer="src"', 'tls="opaque"', `sni="${API}"`)).toBe(1);
    secure.close();
  });

  test('carries bytes that are no HTTP', async () => {
    const rig = await ready();
    const application = await tcpApplication(echo);
    const certificate = peerCertificate(rig.issuer, API);
    const client = new TcpClient(await secured(meshSocket(rig.sockets, rig.issuer, application.port, { certificate })));
    client.socket.write('*1\r\n$4\r\nPING\r\n');
    await until('the echo', () => client.received === '*1\r\n$4\r\nPING\r\n');
    client.socket.end();
    await until('the end', () => client.closed === '');
    expect(await rig.agent.metric('inbound_tcp_authz_allow_total', `client_id="${API}"`)).toBe(1);
  });
});

describe('opaque traffic', () => {
  test('half-closes pass in both directions, and bytes are counted', async () => {
    const rig = await ready();
    const application = await tcpApplication((socket) => {
      let text = '';
      socket.on('data', (chunk) => {
        text += chunk.toString();
      });
      socket.on('end', () => socket.end(`got ${text.length}`));
    });
    const client = TcpClient.connect(rig.sockets, application.port);
    client.socket.end('\0'.repeat(100_000));
    await until('the answer', () => client.received === 'got 100000');
    await until('the end', () => client.closed === '');
    const port = `target_port="${application.port}"`;
    await until(
      'the connection is settled',
      async () => (await rig.agent.metric('tcp_open_connections', port, 'src')) === 0,
    );
    expect(await rig.agent.metric('tcp_read_bytes_total', port, 'peer="src"')).toBe(100_000);
    expect(await rig.agent.metric('tcp_write_bytes_total', port, 'peer="dst"')).toBe(100_000);
    expect(await rig.agent.metric('tcp_close_total', port, 'peer="src"', 'errno=""')).toBe(1);
  });

  test('on an opaque port TLS is not touched, and a server may speak first', async () => {
    const rig = await ready();
    const application = await tcpApplication((socket) => socket.write('220 ready\r\n'));
    rig.agent.configure({
      ...rig.config,
      inbound: { ...rig.config.inbound, opaquePorts: [[application.port, application.port]] },
    });
    await rig.worker.whenLogged('configuration changed');
    const client = TcpClient.connect(rig.sockets, application.port);
    await until('the greeting', () => client.received === '220 ready\r\n');
    expect(await rig.agent.metric('tcp_open_total', 'no_tls_reason="port_skipped"')).toBe(1);
  });

  test('an application that is not there resets the client', async () => {
    const rig = await ready();
    const port = await freePort();
    const client = TcpClient.connect(rig.sockets, port);
    client.socket.write('\0 not HTTP at all');
    await until('the reset', () => client.closed === 'ECONNRESET');
    expect(await rig.agent.metric('tcp_close_total', `target_port="${port}"`, 'errno="ECONNREFUSED"')).toBe(1);
  });

  test('silence is opaque on a port in clear once the time for TLS is over', async () => {
    const rig = await ready({ detectTimeoutMs: 200 });
    const client = TcpClient.connect(rig.sockets, (await tcpApplication(echo)).port);
    await until('the connection is closed', () => client.closed !== null);
    expect(await rig.agent.metric('inbound_tcp_errors_total', 'error="tls detection timeout"')).toBe(1);
  });
});

describe('connections to the proxy port', () => {
  /** What a peer's proxy sends: header for `port`, then `bytes`. */
  function preface(port: number, protocol: 'http1' | null, name = ''): Buffer {
    const sessionProtocol = protocol === null ? undefined : { kind: { $case: protocol, value: {} } };
    const header = Header.encode({ port, name, sessionProtocol } as Header).finish();
    const length = Buffer.alloc(4);
    length.writeUInt32BE(header.length);
    return Buffer.concat([Buffer.from('transport.l5d.io/v1\r\n\r\n'), length, header]);
  }

  function dial(rig: Ready, options: Parameters<typeof meshSocket>[3] = {}) {
    const at = { host: POD_ADDRESS, port: rig.sockets.ports.inbound4 };
    return meshSocket(rig.sockets, rig.issuer, 0, { at, alpn: [TRANSPORT_ALPN], ...options });
  }

  test('carry HTTP to the port of the header', async () => {
    const rig = await ready();
    const application = await httpApplication();
    const socket = await secured(dial(rig, { certificate: peerCertificate(rig.issuer, API) }));
    expect(socket.alpnProtocol).toBe(TRANSPORT_ALPN);
    socket.write(preface(application.port, 'http1'));
    socket.write('GET /x HTTP/1.1\r\nhost: web\r\n\r\n');
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    expect(chunk.toString()).toMatch(/^HTTP\/1\.1 200 /);
    expect(application.seen[0]).toMatchObject({ url: '/x', headers: { 'l5d-client-id': API } });
    expect(await rig.agent.metric('inbound_tcp_transport_header_connections_total', 'session_protocol="http1"')).toBe(
      1,
    );
  });

  test('carry HTTP by IPv6, judged by IPv6 networks', async () => {
    const rig = await ready();
    const application = await httpApplication(undefined, '::1');
    const config = (defaultPolicy: DefaultInboundPolicy, clusterNetworks: string[]) => ({
      ...rig.config,
      pod: { ...rig.config.pod, ips: ['::1'] },
      inbound: { ...rig.config.inbound, proxyPort: rig.sockets.ports.inbound6, defaultPolicy, clusterNetworks },
    });
    const call = async (): Promise<string> => {
      const at = { host: '::1', port: rig.sockets.ports.inbound6 };
      const socket = await secured(dial(rig, { at, from: '::1', certificate: peerCertificate(rig.issuer, API) }));
      socket.write(
        Buffer.concat([preface(application.port, 'http1'), Buffer.from('GET / HTTP/1.1\r\nhost: a\r\n\r\n')]),
      );
      const [chunk] = (await once(socket, 'data')) as [Buffer];
      return chunk.toString().slice(0, 12);
    };
    const changes = () => rig.worker.lines.filter(({ message }) => message === 'configuration changed').length;
    rig.agent.configure(config('cluster-authenticated', ['10.0.0.0/8', '::1/128']));
    await until('the configuration applies', () => changes() === 1);
    expect(await call()).toBe('HTTP/1.1 200');
    rig.agent.configure(config('cluster-authenticated', ['0.0.0.0/0', 'fd00::/8']));
    await until('the configuration applies', () => changes() === 2);
    expect(await call()).toBe('HTTP/1.1 403');
  });

  test('carry bytes to the port of the header, also behind it in the same record', async () => {
    const rig = await ready();
    const application = await tcpApplication(echo);
    const client = new TcpClient(await secured(dial(rig, { certificate: peerCertificate(rig.issuer, API) })));
    client.socket.write(Buffer.concat([preface(application.port, null), Buffer.from('GET / HTTP/1.1\r\n\r\n')]));
    await until('the echo', () => client.received === 'GET / HTTP/1.1\r\n\r\n');
  });

  test.each<[string, (rig: Ready) => Promise<net.Socket>]>([
    ['in clear', async (rig) => net.connect(rig.sockets.ports.inbound4, POD_ADDRESS)],
    ['without a client certificate', async (rig) => dial(rig)],
    ['without the protocol', async (rig) => dial(rig, { certificate: peerCertificate(rig.issuer, API), alpn: ['h2'] })],
    [
      'for another name',
      async (rig) => dial(rig, { certificate: peerCertificate(rig.issuer, API), serverName: API, isTrusting: true }),
    ],
  ])('%s are refused', async (_name, connect) => {
    const rig = await ready();
    const application = await tcpApplication(echo);
    const client = new TcpClient(await connect(rig));
    client.socket.write(preface(application.port, null));
    client.socket.write('hello');
    await until('the connection is closed', () => client.closed !== null);
    expect([client.received, application.sockets.length]).toEqual(['', 0]);
    await until('the refusal is counted', async () => {
      return (await rig.agent.metric('inbound_tcp_errors_total', 'error="identity required"')) === 1;
    });
  });

  test.each<[string, Buffer]>([
    ['that is none', Buffer.from('GET / HTTP/1.1\r\nhost: a\r\n\r\n')],
    ['with port 0', preface(0, null)],
    ['with a port out of range', preface(70_000, null)],
    ['for a gateway', preface(80, null, 'web.other.svc.cluster.local')],
  ])('with a header %s are refused', async (_name, bytes) => {
    const rig = await ready();
    const client = new TcpClient(await secured(dial(rig, { certificate: peerCertificate(rig.issuer, API) })));
    client.socket.write(bytes);
    await until('the connection is closed', () => client.closed !== null);
    expect(client.received).toBe('');
  });
});

describe('connections that no redirection brought', () => {
  test('to a loopback address are refused: the worker would dial itself', async () => {
    const rig = await ready();
    const client = new TcpClient(net.connect(rig.sockets.ports.inbound4, '127.0.0.1'));
    client.socket.write('GET / HTTP/1.1\r\nhost: a\r\n\r\n');
    await until('the connection is closed', () => client.closed !== null);
    expect(await rig.agent.metric('heddle_worker_connections_refused_total', 'reason="loopback"')).toBe(1);
  });

  test("to an address that is not the pod's are refused", async () => {
    const rig = await ready();
    rig.agent.configure({ ...rig.config, pod: { ...rig.config.pod, ips: ['127.0.0.3'] } });
    await rig.worker.whenLogged('configuration changed');
    const application = await httpApplication();
    await expect(request(rig.sockets, application.port)).rejects.toThrow();
    expect(application.seen).toEqual([]);
  });
});

describe('default policies', () => {
  const INSIDE = '127.0.0.9';
  const OUTSIDE = '127.9.0.9';

  test.each<[DefaultInboundPolicy, number[]]>([
    // Meshed inside, plain inside, meshed outside, plain outside.
    ['all-unauthenticated', [200, 200, 200, 200]],
    ['audit', [200, 200, 200, 200]],
    ['all-authenticated', [200, 403, 200, 403]],
    ['cluster-unauthenticated', [200, 200, 403, 403]],
    ['cluster-authenticated', [200, 403, 403, 403]],
    ['deny', [403, 403, 403, 403]],
  ])('%s', async (defaultPolicy, statuses) => {
    const rig = await ready({ defaultPolicy });
    const application = await httpApplication();
    const { port } = application;
    const answers = [
      await meshRequest(rig, port, API, { from: INSIDE }),
      await request(rig.sockets, port, { from: INSIDE }),
      await meshRequest(rig, port, API, { from: OUTSIDE }),
      await request(rig.sockets, port, { from: OUTSIDE }),
    ];
    expect(answers.map(({ status }) => status)).toEqual(statuses);
    const allowed = statuses.filter((status) => status === 200).length;
    expect(application.seen.length).toBe(allowed);
    const count = async (name: string) => {
      const lines = (await rig.agent.scrape()).split('\n').filter((line) => line.startsWith(`${name}{`));
      return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
    };
    expect(await count('inbound_http_authz_allow_total')).toBe(allowed);
    expect(await count('inbound_http_authz_deny_total')).toBe(4 - allowed);
    expect(await count('request_total')).toBe(allowed);
    // What a policy refuses is no error of the proxy.
    expect(await count('inbound_http_errors_total')).toBe(0);
  });

  test.each<[DefaultInboundPolicy, boolean]>([
    ['all-unauthenticated', true],
    ['all-authenticated', false],
    ['deny', false],
  ])('%s for bytes in clear: %s', async (defaultPolicy, isAllowed) => {
    const rig = await ready({ defaultPolicy });
    const application = await tcpApplication(echo);
    const client = TcpClient.connect(rig.sockets, application.port);
    client.socket.write('\0\0\0\0hello\r\n\r\n\r\n\r\n');
    await until('an outcome', () => client.received !== '' || client.closed !== null);
    expect([client.received !== '', application.sockets.length]).toEqual([isAllowed, isAllowed ? 1 : 0]);
    const outcome = isAllowed ? 'allow' : 'deny';
    expect(await rig.agent.metric(`inbound_tcp_authz_${outcome}_total`)).toBe(1);
  });

  test('a port that requires identity refuses those without, whatever the default', async () => {
    const rig = await ready();
    const application = await httpApplication();
    const requireIdentityPorts: [number, number][] = [[application.port, application.port]];
    rig.agent.configure({ ...rig.config, inbound: { ...rig.config.inbound, requireIdentityPorts } });
    await rig.worker.whenLogged('configuration changed');
    expect((await request(rig.sockets, application.port)).status).toBe(403);
    expect((await meshRequest(rig, application.port, API)).status).toBe(200);
  });
});

describe('policies of the stream', () => {
  async function withPolicy(policy: Parameters<typeof server>[0]) {
    const rig = await ready({ defaultPolicy: 'deny' });
    const application = await httpApplication();
    rig.agent.setPolicy(application.port, server({ authorizations: [permit('0.0.0.0/0')], ...policy }));
    // The first request opens the watch; the default answers it.
    await request(rig.sockets, application.port, { path: '/open-the-watch' });
    await until(
      'the policy is there',
      async () =>
        (await rig.agent.scrape()).includes('srv_name="web"') ||
        !(await request(rig.sockets, application.port, { path: '/open-the-watch' })).headers.nothing,
    );
    application.seen.length = 0;
    return { ...rig, application };
  }

  test('judge the very first request of a port, whatever the default would permit', async () => {
    const rig = await ready({ defaultPolicy: 'all-unauthenticated' });
    const application = await httpApplication();
    rig.agent.setPolicy(application.port, server({ authorizations: [] }));
    expect((await request(rig.sockets, application.port)).status).toBe(403);
    expect(application.seen).toEqual([]);
  });

  test("permit by identity, each route under its own authorizations and the server's", async () => {
    const rig = await withPolicy({
      authorizations: [permit('0.0.0.0/0', [API])],
      routes: [route('/'), route('/health', { authorizations: [permit('127.0.0.9/32')] })],
    });
    const { port } = rig.application;
    expect((await meshRequest(rig, port, API)).status).toBe(200);
    expect((await meshRequest(rig, port, WEB)).status).toBe(403);
    expect((await request(rig.sockets, port)).status).toBe(403);
    expect((await request(rig.sockets, port, { path: '/health' })).status).toBe(200);
    expect((await request(rig.sockets, port, { path: '/health', from: '127.0.0.10' })).status).toBe(403);
    expect((await request(rig.sockets, port, { path: '/healthz' })).status).toBe(403);
    expect(await rig.agent.metric('inbound_http_authz_deny_total', 'route_name="health"', 'srv_name="web"')).toBe(1);
    expect(await rig.agent.metric('inbound_http_authz_allow_total', 'authz_name="permit"', 'route_name="health"')).toBe(
      1,
    );
  });

  test('a peer that is refused learns why, a stranger does not', async () => {
    const rig = await withPolicy({ authorizations: [permit('127.0.0.1/32')] });
    const peer = await meshRequest(rig, rig.application.port, API);
    expect([peer.status, peer.headers['l5d-proxy-error']]).toEqual([403, expect.stringContaining(API)]);
    expect(peer.headers).not.toHaveProperty('l5d-proxy-connection');
    const stranger = await request(rig.sockets, rig.application.port);
    expect([stranger.status, stranger.headers['l5d-proxy-error']]).toEqual([403, undefined]);
  });

  test('no route is 404', async () => {
    const rig = await withPolicy({ routes: [route('/api')] });
    expect((await request(rig.sockets, rig.application.port, { path: '/api/x' })).status).toBe(200);
    expect((await request(rig.sockets, rig.application.port, { path: '/other' })).status).toBe(404);
    expect(await rig.agent.metric('inbound_http_route_not_found_total', 'srv_name="web"')).toBeGreaterThan(0);
  });

  test('filters change, redirect and fail requests', async () => {
    const filtered = (prefix: string, kind: object) =>
      route(prefix, {
        rules: [{ matches: route(prefix).rules[0]!.matches, filters: [{ kind: kind as never }] }],
      });
    const value = (headers: [string, string][]) => ({
      headers: headers.map(([name, text]) => ({ name, value: Buffer.from(text) })),
    });
    const rig = await withPolicy({
      routes: [
        filtered('/set', {
          $case: 'requestHeaderModifier',
          value: { add: undefined, set: value([['x-policy', 'yes']]), remove: ['x-gone'] },
        }),
        filtered('/moved', {
          $case: 'redirect',
          value: { scheme: undefined, host: 'new.shop', path: undefined, port: 0, status: 302 },
        }),
        filtered('/broken', {
          $case: 'failureInjector',
          value: { status: 418, message: 'on purpose', ratio: undefined },
        }),
      ],
    });
    const { port } = rig.application;
    expect((await request(rig.sockets, port, { path: '/set', headers: { 'x-gone': '1' } })).status).toBe(200);
    expect(rig.application.seen[0]!.headers).toMatchObject({ 'x-policy': 'yes' });
    expect(rig.application.seen[0]!.headers).not.toHaveProperty('x-gone');
    const moved = await request(rig.sockets, port, { path: '/moved/a?b=c' });
    expect([moved.status, moved.headers.location]).toEqual([302, 'http://new.shop/moved/a?b=c']);
    expect((await request(rig.sockets, port, { path: '/broken' })).status).toBe(418);
    expect(rig.application.seen.length).toBe(1);
  });

  test('a rate limit refuses what is above it', async () => {
    const rig = await withPolicy({ requestsPerSecond: 5 });
    const answers = await Promise.all(Array.from({ length: 20 }, () => request(rig.sockets, rig.application.port)));
    const statuses = answers.map(({ status }) => status);
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(1);
    expect(statuses.filter((status) => status === 429).length).toBeGreaterThanOrEqual(10);
    expect(
      await rig.agent.metric('inbound_http_local_ratelimit_total', 'ratelimit_scope="total"', 'ratelimit_name="limit"'),
    ).toBeGreaterThanOrEqual(10);
  });

  test('that cannot be understood answer 500', async () => {
    const rig = await withPolicy({});
    rig.agent.setPolicy(rig.application.port, { ...server(), protocol: undefined });
    await until('the policy applies', async () => (await request(rig.sockets, rig.application.port)).status === 500);
    expect(rig.worker.logged(/nothing may pass/)?.level).toBe('error');
  });

  test('a change cuts connections that are not permitted any more, and lets others live', async () => {
    const rig = await ready({ defaultPolicy: 'all-unauthenticated' });
    const application = await tcpApplication(echo);
    const [near, far] = ['127.0.0.9', '127.0.0.10'].map((from) =>
      TcpClient.connect(rig.sockets, application.port, from),
    );
    for (const client of [near!, far!]) {
      client.socket.write('\0 bytes that are no HTTP');
      await until('the echo', () => client.received !== '');
    }
    rig.agent.setPolicy(application.port, server({ authorizations: [permit('127.0.0.9/32')] }));
    await until('the connection is cut', () => far!.closed !== null);
    near!.socket.write('still here');
    await until('the echo', () => near!.received.endsWith('still here'));
    expect(await rig.agent.metric('inbound_tcp_authz_terminate_total')).toBe(1);
  });

  test('a change cuts an upgraded connection of a client that nothing permits any more', async () => {
    const rig = await ready({ defaultPolicy: 'all-unauthenticated' });
    const application = await httpApplication();
    application.server.on('upgrade', (_request, socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n');
      socket.on('error', () => {});
      socket.pipe(socket);
    });
    const client = TcpClient.connect(rig.sockets, application.port);
    client.socket.write('GET /ws HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n');
    await until('the upgrade', () => client.received.startsWith('HTTP/1.1 101'));
    client.socket.write('ping');
    await until('the echo', () => client.received.endsWith('ping'));
    rig.agent.setPolicy(application.port, server({ authorizations: [permit('10.0.0.0/8')] }));
    await until('the connection is cut', () => client.closed !== null);
  });
});
