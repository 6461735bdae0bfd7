// Who may speak to whom: the default policies, peers with certificates that must not be trusted, and certificates and
// trust anchors that change while the load goes on.

import { execFileSync } from 'node:child_process';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { DEFAULT_INBOUND_POLICIES } from '#api/worker-config.ts';
import { makeAuthority, makeExpiredLeaf, makeLeaf, type TestCertificate } from '../support/certificates.ts';
import { total } from './support/exposition.ts';
import { MeshLab, type PodProgram } from './support/mesh-lab.ts';
import type { MeshPod } from './support/mesh-node.ts';
import type { RogueAnswer, RogueCommand, RogueDial, RogueSeen } from './support/rogue-program.ts';
import { curl, metrics, PATIENT, PATIENT_POD, RunningLoad, urlOf } from './support/scenario.ts';
import type { WebCommand } from './support/web-program.ts';

const HTTP = 8080;
const TCP = 6379;
const MESH = 4143;
const LEAF_LIFETIME = '8s';

const identityOf = (serviceAccount: string) => `${serviceAccount}.meshed.serviceaccount.identity.heddle.cluster.local`;
const namesOf = (serviceAccount: string) => [
  `DNS:${identityOf(serviceAccount)}`,
  `URI:spiffe://cluster.local/ns/meshed/sa/${serviceAccount}`,
];

let lab: MeshLab;
let client: MeshPod;
let server: MeshPod;
let plain: MeshPod;
let keys: string;

async function serve(pod: MeshPod): Promise<void> {
  const web = await lab.program<WebCommand>(pod, 'web-program.ts');
  await web.call({ op: 'http', port: HTTP });
  await web.call({ op: 'tcp', port: TCP });
}

beforeAll(async () => {
  const fast = ['--reload-interval', '250ms'];
  lab = await MeshLab.open('mid', {
    arguments: { identity: [...fast, '--leaf-lifetime', LEAF_LIFETIME], destination: fast },
  });
  keys = (await lab.node.paths()).keys;
  await lab.node.addNamespace('meshed', { 'linkerd.io/inject': 'enabled' });
  await lab.node.addNamespace('plain');
  plain = await lab.node.addPod('plain', 'client');
  client = await lab.node.addPod('meshed', 'client', { serviceAccount: 'alice', annotations: PATIENT_POD });
  server = await lab.node.addPod('meshed', 'server', {
    serviceAccount: 'server',
    annotations: PATIENT_POD,
    labels: { app: 'server' },
    ports: [HTTP, TCP],
  });
  await serve(server);
});

afterAll(() => lab?.close());

/** One message to an echo server and back, with nothing but the shell; what came back. */
async function echo(from: MeshPod, host: string, text: string): Promise<string> {
  const script = `exec 3<>/dev/tcp/${host}/${TCP} && printf '%s' '${text}' >&3 && head --bytes=${text.length} <&3`;
  return (await lab.programs.run(from.netns, ['timeout', '15', 'bash', '-c', script])).stdout;
}

describe('a default inbound policy', () => {
  /** Whether a client with an identity is let in, and one without. */
  const expected: Record<string, [meshed: boolean, plain: boolean]> = {
    'all-unauthenticated': [true, true],
    'all-authenticated': [true, false],
    'cluster-unauthenticated': [true, true],
    'cluster-authenticated': [true, false],
    deny: [false, false],
    audit: [true, true],
  };

  test.each(DEFAULT_INBOUND_POLICIES)('%s, per request and per connection', async (policy) => {
    const pod = await lab.node.addPod('meshed', policy, {
      annotations: { ...PATIENT_POD, 'config.linkerd.io/default-inbound-policy': policy },
      ports: [HTTP, TCP],
    });
    await serve(pod);
    const [meshed, unmeshed] = expected[policy]!;
    for (const host of [pod.ipv4, pod.ipv6]) {
      for (const [from, isAllowed] of [
        [client, meshed],
        [plain, unmeshed],
      ] as const) {
        const { status, body } = await curl(lab, from, urlOf(host, HTTP), ['--data', 'hello']);
        expect({ from: from.netns, status, body }).toEqual({
          from: from.netns,
          status: isAllowed ? 200 : 403,
          body: isAllowed ? 'hello' : '',
        });
        expect(await echo(from, host, 'opaque')).toBe(isAllowed ? 'opaque' : '');
      }
    }
    // Two families; each refusal is counted once, where it was made.
    const refusals = 2 * [meshed, unmeshed].filter((isAllowed) => !isAllowed).length;
    const families = await metrics(lab);
    const count = (name: string) => total(families, name, { pod: policy });
    expect(count('inbound_http_authz_deny_total')).toBe(refusals);
    expect(count('inbound_tcp_authz_deny_total')).toBe(refusals);
    expect(count('inbound_http_authz_allow_total')).toBe(4 - refusals);
  });
});

/** The mesh's issuer as a certificate authority of openssl. */
function issuer(): TestCertificate {
  return {
    certificatePem: readFileSync(path.join(keys, 'issuer/tls.crt'), 'utf8'),
    privateKeyPem: readFileSync(path.join(keys, 'issuer/tls.key'), 'utf8'),
  };
}

