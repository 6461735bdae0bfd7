// What load feels when parts of the mesh die: nothing where nothing of it has to, one worker's own connections where
// that worker died, refusal and never clear text where nobody is left. Killed is SIGKILL.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Capture } from './support/capture.ts';
import { total } from './support/exposition.ts';
import type { LoadReport } from './support/load.ts';
import { MeshLab } from './support/mesh-lab.ts';
import type { MeshPod } from './support/mesh-node.ts';
import { curl, metrics, PATIENT, PATIENT_POD, RunningLoad, urlOf } from './support/scenario.ts';
import type { WebCommand } from './support/web-program.ts';

const HTTP = 8080;
const TCP = 6379;

let lab: MeshLab;
let client: MeshPod;
let server: MeshPod;
let third: MeshPod;
let plain: MeshPod;
let plainServer: MeshPod;

beforeAll(async () => {
  lab = await MeshLab.open('mfl');
  await lab.node.addNamespace('meshed', { 'linkerd.io/inject': 'enabled' });
  await lab.node.addNamespace('plain');
  client = await lab.node.addPod('meshed', 'client', { annotations: PATIENT_POD });
  server = await lab.node.addPod('meshed', 'server', {
    annotations: PATIENT_POD,
    ports: [HTTP, TCP],
    labels: { app: 'server' },
  });
  third = await lab.node.addPod('meshed', 'third');
  plain = await lab.node.addPod('plain', 'client');
  plainServer = await lab.node.addPod('plain', 'server');
  for (const pod of [server, plainServer]) {
    const web = await lab.program<WebCommand>(pod, 'web-program.ts');
    await web.call({ op: 'http', port: HTTP });
    await web.call({ op: 'tcp', port: TCP });
  }
});

afterAll(() => lab?.close());

const load = (what: string) => RunningLoad.start(lab, what, { client, server, ports: { http: HTTP, tcp: TCP } });

async function workerOf({ uid }: MeshPod) {
  return (await lab.node.describePods()).find((pod) => pod.uid === uid)!.worker!;
}

/** Process ids of all workers, by pod. */
async function workerPids(): Promise<[string, number | null][]> {
  const pods = (await lab.node.describePods()).filter(({ worker }) => worker !== null);
  return pods.map(({ uid, worker }) => [uid, worker!.pid] as [string, number | null]).sort();
}

/** A worker's death is known to the other side when it has turned its event loop once. */
const NOTICED_MS = 500;

/** Connections of the clients that can have been open at once: those that stay, and one for each request under way. */
function openMax({ keptConnections, unansweredMax }: LoadReport): number {
  return keptConnections + unansweredMax;
}

describe('a worker that is killed', () => {
  test.each([
    ['of the server', () => server],
    ['of the client', () => client],
  ] as const)('%s: only its open connections fail, its successor serves the rest', async (which, podOf) => {
    const running = await load(`worker ${which} killed`);
    const before = await workerOf(podOf());
    const goneMs = await lab.node.kill(before.pid!);
    await expect.poll(async () => (await workerOf(podOf())).state, PATIENT).toBe('ready');
    const report = await running.stop();
    const after = await workerOf(podOf());
    expect(after.pid).not.toBe(before.pid);
    expect(after.generation).toBe(before.generation + 1);
    const { failures } = report;
    // Exactly its own connections: each was open when it died, and none failed twice.
    expect(failures.filter(({ connectionStartedMs }) => !(connectionStartedMs < goneMs))).toEqual([]);
    expect(new Set(failures.map(({ connectionStartedMs }) => connectionStartedMs)).size).toBe(failures.length);
    expect(failures.length).toBeLessThanOrEqual(openMax(report));
    expect(failures.filter(({ requestStartedMs }) => requestStartedMs > goneMs + NOTICED_MS)).toEqual([]);
  });
});

describe('an agent that is killed', () => {
  test('costs no request, and its successor takes over the same workers', async () => {
    const before = await workerPids();
    const running = await load('agent killed and restarted');
    await lab.node.killProcess('agent');
    await running.answered();
    await lab.node.startProcess('agent');
    await running.answered();
    expect(await workerPids()).toEqual(before);
    const report = await running.stop();
    expect(report.failures).toEqual([]);
    for (const { state, redirect, uid } of await lab.node.describePods()) {
      if (uid.startsWith('u-meshed')) expect({ state, redirect }).toEqual({ state: 'meshed', redirect: 'ebpf' });
    }
    expect(total(await metrics(lab, '/metrics'), 'heddle_worker_up')).toBe(3);
  });
});

