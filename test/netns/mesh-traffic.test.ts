// What pods say to each other, seen from the wire: nothing in clear between meshed pods, and everything untouched that
// is not the mesh's business. Real programs, a real kernel, the mesh as it runs on a node.

import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Capture, type Captured } from './support/capture.ts';
import { MeshLab, type PodProgram } from './support/mesh-lab.ts';
import type { MeshPod } from './support/mesh-node.ts';
import type { Command, DialOptions, DialResult } from './support/peer.ts';
import { curl, outcomes, PATIENT, urlOf } from './support/scenario.ts';
import type { WebCommand, WebSeen } from './support/web-program.ts';

/** draft-ietf-tls-ecdhe-mlkem section 6. */
const X25519MLKEM768 = 0x11ec;
const TLS13 = 0x0304;
const NGINX = 80;
const REDIS = 6379;
const WEB = 8080;
/** Skipped by the meshed client and by the meshed server. */
const SKIPPED = 8091;
const SKIPPED_INBOUND = 8092;
/** Its server speaks first: opaque. */
const GREETER = 9000;
const METADATA = { ipv4: '169.254.169.254', ipv6: 'fd00:ec2::254' };

let lab: MeshLab;
let client: MeshPod;
let server: MeshPod;
let plainClient: MeshPod;
let plainServer: MeshPod;
let outsider: MeshPod;
let bridge: MeshPod;
const webs = new Map<MeshPod, PodProgram<WebCommand>>();

async function serveWeb(pod: MeshPod, ports: number[]): Promise<void> {
  const web = await lab.program<WebCommand>(pod, 'web-program.ts');
  for (const port of ports) await web.call({ op: 'http', port });
  webs.set(pod, web);
}

const seenBy = (pod: MeshPod): Promise<WebSeen> => webs.get(pod)!.call<WebSeen>({ op: 'seen' });

async function serveNginx(pod: MeshPod, answer: string): Promise<void> {
  const file = path.join(lab.directory, `${pod.netns}.conf`);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  writeFileSync(
    file,
    `daemon off; master_process off; pid ${file}.pid; error_log stderr notice; events {}
http { access_log off; ${temporary.map((name) => `${name}_temp_path ${file}.${name};`).join(' ')}
  server { listen ${NGINX}; listen [::]:${NGINX}; location / { return 200 "${answer}\\n"; } } }\n`,
  );
  await lab.programs.serve(pod.netns, ['nginx', '-c', file, '-e', 'stderr'], 'RLIMIT_NOFILE');
}

async function serveRedis(pod: MeshPod): Promise<void> {
  const argv = ['redis-server', '--port', String(REDIS), '--bind', '0.0.0.0', '::', '--protected-mode', 'no'];
  await lab.programs.serve(pod.netns, [...argv, '--save', '', '--dir', lab.directory], 'Ready to accept');
}

beforeAll(async () => {
  lab = await MeshLab.open('mtr');
  const { node } = lab;
  await node.addNamespace('meshed', { 'linkerd.io/inject': 'enabled' });
  await node.addNamespace('plain');
  plainServer = await node.addPod('plain', 'server');
  plainClient = await node.addPod('plain', 'client');
  outsider = await node.addPod('plain', 'outsider');
  client = await node.addPod('meshed', 'client', {
    annotations: {
      'config.linkerd.io/skip-outbound-ports': String(SKIPPED),
      'config.heddle.dev/skip-outbound-subnets': `${plainServer.ipv4}/32,${plainServer.ipv6}/128`,
    },
  });
  server = await node.addPod('meshed', 'server', {
    annotations: {
      'config.linkerd.io/skip-inbound-ports': `${SKIPPED},${SKIPPED_INBOUND}`,
      'config.linkerd.io/opaque-ports': `${REDIS},${GREETER}`,
      'config.linkerd.io/skip-subnets': `${outsider.ipv4}/32,${outsider.ipv6}/128`,
    },
    ports: [NGINX, REDIS, WEB],
  });
  bridge = await node.bridge();
  for (const address of [`${METADATA.ipv4}/32`, `${METADATA.ipv6}/128`]) {
    await lab.programs.run(bridge.netns, ['ip', 'address', 'add', address, 'dev', 'br0', 'nodad']);
  }
  await Promise.all([
    ...[server, plainServer].flatMap((pod) => [serveNginx(pod, `answer-of-${pod.namespace}`), serveRedis(pod)]),
    ...[server, plainServer].map((pod) => serveWeb(pod, [WEB, SKIPPED, SKIPPED_INBOUND])),
    ...[client, bridge].map((pod) => serveWeb(pod, [WEB])),
  ]);
});