/** Peers below an intermediate show it too. */
function withChain(leaf: TestCertificate, authority: TestCertificate): TestCertificate {
  return { ...leaf, certificatePem: leaf.certificatePem + authority.certificatePem };
}

describe('a peer that must not be trusted', () => {
  const SECRET = 'what-the-rogue-must-not-see';
  let rogue: PodProgram<RogueCommand>;
  let victim: MeshPod;
  let rogueServer: PodProgram<RogueCommand>;
  let stranger: TestCertificate;

  beforeAll(async () => {
    stranger = makeAuthority('a stranger');
    rogue = await lab.program<RogueCommand>(plain, 'rogue-program.ts');
    // The control plane takes this pod for a meshed one; in the place of its proxy the rogue listens.
    victim = await lab.node.addPod('meshed', 'victim', { serviceAccount: 'bob', ports: [TCP], joins: false });
    rogueServer = await lab.program<RogueCommand>(victim, 'rogue-program.ts');
    await rogueServer.call({ op: 'serve', port: MESH });
    const authentication = {
      apiVersion: 'policy.linkerd.io/v1alpha1',
      kind: 'MeshTLSAuthentication',
      metadata: { namespace: 'meshed', name: 'alice' },
      spec: { identities: [identityOf('alice')] },
    };
    const serverOf = (name: string, port: number, proxyProtocol: string) => ({
      apiVersion: 'policy.linkerd.io/v1beta3',
      kind: 'Server',
      metadata: { namespace: 'meshed', name },
      spec: { podSelector: { matchLabels: { app: 'server' } }, port, proxyProtocol },
    });
    const allow = (name: string) => ({
      apiVersion: 'policy.linkerd.io/v1alpha1',
      kind: 'AuthorizationPolicy',
      metadata: { namespace: 'meshed', name: `${name}-for-alice` },
      spec: {
        targetRef: { group: 'policy.linkerd.io', kind: 'Server', name },
        requiredAuthenticationRefs: [{ group: 'policy.linkerd.io', kind: 'MeshTLSAuthentication', name: 'alice' }],
      },
    });
    const items = [authentication, serverOf('http', HTTP, 'HTTP/1'), serverOf('tcp', TCP, 'opaque')];
    await lab.node.apply('only-alice', {
      apiVersion: 'v1',
      kind: 'List',
      items: [...items, allow('http'), allow('tcp')],
    });
    await vi.waitFor(async () => {
      expect((await curl(lab, plain, urlOf(server.ipv4, HTTP))).status).toBe(403);
      expect(await echo(plain, server.ipv4, 'in?')).toBe('');
    }, PATIENT);
  });

  afterAll(() => lab.node.withdraw('only-alice'));

  const dial = (certificate: TestCertificate | null, options: Partial<RogueDial> = {}): Promise<RogueAnswer> => {
    const { protocol = 'http' } = options;
    const target = protocol === 'http' ? HTTP : TCP;
    const whom = { host: server.ipv4, port: MESH, serverName: identityOf('server') };
    return rogue.call({ op: 'dial', dial: { ...whom, certificate, protocol, target, payload: SECRET, ...options } });
  };

  const clients: [what: string, make: () => TestCertificate | null, http: RegExp, tcp: string][] = [
    [
      'the control: the identity that is allowed',
      () => makeLeaf(issuer(), namesOf('alice')),
      /^HTTP\/1.1 200 /,
      SECRET,
    ],
    ['another identity', () => makeLeaf(issuer(), namesOf('bob')), /^HTTP\/1.1 403 /, ''],
    ['no certificate', () => null, /^$/, ''],
    ['an expired certificate', () => makeExpiredLeaf(issuer(), namesOf('alice')), /^$/, ''],
    ['a certificate of another anchor', () => makeLeaf(stranger, namesOf('alice')), /^$/, ''],
  ];

  test.each(clients)('as a client with %s', async (_what, make, http, tcp) => {
    const leaf = make();
    const chain = leaf?.certificatePem.includes('stranger') ? stranger : issuer();
    const certificate = leaf && withChain(leaf, chain);
    for (const host of [server.ipv4, server.ipv6]) {
      const request = await dial(certificate, { host });
      expect(request.answer).toMatch(http);
      expect(request.answer.includes(SECRET)).toBe(tcp !== '');
      expect((await dial(certificate, { host, protocol: 'tcp' })).answer).toBe(tcp);
    }
  });

  test('as a client that asks for another server', async () => {
    const certificate = withChain(makeLeaf(issuer(), namesOf('alice')), issuer());
    expect((await dial(certificate)).answer).toMatch(/^HTTP\/1.1 200 /);
    expect((await dial(certificate, { serverName: identityOf('bob') })).answer).toBe('');
  });

  const servers: [what: string, make: () => TestCertificate, isTrusted: boolean][] = [
    ['the control: the identity that is expected', () => makeLeaf(issuer(), namesOf('bob')), true],
    ['another identity', () => makeLeaf(issuer(), namesOf('mallory')), false],
    ['an expired certificate', () => makeExpiredLeaf(issuer(), namesOf('bob')), false],
    ['a certificate of another anchor', () => makeLeaf(stranger, namesOf('bob')), false],
  ];

  test.each(servers)('as a server with %s', async (what, make, isTrusted) => {
    const leaf = make();
    const chain = what.includes('another anchor') ? stranger : issuer();
    await rogueServer.call({ op: 'show', certificate: withChain(leaf, chain) });
    const ask = () => echo(client, victim.ipv4, SECRET);
    if (isTrusted) await expect.poll(ask, PATIENT).toBe(SECRET);
    else expect(await ask()).toBe('');
    const seen = await rogueServer.call<RogueSeen>({ op: 'seen' });
    // It was reached each time, so that silence is refusal.
    expect(seen.handshakes + seen.errors.length).toBeGreaterThan(0);
    expect(seen.received.includes(SECRET)).toBe(isTrusted);
  });
});