describe('agent and worker both dead', () => {
  const SECRET = 'both-are-dead';
  const ask = (from: MeshPod, host: string) => curl(lab, from, urlOf(host, HTTP), ['--data', SECRET]);

  test('new connections are refused, nothing is in clear, and the next agent puts it right', async () => {
    const hosts = [server.ipv4, server.ipv6];
    for (const from of [client, third]) {
      for (const host of hosts) expect(await ask(from, host)).toMatchObject({ status: 200, body: SECRET });
    }
    expect(await ask(plain, server.ipv4)).toMatchObject({ status: 200, body: SECRET });
    const workers = await Promise.all([client, server].map(workerOf));

    await lab.node.killProcess('agent');
    for (const { pid } of workers) await lab.node.kill(pid!);
    const capture = await Capture.start(lab, server);
    for (const host of hosts) {
      // Refused where the client's own worker is dead, and where the server's is; curl says 7.
      expect(await ask(client, host)).toMatchObject({ exit: 7, status: 0 });
      expect(await ask(plain, host)).toMatchObject({ exit: 7, status: 0 });
      // The third has a worker that lives and knows where the server is, but cannot reach its worker.
      const { exit, status } = await ask(third, host);
      expect({ exit, isRefused: status >= 502 && status <= 504 }).toEqual({ exit: 0, isRefused: true });
    }
    const wire = await capture.stop(plain);
    expect(wire.holds(SECRET)).toBe(false);

    // The control: between unmeshed pods the same capture holds it, in the same moment.
    const control = await Capture.start(lab, plainServer);
    expect(await ask(plain, plainServer.ipv4)).toMatchObject({ status: 200, body: SECRET });
    expect((await control.stop(plain)).holds(SECRET)).toBe(true);

    await lab.node.startProcess('agent');
    for (const host of hosts) {
      await expect.poll(async () => (await ask(client, host)).status, PATIENT).toBe(200);
    }
    expect(await ask(plain, server.ipv4)).toMatchObject({ status: 200, body: SECRET });
  });
});

describe('a control plane that is killed', () => {
  const deny = {
    apiVersion: 'policy.linkerd.io/v1beta3',
    kind: 'Server',
    metadata: { namespace: 'meshed', name: 'server-http' },
    spec: {
      podSelector: { matchLabels: { app: 'server' } },
      port: HTTP,
      proxyProtocol: 'HTTP/1',
      accessPolicy: 'deny',
    },
  };
  const relayTargets = async (state: string) =>
    total(await metrics(lab, '/metrics'), 'heddle_relay_targets', { state });
  const staleSeconds = async () => {
    const samples = (await metrics(lab)).get('heddle_worker_watch_stale_seconds')!.samples;
    return Math.max(...samples.map(({ value }) => value));
  };

  test('costs no request: the last answers hold, their age is in the metrics, and updates flow when it is back', async () => {
    const running = await load('control plane killed and restarted');
    expect(await relayTargets('stale')).toBe(0);
    expect(await relayTargets('fresh')).toBeGreaterThan(0);
    expect(await staleSeconds()).toBe(0);

    await Promise.all([lab.node.killProcess('destination'), lab.node.killProcess('identity')]);
    await expect.poll(() => relayTargets('stale'), PATIENT).toBeGreaterThan(0);
    await expect.poll(staleSeconds, PATIENT).toBeGreaterThan(1);
    expect(await relayTargets('fresh')).toBe(0);
    // Nobody hears of a change now.
    await lab.node.apply('deny', deny);
    await running.answered();

    await lab.node.withdraw('deny');
    await lab.node.startProcess('identity');
    await lab.node.startProcess('destination');
    await expect.poll(() => relayTargets('stale'), PATIENT).toBe(0);
    await expect.poll(staleSeconds, PATIENT).toBe(0);
    expect((await running.stop()).failures).toEqual([]);

    // Updates flow again, and certificates are issued.
    await lab.node.apply('deny', deny);
    const status = async () => (await curl(lab, client, urlOf(server.ipv4, HTTP))).status;
    await expect.poll(status, PATIENT).toBe(403);
    await lab.node.withdraw('deny');
    await expect.poll(status, PATIENT).toBe(200);
    const late = await lab.node.addPod('meshed', 'late');
    expect(await curl(lab, late, urlOf(server.ipv6, HTTP))).toMatchObject({ exit: 0, status: 200 });
  });
});