afterAll(() => lab?.close());

/** HTTP/1.1 with curl and nginx, opaque TCP with redis, over both families. Returns what was said. */
async function talk(from: MeshPod, to: MeshPod): Promise<string[]> {
  const secrets = [`answer-of-${to.namespace}`];
  for (const [family, host] of Object.entries({ v4: to.ipv4, v6: to.ipv6 })) {
    const secret = (what: string) => {
      const text = `secret-${to.namespace}-${family}-${what}`;
      secrets.push(text);
      return text;
    };
    const args = ['--header', `x-secret: ${secret('header')}`, '--data', secret('body')];
    const answer = await curl(lab, from, urlOf(host, NGINX, `/${secret('path')}`), args);
    expect(answer).toMatchObject({ exit: 0, status: 200, body: `answer-of-${to.namespace}\n` });
    const value = secret('redis');
    const redis = (...command: string[]) => lab.programs.run(from.netns, ['redis-cli', '-h', host, ...command]);
    expect(await redis('SET', 'key', value)).toMatchObject({ status: 0, stdout: 'OK\n' });
    expect(await redis('GET', 'key')).toMatchObject({ status: 0, stdout: `${value}\n` });
  }
  return secrets;
}

async function captured(from: MeshPod, to: MeshPod): Promise<{ wire: Captured; secrets: string[] }> {
  const capture = await Capture.start(lab, to);
  const secrets = await talk(from, to);
  return { wire: await capture.stop(from), secrets };
}

describe('a packet capture between pods', () => {
  test('holds everything in clear when they are unmeshed', async () => {
    const { wire, secrets } = await captured(plainClient, plainServer);
    expect(secrets.filter((secret) => !wire.holds(secret))).toEqual([]);
    expect(wire.bytesOfPort(NGINX)).toBeGreaterThan(0);
    expect(wire.clientHellos()).toEqual([]);
  });

  test('holds nothing in clear when they are meshed, and offers X25519MLKEM768 first', async () => {
    const { wire, secrets } = await captured(client, server);
    expect(secrets.length).toBe(9);
    expect(secrets.filter((secret) => wire.holds(secret))).toEqual([]);
    const hellos = wire.clientHellos();
    // Two families, of each a connection of HTTP and one of redis at least.
    expect(hellos.length).toBeGreaterThanOrEqual(4);
    for (const hello of hellos) {
      expect(hello.supportedGroups[0]).toBe(X25519MLKEM768);
      expect(hello.keyShares[0]).toBe(X25519MLKEM768);
      expect(hello.supportedVersions).toEqual([TLS13]);
    }
    // No flow begins otherwise: of each connection one side says a ClientHello and the other answers in TLS records.
    for (const { bytes } of wire.flows) expect(bytes[0]).toBe(0x16);
    console.log(`wire: ${wire.flows.length} flows, ${hellos.length} ClientHellos, all with X25519MLKEM768 first`);
  });
});

interface Untouched {
  what: string;
  from: () => MeshPod;
  to: () => { pod: MeshPod; ipv4: string; ipv6: string };
  port: number;
  /** What the programs must have counted, once. */
  outcome: string;
  /** Whether the client's own worker had the connection first. */
  isRedirected: boolean;
}