describe('under load', () => {
  const load = (what: string) => RunningLoad.start(lab, what, { client, server, ports: { http: HTTP, tcp: TCP } });

  /** Renewals of the certificates of client and server so far. */
  async function renewals(): Promise<number[]> {
    const families = await metrics(lab);
    const of = (pod: string) => total(families, 'control_identity_cert_refreshes_total', { pod, result: 'ok' });
    return [of('client'), of('server')];
  }

  /** Every pod has another certificate than now, so many times. */
  async function renewed(times: number): Promise<void> {
    const before = await renewals();
    const least = async () => Math.min(...(await renewals()).map((count, index) => count - before[index]!));
    await expect.poll(least, PATIENT).toBeGreaterThanOrEqual(times);
  }

  async function expectNothingLost(running: RunningLoad): Promise<void> {
    const report = await running.stop();
    expect(report.failures).toEqual([]);
    // Those that stay open were opened once.
    const { connections, onNewConnections, keptConnections } = report;
    expect(connections.http + connections.tcp).toBe(onNewConnections + keptConnections);
  }

  test('certificates with lifetimes of seconds are renewed with no connection lost', async () => {
    const running = await load(`certificates of ${LEAF_LIFETIME} renewed twice`);
    await renewed(2);
    await expectNothingLost(running);
  });

  test('the trust anchor changes from old to both to new with no connection lost', async () => {
    const heddle = (...args: string[]) => execFileSync(path.resolve('bin/heddle'), ['identity', ...args]);
    const at = (...parts: string[]) => path.join(keys, ...parts);
    const anchors = (...files: string[]) =>
      writeFileSync(at('anchors.pem'), files.map((file) => readFileSync(file, 'utf8')).join(''));
    heddle('create-anchor', '--out', at('anchor-2'));
    heddle('create-issuer', '--anchor', at('anchor-2'), '--out', at('issuer-2'));
    const rogue = await lab.program<RogueCommand>(plain, 'rogue-program.ts');
    const shown = async (certificate: TestCertificate): Promise<string> => {
      const whom = { host: server.ipv4, port: MESH, serverName: identityOf('server'), target: HTTP };
      const dial: RogueDial = { ...whom, certificate, protocol: 'http', payload: 'rotated' };
      return (await rogue.call<RogueAnswer>({ op: 'dial', dial })).answer.slice(0, 13);
    };
    const old = withChain(makeLeaf(issuer(), namesOf('alice')), issuer());
    const changes = async () =>
      (await lab.node.logged()).filter((line) => line.includes('trust anchors changed')).length;

    const running = await load('trust anchor rotated');
    const before = await changes();
    expect(await shown(old)).toBe('HTTP/1.1 200 ');

    anchors(at('anchor/ca.crt'), at('anchor-2/ca.crt'));
    await expect.poll(changes, PATIENT).toBe(before + 1);
    for (const file of ['tls.crt', 'tls.key']) copyFileSync(at('issuer-2', file), at('issuer', file));
    const fresh = () => withChain(makeLeaf(issuer(), namesOf('alice')), issuer());
    const isReloaded = async () => (await lab.node.logged()).some((line) => line.includes('issuer updated'));
    await expect.poll(isReloaded, PATIENT).toBe(true);
    // Once for a certificate that may have been asked for before.
    await renewed(2);
    expect(await shown(old)).toBe('HTTP/1.1 200 ');
    expect(await shown(fresh())).toBe('HTTP/1.1 200 ');

    anchors(at('anchor-2/ca.crt'));
    await expect.poll(changes, PATIENT).toBe(before + 2);
    await expect.poll(() => shown(old), PATIENT).toBe('');
    expect(await shown(fresh())).toBe('HTTP/1.1 200 ');
    await renewed(1);
    await running.answered();
    await expectNothingLost(running);

    // The control plane is trusted under the new anchor as well: a pod that comes now is served.
    const late = await lab.node.addPod('meshed', 'late', { serviceAccount: 'alice' });
    expect(await curl(lab, late, urlOf(server.ipv4, HTTP))).toMatchObject({ exit: 0, status: 200 });
  });
});
