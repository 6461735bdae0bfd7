// The identity service as a process of its own on loopback, its answers read by openssl and by Node's TLS.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import tls from 'node:tls';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { type CertifyResponse, IdentityDefinition } from '#api/gen/identity.ts';
import { identityName, POD_UID_METADATA } from '#api/names.ts';
import { toPem } from '#controlplane/identity/authority.ts';
import { createCertifiedIdentity } from '#controlplane/identity/certify-client.ts';
import { createCertificateRequest } from '#controlplane/identity/csr.ts';
import { makeKey } from '#controlplane/identity/testing.ts';
import { PodStatusWriter } from '#kube/status.ts';
import { systemClock } from '#lib/clock.ts';
import { GrpcClient } from '#lib/grpc/client.ts';
import { Status } from '#lib/grpc/status.ts';
import { silentLog } from '#lib/log.ts';

const root = path.resolve(import.meta.dirname, '../..');
const directory = mkdtempSync(path.join(tmpdir(), 'heddle-identity-test-'));
const at = (...parts: string[]): string => path.join(directory, ...parts);
const SERVER = 'heddle-identity.heddle.serviceaccount.identity.heddle.cluster.local';
const NGINX = 'nginx.web.serviceaccount.identity.heddle.cluster.local';
const POD_UID = '11111111-1111-4111-8111-111111111111';
const workload = makeKey();

let server: ChildProcess;
let lines: Record<string, unknown>[] = [];
let grpcPort: number;
let adminPort: number;
let client: GrpcClient;

function heddle(...args: string[]): string {
  return execFileSync(path.join(root, 'bin/heddle'), args, { encoding: 'utf8' }).trim();
}

function token(...args: string[]): string {
  return heddle('identity', 'issue-token', '--key', at('tokens/token.key'), ...args);
}

function agentToken(node: string): string {
  return token('--namespace', 'heddle', '--service-account', 'heddle-agent', '--node', node);
}

function newAuthority(name: string): void {
  heddle('identity', 'create-anchor', '--out', at(name, 'anchor'));
  heddle('identity', 'create-issuer', '--anchor', at(name, 'anchor'), '--out', at(name, 'issuer'));
}

/** Puts authority `name` to use, with the anchors of all of `trusted`. */
function install(name: string, trusted: string[]): void {
  mkdirSync(at('issuer'), { recursive: true });
  writeFileSync(at('anchors.pem'), trusted.map((one) => readFileSync(at(one, 'anchor/ca.crt'), 'utf8')).join(''));
  copyFileSync(at(name, 'issuer/tls.crt'), at('issuer/tls.crt'));
  copyFileSync(at(name, 'issuer/tls.key'), at('issuer/tls.key'));
}

function makeClient(anchors = () => readFileSync(at('anchors.pem'), 'utf8')): GrpcClient {
  return new GrpcClient({
    address: `127.0.0.1:${grpcPort}`,
    tls: { serverIdentity: SERVER, trustAnchorsPem: anchors },
  });
}

async function certify(options: {
  token: string;
  podUid?: string;
  identity?: string;
  via?: GrpcClient;
}): Promise<CertifyResponse> {
  const identity = options.identity ?? NGINX;
  return await (options.via ?? client).call(
    IdentityDefinition,
    IdentityDefinition.methods.certify,
    {
      identity,
      token: Buffer.from(options.token),
      certificateSigningRequest: createCertificateRequest(identity, workload.privateKey),
    },
    { timeoutMs: 5000, ...(options.podUid ? { metadata: { [POD_UID_METADATA]: options.podUid } } : {}) },
  );
}

async function get(route: string): Promise<{ status: number; text: string }> {
  const response = await fetch(`http://127.0.0.1:${adminPort}${route}`);
  return { status: response.status, text: await response.text() };
}