describe('connections that are not the mesh’s business', () => {
  const to = (pod: () => MeshPod) => () => ({ pod: pod(), ipv4: pod().ipv4, ipv6: pod().ipv6 });
  const cases: Untouched[] = [
    {
      what: 'loopback',
      from: () => client,
      to: () => ({ pod: client, ipv4: '127.0.0.1', ipv6: '::1' }),
      port: WEB,
      outcome: 'outbound_skipped_loopback',
      isRedirected: false,
    },
    {
      what: 'the own address',
      from: () => client,
      to: to(() => client),
      port: WEB,
      outcome: 'outbound_skipped_own_address',
      isRedirected: false,
    },
    {
      what: 'a skipped outbound port',
      from: () => client,
      to: to(() => server),
      port: SKIPPED,
      outcome: 'outbound_skipped_port',
      isRedirected: false,
    },
    {
      what: 'a skipped inbound port',
      from: () => client,
      to: to(() => server),
      port: SKIPPED_INBOUND,
      outcome: 'inbound_skipped_port',
      isRedirected: true,
    },
    {
      what: 'a skipped destination network',
      from: () => client,
      to: to(() => plainServer),
      port: WEB,
      outcome: 'outbound_skipped_network',
      isRedirected: false,
    },
    {
      what: 'a skipped source network',
      from: () => outsider,
      to: to(() => server),
      port: WEB,
      outcome: 'inbound_skipped_network',
      isRedirected: false,
    },
    {
      what: 'the metadata service',
      from: () => client,
      to: () => ({ pod: bridge, ...METADATA }),
      port: WEB,
      outcome: 'outbound_skipped_metadata',
      isRedirected: false,
    },
  ];

  describe.each(['ipv4', 'ipv6'] as const)('over %s', (family) => {
    // Counters are of the node: a canary of the agent may fall between two readings, but hardly three times running.
    test.for(cases)('$what', { retry: 3 }, async ({ from, to, port, outcome, isRedirected }) => {
      const target = to();
      const before = await outcomes(lab);
      const answer = await curl(lab, from(), urlOf(target[family], port), ['--data', 'untouched']);
      expect(answer).toMatchObject({ exit: 0, status: 200, body: 'untouched' });
      const after = await outcomes(lab);
      expect(after[outcome]! - before[outcome]!).toBe(1);
      expect(after.outbound_redirected! - before.outbound_redirected!).toBe(isRedirected ? 1 : 0);
      const seen = await seenBy(target.pod);
      expect(seen.headers).not.toHaveProperty('l5d-client-id');
      const own = target.pod === from() ? target[family] : from()[family];
      expect(seen.peer.replace('::ffff:', '')).toBe(own);
    });

    test('the control: others are taken, with an identity', { retry: 3 }, async () => {
      const before = await outcomes(lab);
      const answer = await curl(lab, client, urlOf(server[family], WEB), ['--data', 'meshed']);
      expect(answer).toMatchObject({ exit: 0, status: 200, body: 'meshed' });
      expect((await outcomes(lab)).outbound_redirected! - before.outbound_redirected!).toBe(1);
      const seen = await seenBy(server);
      expect(seen.headers['l5d-client-id']).toBe('default.meshed.serviceaccount.identity.heddle.cluster.local');
    });

    test('UDP passes', async () => {
      const port = family === 'ipv4' ? 5353 : 5354;
      await webs.get(server)!.call({ op: 'udp', port });
      const peer = await lab.program<Command>(client, 'peer-program.ts');
      expect(await peer.call({ op: 'udp', host: server[family], port })).toBe('ping');
      await peer.stop();
    });
  });
});

