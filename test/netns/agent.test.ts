import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { uninstall } from '#agent/agent.ts';
import { listFiles } from '#agent/files.ts';
import { inNetns } from '#agent/netns.ts';
import { netnsInode } from '#agent/netns-path.ts';
import { findHierarchies } from '#agent/worker/cgroup.ts';
import { identifyProcess } from '#agent/worker/process-table.ts';
import { CNI_MESSAGE_VERSION, CniRunFile } from '#api/cni-message.ts';
import { Annotation } from '#api/names.ts';
import { createLog } from '#lib/log.ts';
import { openTcpListener } from '#lib/tcp-socket.ts';
import { AgentNode, exchange, standInSources } from './support/agent-node.ts';
import type { Place } from './support/network.ts';

const enabled = { [Annotation.inject]: 'enabled' };
const POLL = { timeout: 15_000, interval: 50 };

interface Answer {
  name: string;
  pid: number;
  pod: string;
}

describe.each(['ebpf', 'nftables'] as const)('agent with %s', (kind) => {
  let node: AgentNode;
  let a: Place;
  let b: Place;
  let plain: Place;
  const servers: net.Server[] = [];

  /** A program in the pod that answers with its name. */
  async function serve(place: Place, name: string): Promise<void> {
    const server = net.createServer((socket) => {
      socket.on('error', () => {});
      socket.on('data', () => socket.end(`${name}\n`));
    });
    servers.push(server);
    const fd = inNetns(place.netnsFd, () => openTcpListener({ address: '0.0.0.0', port: 8080, backlog: 64 }));
    await new Promise<void>((resolve) => server.listen({ fd }, resolve));
  }
  const ask = async (from: Place, to: Place): Promise<Answer> =>
    JSON.parse(await exchange(from, { host: to.ipv4, port: 8080 })) as Answer;

  beforeAll(async () => {
    node = new AgentNode(`hdla${kind[0]}`, { arguments: ['--redirect', kind] });
    a = node.network.addPod('a');
    b = node.network.addPod('b');
    plain = node.network.addPod('plain');
    node.applyNamespace('shop', enabled);
    node.applyNamespace('outside');
    for (const name of ['a', 'b', 'again', 'twin']) node.applyPod('shop', name);
    node.applyPod('outside', 'plain');
    await node.start();
  });

  afterAll(async () => {
    for (const server of servers) server.close();
    await node?.close();
  });

  test('a pod that is added gets a worker, and its traffic goes through it in both directions', async () => {
    await serve(plain, 'plain');
    await serve(a, 'application a');
    expect(await exchange(a, { host: plain.ipv4, port: 8080 })).toBe('plain');
    expect(await exchange(plain, { host: a.ipv4, port: 8080 })).toBe('application a');

    const added = await node.cni('ADD', a, { namespace: 'shop', name: 'a' });
    expect(added).toMatchObject({
      status: 0,
      output: { ips: [{ address: `${a.ipv4}/24` }, { address: `${a.ipv6}/64` }] },
    });
    expect((await node.cni('ADD', b, { namespace: 'shop', name: 'b' })).status).toBe(0);
    expect(await ask(a, plain)).toMatchObject({ name: 'outbound4', pod: 'a' });
    expect(await ask(plain, a)).toMatchObject({ name: 'inbound4', pod: 'a' });
    expect(await ask(a, b)).toMatchObject({ name: 'outbound4', pod: 'a' });
    const overIpv6 = JSON.parse(await exchange(a, { host: b.ipv6, port: 8080 }));
    expect(overIpv6).toMatchObject({ name: 'outbound6', pod: 'a' });
    const pods = await node.pods();
    expect(pods.map(({ name, state, redirect, reason }) => ({ name, state, redirect, reason }))).toEqual([
      { name: 'a', state: 'meshed', redirect: kind, reason: '' },
      { name: 'b', state: 'meshed', redirect: kind, reason: '' },
    ]);
  });

  test('adding it again changes nothing', async () => {
    const before = await node.pods();
    expect((await node.cni('ADD', a, { namespace: 'shop', name: 'a' })).status).toBe(0);
    expect(await node.pods()).toEqual(before);
    expect(await node.cni('CHECK', a, { namespace: 'shop', name: 'a' })).toMatchObject({ status: 0 });
  });

  test('an unmeshed pod passes by, and is remembered', async () => {
    const added = await node.cni('ADD', plain, {
      namespace: 'outside',
      name: 'plain',
      annotations: { 'linkerd.io/inject': 'maybe' },
    });
    expect(added.status).toBe(0);
    expect(await exchange(plain, { host: plain.ipv4, port: 8080 })).toBe('plain');
    expect(await node.pods()).toContainEqual(
      expect.objectContaining({ name: 'plain', state: 'unmeshed', redirect: null, worker: null }),
    );
  });

  test('a pod that passed without an agent joins, also where the runtime did not tell its UID', async () => {
    const missedPod = node.network.addPod('missed');
    node.applyPod('shop', 'missed');
    const record = {
      v: CNI_MESSAGE_VERSION,
      kind: 'missed',
      containerId: 'c-missed',
      ifName: 'eth0',
      network: 'hdlnet',
      netnsPath: missedPod.netnsPath,
      netnsInode: Number(netnsInode(missedPod.netnsPath)),
      pod: { namespace: 'shop', name: 'missed', uid: '' },
      annotations: {},
      ips: [missedPod.ipv4, missedPod.ipv6],
      cause: 'test',
      timeMs: 1,
      pluginVersion: 'test',
    };
    const missed = path.join(node.runDir, CniRunFile.missed);
    mkdirSync(missed, { recursive: true });
    writeFileSync(path.join(missed, 'c-missed.json'), JSON.stringify(record));
    await expect
      .poll(async () => (await node.pods()).find(({ name }) => name === 'missed')?.state, POLL)
      .toBe('meshed');
    // Every entry is the directory of one pod: an empty UID would be the directory of all.
    expect(listFiles(path.join(node.runDir, 'workers')).every((name) => name.startsWith('uid-'))).toBe(true);
    expect((await node.cni('DEL', missedPod, { namespace: 'shop', name: 'missed' })).status).toBe(0);
    await expect.poll(() => existsSync(path.join(node.runDir, 'workers/uid-missed')), POLL).toBe(false);
  });

  test('an ADD that fails while the worker is set up leaves no listener behind', async () => {
    const blocked = node.network.addPod('blocked');
    node.applyPod('shop', 'blocked');
    const directory = path.join(node.runDir, 'workers/uid-blocked');
    mkdirSync(path.dirname(directory), { recursive: true });
    const sockets = () => inNetns(blocked.netnsFd, () => readFileSync('/proc/thread-self/net/tcp', 'utf8').split('\n'));
    writeFileSync(directory, 'in the way');
    expect(await node.cni('ADD', blocked, { namespace: 'shop', name: 'blocked' })).toMatchObject({ status: 1 });
    expect(sockets().filter((line) => line.includes(' 0A '))).toEqual([]);
  });

  test('a pod with the address of another is refused, and named', async () => {
    const twin = node.network.addPod('twin');
    const refused = await node.cni('ADD', twin, { namespace: 'shop', name: 'twin', ips: [a.ipv4] });
    expect(refused).toMatchObject({ status: 1, output: { code: 100 } });
    expect(refused.output!.msg).toContain(`pod "shop/twin" with address "${a.ipv4}": pod "shop/a" has it on this node`);
    expect((await node.pods()).map(({ name }) => name)).not.toContain('twin');
    expect(await ask(a, plain)).toMatchObject({ pod: 'a' });
  });

  test('a worker that is killed is replaced; who connects meanwhile waits', async () => {
    const { pid } = await ask(a, plain);
    process.kill(pid, 'SIGKILL');
    const answers = await Promise.all(Array.from({ length: 10 }, () => ask(a, plain)));
    expect(new Set(answers.map((answer) => answer.pid)).size).toBe(1);
    expect(answers[0]!.pid).not.toBe(pid);
  });

  test('metrics of the node: the agent, all workers by family, one pod, service discovery', async () => {
    // The agent may hear of the worker that was replaced just now later than its clients.
    await expect
      .poll(async () => (await node.get('/metrics')).text, POLL)
      .toMatch(/^heddle_pods\{state="meshed"\} 2$/m);
    const own = await node.get('/metrics');
    expect(own.text).toMatch(/^heddle_pods\{state="unmeshed"\} 1$/m);
    expect(own.text).toMatch(/^heddle_cni_requests_total\{op="ADD",code="100"\} 1$/m);
    expect(own.text).toMatch(/^heddle_worker_restarts\{namespace="shop",pod="a"\} 1$/m);
    expect(own.text).toMatch(/^heddle_redirect_outcomes_total\{outcome="[a-z_]+"\} [1-9]/m);
    const all = await node.get('/proxies/metrics');
    expect(all.text).toBe('# TYPE stand_in_total counter\nstand_in_total{pod="a"} 1\nstand_in_total{pod="b"} 1\n');
    expect((await node.get('/proxies/metrics?pod=shop/b')).text).toContain('pod="b"');
    expect((await node.get('/proxies/metrics?pod=shop/b')).text).not.toContain('pod="a"');
    expect((await node.get('/proxies/metrics?pod=shop/none')).status).toBe(404);
    const targets = JSON.parse((await node.get('/sd')).text) as { labels: Record<string, string> }[];
    expect(targets.map(({ labels }) => labels)).toEqual([
      { __metrics_path__: '/proxies/metrics', __param_pod: 'shop/a' },
      { __metrics_path__: '/proxies/metrics', __param_pod: 'shop/b' },
    ]);
    expect(await node.get('/ready')).toEqual({ status: 200, text: 'ready\n' });
    expect((await node.get('/none')).status).toBe(404);
  });

  test('a worker that hangs makes the scrape partial, not late', async () => {
    const { pid } = await ask(b, plain);
    process.kill(pid, 'SIGSTOP');
    const startedMs = performance.now();
    const { text } = await node.get('/proxies/metrics');
    expect(performance.now() - startedMs).toBeLessThan(2_000);
    process.kill(pid, 'SIGCONT');
    expect(text).toBe('# TYPE stand_in_total counter\nstand_in_total{pod="a"} 1\n');
    expect((await node.get('/metrics')).text).toMatch(/^heddle_worker_scrape_errors_total 1$/m);
  });

  test('annotations that cannot be read are named, and the pod works with the default', async () => {
    node.applyPod('shop', 'b', { [Annotation.defaultInboundPolicy]: 'open' });
    await expect
      .poll(async () => (await node.pods()).find(({ name }) => name === 'b')!.problems, POLL)
      .toEqual([
        expect.stringContaining('pod "shop/b": annotation "config.linkerd.io/default-inbound-policy": read "open"'),
      ]);
    expect((await node.get('/metrics')).text).toMatch(
      /^heddle_pod_annotation_problems\{namespace="shop",pod="b"\} 1$/m,
    );
    expect(await ask(b, plain)).toMatchObject({ pod: 'b' });
  });

  test('a running pod joins the mesh, and leaves it, by the annotation of its namespace', async () => {
    node.applyNamespace('outside', enabled);
    await expect.poll(() => exchange(plain, { host: a.ipv4, port: 8080 }), POLL).toContain('"pod":"plain"');
    node.applyNamespace('outside');
    await expect
      .poll(async () => (await node.pods()).find(({ name }) => name === 'plain')!.state, POLL)
      .toBe('unmeshed');
    expect(await exchange(a, { host: plain.ipv4, port: 8080 })).toContain('"pod":"a"');
    expect(await exchange(plain, { host: plain.ipv4, port: 8080 })).toBe('plain');
    expect(readdirSync(path.join(node.runDir, 'workers'))).not.toContain('uid-plain');
  });

  test('the next agent takes everything over, and traffic does not notice', async () => {
    const before = await ask(a, plain);
    await node.stop();
    expect((await ask(a, plain)).pid).toBe(before.pid);
    await node.start();
    expect((await ask(a, plain)).pid).toBe(before.pid);
    const pods = await node.pods();
    expect(pods.find(({ name }) => name === 'a')).toMatchObject({
      state: 'meshed',
      worker: { pid: before.pid, restarts: 0 },
    });
    expect((await node.cni('CHECK', a, { namespace: 'shop', name: 'a' })).status).toBe(0);
    // The listeners are the next agent's too: a successor takes the same.
    process.kill(before.pid, 'SIGKILL');
    expect((await ask(a, plain)).pid).not.toBe(before.pid);
  });

  test('an agent of another version replaces the workers one by one', async () => {
    await node.stop();
    const before = await ask(a, plain);
    node.sourceRoot = standInSources(path.join(node.directory, 'src-next'), 'next version');
    await node.start();
    const versions = async () => new Set((await node.pods()).flatMap(({ worker }) => worker?.version ?? []));
    const old = before.pid;
    await expect.poll(async () => (await ask(a, plain)).pid, POLL).not.toBe(old);
    await expect.poll(async () => (await versions()).size, POLL).toBe(1);
    await expect.poll(() => identifyProcess(old), POLL).toBeNull();
    expect((await node.get('/metrics')).text).toMatch(/^heddle_worker_restarts\{namespace="shop",pod="a"\} 0$/m);
  });

  test('with the agent away a meshed pod waits, and DEL leaves a tombstone that the next agent reaps', async () => {
    const again = node.network.addPod('again');
    expect((await node.cni('ADD', again, { namespace: 'shop', name: 'again' })).status).toBe(0);
    const { pid } = await ask(again, plain);
    await node.stop();
    const late = node.network.addPod('late');
    expect(await node.cni('ADD', late, { namespace: 'shop', name: 'late' })).toMatchObject({
      status: 1,
      output: { code: 11 },
    });
    expect(await node.cni('DEL', again, { namespace: 'shop', name: 'again' })).toMatchObject({ status: 0 });
    expect(readdirSync(path.join(node.runDir, 'tombstones'))).toEqual(['c-again.json']);
    expect(identifyProcess(pid)).not.toBeNull();
    await node.start();
    expect(listFiles(path.join(node.runDir, 'tombstones'))).toEqual([]);
    expect(identifyProcess(pid)).toBeNull();
    expect((await node.pods()).map(({ name }) => name)).not.toContain('again');
  });

  test('DEL takes the pod out: traffic direct, worker gone, nothing left; again it is none', async () => {
    const { pid } = await ask(a, plain);
    const deleted = await node.cni('DEL', a, { namespace: 'shop', name: 'a' });
    expect(deleted.status).toBe(0);
    expect(deleted.milliseconds).toBeLessThan(1_000);
    expect(identifyProcess(pid)).toBeNull();
    expect(await exchange(a, { host: plain.ipv4, port: 8080 })).toBe('plain');
    expect(existsSync(path.join(node.runDir, 'workers/uid-a'))).toBe(false);
    expect(existsSync(path.join(node.runDir, 'pods/c-a.json'))).toBe(false);
    expect((await node.cni('DEL', a, { namespace: 'shop', name: 'a' })).status).toBe(0);
    expect(listFiles(path.join(node.runDir, 'tombstones'))).toEqual([]);
  });

  test('a sandbox that goes without a DEL is noticed', async () => {
    const lost = node.network.addPod('lost');
    node.applyPod('shop', 'lost');
    expect((await node.cni('ADD', lost, { namespace: 'shop', name: 'lost' })).status).toBe(0);
    const { pid } = await ask(lost, plain);
    node.network.removePod(lost);
    await expect.poll(() => identifyProcess(pid), { timeout: 20_000, interval: 100 }).toBeNull();
    const names = async () => (await node.pods()).map(({ name }) => name);
    await expect.poll(names, { timeout: 20_000, interval: 100 }).not.toContain('lost');
  });

  test('uninstalling stops the workers and redirects nobody, also without an agent', async () => {
    const { pid } = await ask(b, plain);
    await node.stop();
    const { log } = createLog({ sink: { write: () => {} } });
    await uninstall(node.config, log);
    expect(identifyProcess(pid)).toBeNull();
    expect(await exchange(b, { host: plain.ipv4, port: 8080 })).toBe('plain');
    expect(existsSync(path.join(node.directory, 'state/runtime'))).toBe(true);
    expect(readdirSync(path.join(node.directory, 'state/runtime'))).toEqual([]);
    expect(
      findHierarchies().filter(({ mountPoint }) => existsSync(path.join(mountPoint, node.config.cgroupRoot))),
    ).toEqual([]);
  });
});
