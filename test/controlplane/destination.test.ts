// The destination and policy service as a process: manifests on disk in, messages over mesh TLS out.

import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { DestinationDefinition, type Update } from '#api/gen/destination.ts';
import { InboundServerPoliciesDefinition, type Server } from '#api/gen/inbound.ts';
import { OutboundPoliciesDefinition } from '#api/gen/outbound.ts';
import { fromIpAddress, toTcpAddress } from '#controlplane/wire.ts';
import { PodStatusWriter } from '#kube/status.ts';
import { GrpcClient } from '#lib/grpc/client.ts';
import { type GrpcError, statusName } from '#lib/grpc/status.ts';
import { makeAuthority, makeLeaf, type TestCertificate } from '../support/certificates.ts';
import { StreamLog } from './support/client.ts';
import { ProcessUnderTest } from './support/process.ts';

const IDENTITY = 'heddle-destination.heddle.serviceaccount.identity.heddle.cluster.local';
const WORKLOAD = JSON.stringify({ ns: 'shop', pod: 'client' });
const { get, getProfile } = DestinationDefinition.methods;
const outbound = OutboundPoliciesDefinition.methods;
const inbound = InboundServerPoliciesDefinition.methods;

const SHOP = `
apiVersion: v1
kind: Namespace
metadata: { name: shop, annotations: { linkerd.io/inject: enabled } }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: web, namespace: shop }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec:
  clusterIP: 10.96.0.10
  selector: { app: web }
  ports: [{ port: 80, targetPort: http, name: http }]
`;
const webPod = (name: string, annotations = '{}') => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: shop, labels: { app: web }, annotations: ${annotations} }
spec:
  serviceAccountName: web
  containers: [{ name: app, ports: [{ containerPort: 8080, name: http }] }]
`;

let anchor: TestCertificate;
let leaf: TestCertificate;
let work: string;
let manifests: string;
let server: ProcessUnderTest;
let client: GrpcClient;
let policyClient: GrpcClient;
let admin: string;
let runner: PodStatusWriter;
const clients: GrpcClient[] = [];

beforeAll(() => {
  anchor = makeAuthority();
  leaf = makeLeaf(anchor, [`DNS:${IDENTITY}`]);
});

function write(file: string, text: string): void {
  const target = path.join(manifests, file);
  mkdirSync(path.dirname(target), { recursive: true });
  // As careful writers do it.
  writeFileSync(`${target}.tmp`, text);
  renameSync(`${target}.tmp`, target);
}

function writeCertificate({ certificatePem, privateKeyPem }: TestCertificate): void {
  writeFileSync(path.join(work, 'tls.crt'), certificatePem);
  writeFileSync(path.join(work, 'tls.key'), privateKeyPem, { mode: 0o600 });
}

const options = (...more: string[]) => [
  ...['--source', `dir:${manifests}`, '--destination-addr', '127.0.0.1:0', '--policy-addr', '127.0.0.1:0'],
  ...['--admin-addr', '127.0.0.1:0', '--tls-cert', path.join(work, 'tls.crt'), '--tls-key', path.join(work, 'tls.key')],
  ...['--reload-interval', '100ms', ...more],
];

interface Address {
  host: string;
  port: number;
}

async function start(...more: string[]): Promise<void> {
  server = new ProcessUnderTest('controlplane/destination/main.ts', options(...more));
  const serving = await server.logged('serving');
  client = connect(serving.destination as Address);
  policyClient = connect(serving.policy as Address);
  admin = `http://127.0.0.1:${(serving.admin as Address).port}`;
}

function connect({ host, port }: Address, anchors = () => anchor.certificatePem): GrpcClient {
  const made = new GrpcClient({
    address: `${host}:${port}`,
    tls: { serverIdentity: IDENTITY, trustAnchorsPem: anchors },
  });
  clients.push(made);
  return made;
}

function setUp(): void {
  work = mkdtempSync(path.join(os.tmpdir(), 'heddle-destination-'));
  manifests = path.join(work, 'manifests');
  mkdirSync(manifests);
  runner = new PodStatusWriter(manifests);
  writeCertificate(leaf);
}

async function tearDown(): Promise<void> {
  for (const made of clients.splice(0)) made.close();
  await server.stop();
  rmSync(work, { recursive: true, force: true });
}