describe('a pod that wants to leave the mesh', () => {
  const ways: [string, Partial<DialOptions>][] = [
    ['as it is', {}],
    ['marked', { mark: 0x539 }],
    ['bound to its device', { device: 'eth0' }],
    ['by MPTCP', { mptcp: true }],
    ['on a socket that was used before', { first: { host: '127.0.0.1', port: WEB } }],
  ];
  const CAPABLE = ['setpriv', '--bounding-set=-all,+net_admin,+net_raw', '--inh-caps=-all', '--'];

  /** Dials in each of these ways over both families; returns what was sent. */
  async function dialAll(from: MeshPod, to: MeshPod, prefix: string[], how = ways): Promise<string[]> {
    const peer = await lab.program<Command>(from, 'peer-program.ts', prefix);
    const secrets: string[] = [];
    for (const host of [to.ipv4, to.ipv6]) {
      for (const [way, options] of how) {
        const echo = `leave-${to.namespace}-${host}-${way}`.replaceAll(' ', '_');
        secrets.push(echo);
        const result = await peer.call<DialResult>({ op: 'dial', host, port: GREETER, echo, ...options });
        expect({ way, error: result.error, echo: result.echo }).toEqual({ way, error: null, echo });
      }
    }
    await peer.stop();
    return secrets;
  }

  beforeAll(async () => {
    for (const pod of [server, plainServer]) {
      const peer = await lab.program<Command>(pod, 'peer-program.ts');
      await peer.call({ op: 'serve', name: pod.name, port: GREETER });
    }
  });

  test('cannot with CAP_NET_ADMIN, whatever it does to its own network', async () => {
    const other = { ipv4: '10.77.0.200', ipv6: 'fd77::200' };
    const script = [
      'nft flush ruleset',
      'ip rule add fwmark 0x539 lookup main priority 10',
      'ip -6 rule add fwmark 0x539 lookup main priority 10',
      `ip address add ${other.ipv4}/24 dev eth0`,
      `ip address add ${other.ipv6}/64 dev eth0 nodad`,
      'grep -i capeff /proc/self/status',
    ].join(' && ');
    const changed = await lab.programs.run(client.netns, [...CAPABLE, 'sh', '-c', script]);
    expect(changed.stderr).toBe('');
    // CAP_NET_ADMIN and CAP_NET_RAW, bits 12 and 13.
    expect(changed.stdout).toMatch(/CapEff:\s+0000000000003000\n/);
    const before = await outcomes(lab);
    const capture = await Capture.start(lab, server);
    const secrets = await dialAll(client, server, CAPABLE);
    let attempts = secrets.length;
    for (const family of ['ipv4', 'ipv6'] as const) {
      const args = ['--interface', other[family], '--data', 'leave-from-a-new-address'];
      const ask = async () => {
        attempts++;
        return (await curl(lab, client, urlOf(server[family], WEB), args)).status;
      };
      // Refused until the agent has seen the address, and meshed then.
      await expect.poll(ask, PATIENT).toBe(200);
      // What arrives there is steered to the worker too, and refused by it: Kubernetes did not give the pod this address.
      const [steered, reached] = [(await outcomes(lab)).inbound_steered!, (await seenBy(client)).connections];
      expect(await curl(lab, plainClient, urlOf(other[family], WEB))).toMatchObject({ status: 0 });
      expect((await outcomes(lab)).inbound_steered!).toBeGreaterThan(steered);
      expect((await seenBy(client)).connections).toBe(reached);
    }
    const wire = await capture.stop(client);
    expect(secrets.length).toBe(10);
    expect(wire.holds('leave-')).toBe(false);
    // The agent's canaries are redirected too, every few seconds.
    expect((await outcomes(lab)).outbound_redirected! - before.outbound_redirected!).toBeGreaterThanOrEqual(attempts);
  });

  test('cannot as the user of its worker', async () => {
    const pid = (await lab.node.describePods()).find(({ uid }) => uid === client.uid)!.worker!.pid!;
    const uid = (await lab.programs.run(null, ['stat', '--format=%u', `/proc/${pid}`])).stdout.trim();
    expect(Number(uid)).toBeGreaterThanOrEqual(65_536);
    const before = await outcomes(lab);
    const capture = await Capture.start(lab, server);
    const asWorker = ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups'];
    // Without CAP_NET_ADMIN a socket cannot be marked.
    const unmarked = ways.filter(([, { mark }]) => mark === undefined);
    const secrets = await dialAll(client, server, asWorker, unmarked);
    const wire = await capture.stop(client);
    expect(secrets.length).toBe(8);
    expect(secrets.filter((secret) => wire.holds(secret))).toEqual([]);
    expect((await outcomes(lab)).outbound_redirected! - before.outbound_redirected!).toBeGreaterThanOrEqual(
      secrets.length,
    );
  });

  test('the control: an unmeshed pod is seen in clear in each of these ways', async () => {
    const capture = await Capture.start(lab, plainServer);
    const secrets = await dialAll(plainClient, plainServer, []);
    const wire = await capture.stop(plainClient);
    expect(secrets.length).toBe(10);
    expect(secrets.filter((secret) => !wire.holds(secret))).toEqual([]);
  });
});