beforeAll(async () => {
  newAuthority('one');
  heddle('identity', 'create-token-key', '--out', at('tokens'));
  install('one', ['one']);
  mkdirSync(at('manifests'));
  const pod = (name: string, extra: string): string =>
    `---\napiVersion: v1\nkind: Pod\nmetadata: {name: ${name}, namespace: web}\n` +
    `spec: {serviceAccountName: nginx, ${extra}containers: [{name: c}]}\n`;
  writeFileSync(
    at('manifests/pods.yaml'),
    pod('here', 'nodeName: n1, ') + pod('host', 'nodeName: n1, hostNetwork: true, '),
  );
  const status = new PodStatusWriter(at('manifests'));
  await status.write(
    { namespace: 'web', name: 'here' },
    { uid: POD_UID, nodeName: 'n1', status: { phase: 'Running' } },
  );
  server = spawn(
    path.join(root, 'node_modules/.bin/node'),
    [
      '--disable-warning=ExperimentalWarning',
      path.join(root, 'controlplane/identity/main.ts'),
      ...['--identity-addr', '127.0.0.1:0', '--admin-addr', '127.0.0.1:0', '--source', `dir:${at('manifests')}`],
      ...['--issuer-dir', at('issuer'), '--trust-anchors', at('anchors.pem'), '--token-keys', at('tokens/token.pub')],
      ...['--reload-interval', '100ms'],
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  createInterface({ input: server.stderr! }).on('line', (line) => lines.push(JSON.parse(line)));
  const serving = await vi.waitFor(
    () => {
      const line = lines.find(({ message }) => message === 'serving');
      expect(line).toBeDefined();
      return line as unknown as Record<'grpc' | 'admin', { port: number }>;
    },
    { timeout: 20_000, interval: 50 },
  );
  grpcPort = serving.grpc.port;
  adminPort = serving.admin.port;
  client = makeClient();
}, 60_000);

afterAll(() => {
  client?.close();
  server?.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

describe('the identity service', () => {
  test('is live, ready, and counts', async () => {
    expect(await get('/live')).toEqual({ status: 200, text: 'live\n' });
    expect(await get('/ready')).toEqual({ status: 200, text: 'ready\n' });
    expect((await get('/metrics')).text).toMatch(/^issuer_cert_ttl_seconds 3\d{7}/m);
    expect((await get('/debug')).status).toBe(404);
  });

  test('serves with a certificate of its own identity over TLS 1.3 only, with or without ALPN', async () => {
    for (const protocols of [['h2'], []]) {
      const socket = tls.connect({
        port: grpcPort,
        host: '127.0.0.1',
        servername: SERVER,
        ca: readFileSync(at('anchors.pem')),
        ALPNProtocols: protocols,
      });
      await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
      expect(socket.authorized).toBe(true);
      expect(socket.getProtocol()).toBe('TLSv1.3');
      socket.destroy();
    }
    const hello = execFileSync(
      'sh',
      [
        '-c',
        `openssl s_client -connect 127.0.0.1:${grpcPort} -CAfile ${at('anchors.pem')} -tls1_2 </dev/null 2>&1 || true`,
      ],
      { encoding: 'utf8' },
    );
    expect(hello).toMatch(/alert protocol version/);
  });

  test('issues to a workload with its own token what openssl verifies', async () => {
    const response = await certify({ token: token('--namespace', 'web', '--service-account', 'nginx') });
    writeFileSync(at('leaf.pem'), toPem(response.leafCertificate));
    writeFileSync(at('chain.pem'), response.intermediateCertificates.map(toPem).join(''));
    const verify = ['verify', '-x509_strict', '-purpose', 'sslclient', '-CAfile', at('anchors.pem')];
    const result = execFileSync('openssl', [...verify, '-untrusted', at('chain.pem'), at('leaf.pem')], {
      encoding: 'utf8',
    });
    expect(result).toContain(': OK');
    const lifeMs = Number(response.validUntil!.seconds) * 1000 - Date.now();
    expect(lifeMs).toBeGreaterThan(24 * 3600_000);
    expect(lifeMs).toBeLessThanOrEqual(24 * 3600_000 + 20_000);
  });

  test('issues to the agent of the node what its pod may have, and writes it down', async () => {
    lines = lines.filter(({ event }) => event !== 'IssuedLeafCertificate');
    const response = await certify({ token: agentToken('n1'), podUid: POD_UID });
    expect(new X509Certificate(response.leafCertificate).subjectAltName).toContain(`DNS:${NGINX}`);
    await vi.waitFor(() => expect(lines.some(({ event }) => event === 'IssuedLeafCertificate')).toBe(true));
    expect(lines.filter(({ event }) => event === 'IssuedLeafCertificate')).toEqual([
      expect.objectContaining({
        way: 'node',
        node: 'n1',
        pod: 'web/here',
        podUid: POD_UID,
        caller: 'heddle/heddle-agent',
      }),
    ]);
  });

  test.each([
    ['the agent of another node', () => ({ token: agentToken('n2'), podUid: POD_UID }), Status.permissionDenied],
    [
      'a workload that names a pod',
      () => ({ token: token('--namespace', 'web', '--service-account', 'nginx', '--node', 'n1'), podUid: POD_UID }),
      Status.permissionDenied,
    ],
    ['the agent without a pod', () => ({ token: agentToken('n1') }), Status.failedPrecondition],
    ['the agent for a pod that is not there', () => ({ token: agentToken('n1'), podUid: 'none' }), Status.notFound],
    [
      'a token for another audience',
      () => ({ token: token('--namespace', 'web', '--service-account', 'nginx', '--audience', 'api') }),
      Status.failedPrecondition,
    ],
    ['no token at all', () => ({ token: 'junk' }), Status.invalidArgument],
    [
      'a pod whose token outlived it',
      () => ({
        token: token('--namespace', 'web', '--service-account', 'nginx', '--pod', 'gone', '--pod-uid', 'gone'),
      }),
      Status.failedPrecondition,
    ],
  ])('refuses %s', async (_what, make, status) => {
    await expect(certify(make())).rejects.toMatchObject({ status });
  });

  test('is trusted under its anchor only', async () => {
    newAuthority('foreign');
    const stranger = makeClient(() => readFileSync(at('foreign/anchor/ca.crt'), 'utf8'));
    const mine = token('--namespace', 'web', '--service-account', 'nginx');
    await expect(certify({ token: mine, via: stranger })).rejects.toMatchObject({ status: Status.unavailable });
    stranger.close();
    await expect(certify({ token: mine })).resolves.toBeDefined();
  });

  test('exchanges issuer and anchors without losing a connection', async () => {
    newAuthority('two');
    const mine = token('--namespace', 'web', '--service-account', 'nginx');
    const issuerOf = async (): Promise<string> => {
      const { leafCertificate } = await certify({ token: mine });
      const leaf = new X509Certificate(leafCertificate);
      return ['one', 'two'].find((name) =>
        leaf.verify(new X509Certificate(readFileSync(at(name, 'issuer/tls.crt'))).publicKey),
      )!;
    };
    expect(await issuerOf()).toBe('one');
    install('one', ['one', 'two']);
    install('two', ['one', 'two']);
    await vi.waitFor(async () => expect(await issuerOf()).toBe('two'), { timeout: 10_000, interval: 50 });
    install('two', ['two']);
    await vi.waitFor(() =>
      expect(lines.some(({ message, anchors }) => message === 'issuer updated' && anchors === 1)).toBe(true),
    );
    const next = makeClient();
    await expect(certify({ token: mine, via: next })).resolves.toBeDefined();
    next.close();
  });

  test('gives a control-plane process the certificate that it serves with', async () => {
    const self = {
      serviceAccount: 'heddle-destination',
      namespace: 'heddle',
      controlPlaneNamespace: 'heddle',
      trustDomain: 'cluster.local',
    };
    writeFileSync(at('destination.token'), token('--namespace', 'heddle', '--service-account', 'heddle-destination'));
    const anchors = readFileSync(at('anchors.pem'), 'utf8');
    using certificate = createCertifiedIdentity({
      address: `127.0.0.1:${grpcPort}`,
      serverIdentity: SERVER,
      trustAnchorsPem: () => anchors,
      tokenPath: at('destination.token'),
      self,
      clock: systemClock,
      log: silentLog,
    });
    await certificate.renew();
    const { certificatePem, privateKeyPem } = certificate.current!;
    const listener = tls.createServer({ cert: certificatePem, key: privateKeyPem });
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    const { port } = listener.address() as { port: number };
    const socket = tls.connect({ port, host: '127.0.0.1', ca: anchors, servername: identityName(self) });
    await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
    expect(socket.authorized).toBe(true);
    socket.destroy();
    listener.close();
  });

  test('ends on SIGTERM with status 0', async () => {
    const ended = new Promise((resolve) => server.once('exit', (code) => resolve(code)));
    server.kill('SIGTERM');
    expect(await ended).toBe(0);
  });
});