const running = (name: string, ip: string) =>
  runner.write(
    { namespace: 'shop', name },
    {
      nodeName: 'node-1',
      status: { phase: 'Running', podIPs: [{ ip }], conditions: [{ type: 'Ready', status: 'True' }] },
    },
  );

const endpoints = (authority: string) =>
  StreamLog.open(client, DestinationDefinition, get, { scheme: '', path: authority, contextToken: '{"ns":"shop"}' });
const profile = (authority: string) =>
  StreamLog.open(client, DestinationDefinition, getProfile, { scheme: '', path: authority, contextToken: '' });
const watchOutbound = (ip: string, port: number) =>
  StreamLog.open(policyClient, OutboundPoliciesDefinition, outbound.watch, {
    sourceWorkload: WORKLOAD,
    target: { $case: 'addr', value: toTcpAddress(ip, port) },
  });
const watchInbound = (pod: string, port: number) =>
  StreamLog.open(policyClient, InboundServerPoliciesDefinition, inbound.watchPort, {
    workload: JSON.stringify({ ns: 'shop', pod }),
    port,
  });

/** The addresses that a stream's updates add up to, each with the identity to expect. */
function addUp(updates: readonly Update[]): Record<string, string | null> {
  const known: Record<string, string | null> = {};
  for (const { update } of updates) {
    if (update?.$case === 'add') {
      for (const { addr, tlsIdentity } of update.value.addrs) {
        const identity = tlsIdentity?.strategy?.$case === 'dnsLikeIdentity' ? tlsIdentity.strategy.value.name : null;
        known[`${fromIpAddress(addr?.ip)}:${addr?.port}`] = identity;
      }
    } else if (update?.$case === 'remove') {
      for (const { ip, port } of update.value.addrs) delete known[`${fromIpAddress(ip)}:${port}`];
    }
  }
  return known;
}

const WEB_IDENTITY = 'web.shop.serviceaccount.identity.heddle.cluster.local';
const WEB = 'web.shop.svc.cluster.local:80';

describe('what changes on disk is told to clients', () => {
  beforeEach(async () => {
    setUp();
    write('shop.yaml', SHOP);
    await start();
  });
  afterEach(tearDown);

  test('endpoints come with their pods’ status, change with annotations, leave with the pod', async () => {
    const stream = endpoints(WEB);
    write('a.yaml', webPod('a'));
    await running('a', '10.1.0.1');
    await stream.until((updates) => addUp(updates)['10.1.0.1:8080'] === WEB_IDENTITY);
    write('b.yaml', webPod('b', '{ linkerd.io/inject: disabled }'));
    await running('b', '10.1.0.2');
    await stream.until((updates) => addUp(updates)['10.1.0.2:8080'] === null);
    write('b.yaml', webPod('b'));
    await stream.until((updates) => addUp(updates)['10.1.0.2:8080'] === WEB_IDENTITY);
    await runner.remove({ namespace: 'shop', name: 'a' });
    await stream.until((updates) => !('10.1.0.1:8080' in addUp(updates)));
    expect(addUp(stream.messages)).toEqual({ '10.1.0.2:8080': WEB_IDENTITY });
    // A second stream hears what the first one adds up to.
    expect(addUp(await endpoints(WEB).until((updates) => updates.length > 0))).toEqual(addUp(stream.messages));
  });

  test('profiles and outbound policy follow the Service', async () => {
    const services = profile('10.96.0.10:80');
    const policies = watchOutbound('10.96.0.10', 80);
    await services.until((messages) => messages.at(-1)?.fullyQualifiedName === 'web.shop.svc.cluster.local');
    await policies.until((messages) => messages.at(-1)?.protocol?.kind?.$case === 'detect');
    write(
      'shop.yaml',
      SHOP.replace(
        'name: web, namespace: shop }\nspec',
        'name: web, namespace: shop, annotations: { config.linkerd.io/opaque-ports: "80" } }\nspec',
      ),
    );
    await services.until((messages) => messages.at(-1)?.opaqueProtocol === true);
    await policies.until((messages) => messages.at(-1)?.protocol?.kind?.$case === 'opaque');
    rmSync(path.join(manifests, 'shop.yaml'));
    expect(await policies.ended()).toBe('NotFound: No such service');
    await services.until((messages) => messages.at(-1)?.endpoint !== undefined);
  });

  test('inbound policy follows the annotations of pod and namespace', async () => {
    write('a.yaml', webPod('a'));
    await running('a', '10.1.0.1');
    const name = (servers: readonly Server[]) => servers.at(-1)?.labels.name;
    await expect
      .poll(
        () =>
          watchInbound('a', 8080)
            .until((messages) => messages.length > 0)
            .then(name, () => null),
        { timeout: 8_000 },
      )
      .toBe('all-unauthenticated');
    const stream = watchInbound('a', 8080);
    write(
      'shop.yaml',
      SHOP.replace('inject: enabled', 'inject: enabled, config.linkerd.io/default-inbound-policy: all-authenticated'),
    );
    await stream.until((servers) => name(servers) === 'all-authenticated');
    write('a.yaml', webPod('a', '{ config.linkerd.io/default-inbound-policy: deny }'));
    await stream.until((servers) => name(servers) === 'deny');
    expect(stream.messages.at(-1)!.authorizations).toEqual([]);
    rmSync(path.join(manifests, 'a.yaml'));
    expect(await stream.ended()).toBe('NotFound: unknown server');
  });

  test('a Deployment is scaled', async () => {
    const deployment = (replicas: number) => `
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: shop }
spec:
  replicas: ${replicas}
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { serviceAccountName: web, containers: [{ name: app, ports: [{ containerPort: 8080, name: http }] }] }
`;
    const { podsOfDeployment } = await import('#kube/deployment-pods.ts');
    const { parseManifest } = await import('#kube/manifest.ts');
    const pods = podsOfDeployment(parseManifest('x.yaml', deployment(2)).objects[0]!.object as never);
    write('web.yaml', deployment(2));
    await running(pods[0]!.metadata.name, '10.1.0.1');
    await running(pods[1]!.metadata.name, '10.1.0.2');
    const stream = endpoints(WEB);
    await stream.until((updates) => Object.keys(addUp(updates)).length === 2);
    const added = stream.messages.flatMap(({ update }) => (update?.$case === 'add' ? update.value.addrs : []));
    expect(added[0]!.metricLabels).toMatchObject({
      deployment: 'web',
      serviceaccount: 'web',
      control_plane_ns: 'heddle',
    });
    write('web.yaml', deployment(1));
    await stream.until((updates) => Object.keys(addUp(updates)).length === 1);
  });

  test('a bad manifest is named in the log and a metric, and everything else goes on', async () => {
    write('a.yaml', webPod('a'));
    await running('a', '10.1.0.1');
    const stream = endpoints(WEB);
    await stream.until((updates) => '10.1.0.1:8080' in addUp(updates));
    write('shop.yaml', SHOP.replace('port: 80,', 'port: 99999,'));
    const problem =
      'shop.yaml document 3, Service shop/web, spec.ports[0].port: read "99999": expected a port from 1 to 65535';
    expect(await server.logged(`manifest: ${problem}`)).toMatchObject({
      level: 'error',
      file: 'shop.yaml',
      document: 3,
      field: 'spec.ports[0].port',
    });
    write('junk.yaml', 'a: [');
    write('b.yaml', webPod('b'));
    await running('b', '10.1.0.2');
    await stream.until((updates) => '10.1.0.2:8080' in addUp(updates));
    // The last good version of the Service is the one that is served.
    expect(Object.keys(addUp(await endpoints(WEB).until((updates) => updates.length > 0)))).toHaveLength(2);
    expect(await (await fetch(`${admin}/metrics`)).text()).toContain('heddle_manifest_problems{severity="error"} 2');
    rmSync(path.join(manifests, 'junk.yaml'));
    write('shop.yaml', SHOP);
    await server.logged(`manifest: solved: ${problem}`);
  });

  test('two pods with one address are reported, and neither is guessed', async () => {
    write('a.yaml', webPod('a'));
    write('b.yaml', webPod('b'));
    await running('a', '10.1.0.1');
    await running('b', '10.1.0.1');
    await server.logged(
      'manifest: b.yaml document 1, Pod shop/b, status.podIPs: read "10.1.0.1": Pod shop/a has this address too',
    );
    expect(await profile('10.1.0.1:8080').ended()).toBe(
      'FailedPrecondition: address 10.1.0.1 belongs to several pods: shop/a, shop/b',
    );
  });
});

describe('requests that have no answer', () => {
  beforeAll(async () => {
    setUp();
    write(
      'shop.yaml',
      `${SHOP}---\n${webPod('a')}---
apiVersion: v1
kind: Service
metadata: { name: out, namespace: shop }
spec: { type: ExternalName, externalName: example.com }
`,
    );
    await running('a', '10.1.0.1');
    await start();
  });
  afterAll(tearDown);

  test.each([
    ['web.shop.svc.cluster.local:0', 'InvalidArgument'],
    ['web.shop.svc.cluster.local:65536', 'InvalidArgument'],
    ['not an authority', 'InvalidArgument'],
    ['10.96.0.10:80', 'InvalidArgument'],
    ['[fd00::1]:80', 'InvalidArgument'],
    ['web.shop.svc.other.domain', 'InvalidArgument'],
    ['example.com:80', 'InvalidArgument'],
    ['out.shop.svc.cluster.local', 'InvalidArgument'],
    ['absent.shop.svc.cluster.local', 'NotFound'],
  ])('Get %s is %s', async (authority, code) => expect((await endpoints(authority).ended()).split(':')[0]).toBe(code));

  test.each([
    ['web.shop.svc.cluster.local:99999', 'InvalidArgument'],
    ['example.com:80', 'InvalidArgument'],
    ['absent.shop.svc.cluster.local', 'NotFound'],
  ])('GetProfile %s is %s', async (authority, code) =>
    expect((await profile(authority).ended()).split(':')[0]).toBe(code),
  );

  test('a Service without endpoints is a silent stream, a port that it has not an empty profile', async () => {
    const silent = endpoints('web.shop.svc.cluster.local:81');
    const empty = await profile('web.shop.svc.cluster.local:81').until((messages) => messages.length > 0);
    expect(empty[0]).toMatchObject({ fullyQualifiedName: '', endpoint: undefined, retryBudget: undefined });
    expect(silent.end).toBeNull();
    silent.close();
  });

  const status = (call: Promise<unknown>) =>
    call.then(
      () => 'OK',
      (error: GrpcError) => statusName(error.status),
    );
  const addr = (ip: string, port: number) => ({ $case: 'addr' as const, value: toTcpAddress(ip, port) });
  const authority = (value: string) => ({ $case: 'authority' as const, value });

  test.each([
    [WORKLOAD, addr('10.96.0.10', 80), 'OK'],
    ['shop:client', addr('10.96.0.10', 80), 'OK'],
    [WORKLOAD, addr('10.96.0.10', 81), 'OK'],
    [WORKLOAD, addr('198.51.100.1', 443), 'OK'],
    [WORKLOAD, addr('10.1.0.1', 8080), 'NotFound'],
    [WORKLOAD, authority('web.shop.svc.cluster.local:80'), 'OK'],
    [WORKLOAD, authority('web.shop.svc'), 'OK'],
    [WORKLOAD, authority('web.shop'), 'NotFound'],
    [WORKLOAD, authority('example.com'), 'NotFound'],
    [WORKLOAD, addr('10.96.0.10', 0), 'InvalidArgument'],
    [WORKLOAD, addr('10.96.0.10', 70_000), 'InvalidArgument'],
    [WORKLOAD, { $case: 'addr' as const, value: { ip: undefined, port: 80 } }, 'InvalidArgument'],
    [WORKLOAD, undefined, 'InvalidArgument'],
    ['junk', addr('10.96.0.10', 80), 'InvalidArgument'],
    ['{"ns":"shop"}', addr('10.96.0.10', 80), 'InvalidArgument'],
  ])('OutboundPolicies.Get %s %j is %s', async (sourceWorkload, target, code) =>
    expect(await status(policyClient.call(OutboundPoliciesDefinition, outbound.get, { sourceWorkload, target }))).toBe(
      code,
    ),
  );

  test.each([
    ['{"ns":"shop","pod":"a"}', 8080, 'OK'],
    ['{"ns":"shop","pod":"absent"}', 8080, 'NotFound'],
    ['{"ns":"shop","external_workload":"w"}', 8080, 'NotFound'],
    ['{"ns":"shop","pod":"a"}', 0, 'InvalidArgument'],
    ['{"ns":"shop","pod":"a"}', 65_536, 'InvalidArgument'],
    ['', 8080, 'InvalidArgument'],
  ])('InboundServerPolicies.GetPort %s %i is %s', async (workload, port, code) =>
    expect(await status(policyClient.call(InboundServerPoliciesDefinition, inbound.getPort, { workload, port }))).toBe(
      code,
    ),
  );
});

describe('the process', () => {
  beforeEach(() => setUp());
  afterEach(tearDown);

  test('tells how it is: live, ready, counted', async () => {
    write('shop.yaml', SHOP);
    await start();
    expect(await (await fetch(`${admin}/live`)).text()).toBe('live\n');
    expect(await (await fetch(`${admin}/ready`)).text()).toBe('ready\n');
    const stream = endpoints(WEB);
    const metrics = async () => await (await fetch(`${admin}/metrics`)).text();
    await expect
      .poll(metrics)
      .toContain('endpoints_subscribers{namespace="shop",service="web",port="80",hostname=""} 1');
    stream.close();
    await expect.poll(metrics, { timeout: 8_000 }).not.toContain('endpoints_subscribers{');
    expect(await metrics()).toContain(
      'grpc_server_handled_total{grpc_service="io.linkerd.proxy.destination.Destination",grpc_method="Get",grpc_type="server_stream",grpc_code="Cancelled"} 1',
    );
  });

  test('serves a new certificate to new connections while old streams live', async () => {
    write('shop.yaml', `${SHOP}---\n${webPod('a')}`);
    await start();
    const stream = profile('10.96.0.10:80');
    await stream.until((messages) => messages.length === 1);
    const nextAnchor = makeAuthority('next');
    writeCertificate(makeLeaf(nextAnchor, [`DNS:${IDENTITY}`]));
    const { destination } = await server.logged('serving');
    const fresh = connect(destination as Address, () => nextAnchor.certificatePem);
    const open = () =>
      StreamLog.open(fresh, DestinationDefinition, getProfile, { scheme: '', path: WEB, contextToken: '' })
        .until((messages) => messages.length > 0)
        .then(
          () => 'served',
          () => 'refused',
        );
    await expect.poll(open, { timeout: 15_000 }).toBe('served');
    write('shop.yaml', SHOP.replace('name: http }]', 'name: http, appProtocol: linkerd.io/opaque }]'));
    await stream.until((messages) => messages.at(-1)?.opaqueProtocol === true);
    expect(stream.end).toBeNull();
  }, 30_000);

  test('ends its streams and itself on SIGTERM', async () => {
    write('shop.yaml', SHOP);
    await start();
    const stream = profile(WEB);
    await stream.until((messages) => messages.length === 1);
    server.signal('SIGTERM');
    expect(await stream.ended()).toBe('Unavailable: the server is shutting down');
    expect(await server.ended()).toEqual({ code: 0, signal: null });
  });

  test('waits for a certificate, and is not ready until then', async () => {
    write('shop.yaml', SHOP);
    rmSync(path.join(work, 'tls.crt'));
    server = new ProcessUnderTest('controlplane/destination/main.ts', options());
    await server.logged('files cannot be read');
    writeCertificate(leaf);
    expect(await server.logged('serving')).toHaveProperty('policy.port');
  });

  test('says why it does not start', async () => {
    await start();
    const { destination } = await server.logged('serving');
    const { port } = destination as Address;
    const second = new ProcessUnderTest(
      'controlplane/destination/main.ts',
      options('--destination-addr', `127.0.0.1:${port}`),
    );
    expect(await second.ended()).toEqual({ code: 1, signal: null });
    expect(second.text.join('\n')).toContain(`listen on "127.0.0.1:${port}"`);
    const third = new ProcessUnderTest('controlplane/destination/main.ts', [
      '--source',
      'dir:/does/not/exist',
      '--log-level',
      'x',
    ]);
    expect(await third.ended()).toEqual({ code: 1, signal: null });
    expect(third.text.join('\n')).toContain(
      '--log-level: read the value "x": expected one of error, warn, info, debug',
    );
  });
});
