import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { identifyNetns, inNetns } from '#agent/netns.ts';
import { identifyProcess } from '#agent/worker/process-table.ts';
import { Annotation } from '#api/names.ts';
import { bind, check } from '#lib/libc.ts';
import { isListening, netnsCookie, openTcpListener } from '#lib/tcp-socket.ts';
import { AgentNode, exchange } from './support/agent-node.ts';
import { ip, type Place } from './support/network.ts';

const enabled = { [Annotation.inject]: 'enabled' };
/** The bound of every repair. */
const REPAIRED = { timeout: 20_000, interval: 100 };
const TEST_MS = 45_000;

const shutdownFn = bind('shutdown', { arguments: ['i32', 'i32'], return: 'i32' });
const SHUT_RDWR = 2;

interface Answer {
  name: string;
  pid: number;
  pod: string;
}

describe.each(['ebpf', 'nftables'] as const)('drift of enrolled pods with %s', { timeout: TEST_MS }, (kind) => {
  let node: AgentNode;
  let a: Place;
  let plain: Place;
  const servers: net.Server[] = [];

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
  const counter = async (name: string): Promise<number> => {
    const line = (await node.get('/metrics')).text.split('\n').find((text) => text.startsWith(`${name} `));
    return Number(line?.split(' ')[1] ?? Number.NaN);
  };
  const drifts = (of: string) => counter(`heddle_pod_drift_total{kind="${of}"}`);
  const canaries = (result: string) => counter(`heddle_pod_canaries_total{result="${result}"}`);
  const pod = async (name: string) => (await node.pods()).find((found) => found.name === name);
  const told = (part: string) =>
    node.logged.filter(({ message, cause }) => message === 'pod drifted' && String(cause).includes(part));
  /** Waits until the agent found the drift and the pod is well again. */
  async function seenAndRepaired(of: string, before: number): Promise<void> {
    await expect.poll(() => drifts(of), REPAIRED).toBeGreaterThan(before);
    await expect.poll(async () => (await pod('a'))?.drift, REPAIRED).toEqual([]);
  }

  beforeAll(async () => {
    node = new AgentNode(`hdld${kind[0]}`, { arguments: ['--redirect', kind] });
    a = node.network.addPod('a');
    plain = node.network.addPod('plain');
    node.applyNamespace('shop', enabled);
    for (const name of ['a', 'old', 'next', 'lost']) node.applyPod('shop', name);
    await node.start();
    await serve(plain, 'plain');
    expect((await node.cni('ADD', a, { namespace: 'shop', name: 'a' })).status).toBe(0);
  });

  afterAll(async () => {
    for (const server of servers) server.close();
    await node?.close();
  });

  test('canaries arrive in both families, and nothing drifts', async () => {
    await expect.poll(() => canaries('ok'), REPAIRED).toBeGreaterThanOrEqual(2);
    expect(await canaries('failed')).toBeNaN();
    expect(await canaries('skipped')).toBeNaN();
    expect(told('')).toEqual([]);
    expect((await node.get('/metrics')).text).toMatch(/^heddle_pods\{state="drift"\} 0$/m);
  });

  test('redirection that somebody detached is attached again', async () => {
    const before = await drifts('bpf');
    if (kind === 'ebpf') {
      const links = readdirSync(path.join(node.directory, 'bpf'), { recursive: true, encoding: 'utf8' });
      const outbound = links.find((name) => name.endsWith('/heddle_connect4'))!;
      rmSync(path.join(node.directory, 'bpf', outbound));
    } else execFileSync('ip', ['netns', 'exec', path.basename(a.netnsPath), 'nft', 'flush', 'ruleset']);
    // The kernel lets go of a program a moment after its last reference.
    await expect.poll(() => exchange(a, { host: plain.ipv4, port: 8080 }), { interval: 5 }).toBe('plain');
    await seenAndRepaired('bpf', before);
    expect(await ask(a, plain)).toMatchObject({ pod: 'a' });
    expect(told('bpf: ')).not.toEqual([]);
  });

  test('listeners that were shut are made anew, and the worker with them', async () => {
    const before = await drifts('listener');
    const { pid } = await ask(a, plain);
    // The agent is this process: its descriptors are the pod's listeners, which the worker shares.
    const listening = readdirSync('/proc/self/fd').map(Number).filter(isPodListener);
    expect(listening).toHaveLength(4);
    for (const fd of listening) check(shutdownFn(fd, SHUT_RDWR), 'shut a listener');
    await seenAndRepaired('listener', before);
    await expect.poll(() => ask(a, plain).catch(() => null), REPAIRED).toMatchObject({ pod: 'a' });
    await expect.poll(() => identifyProcess(pid), REPAIRED).toBeNull();
    expect(told('does not listen')).not.toEqual([]);
  });

  test('a worker that was stopped is found and replaced', async () => {
    const before = await drifts('worker');
    const { pid } = await ask(a, plain);
    process.kill(pid, 'SIGSTOP');
    const startedMs = performance.now();
    await expect.poll(() => identifyProcess(pid), REPAIRED).toBeNull();
    const answer = await ask(a, plain);
    expect(answer.pid).not.toBe(pid);
    expect(performance.now() - startedMs).toBeLessThan(20_000);
    expect(await drifts('worker')).toBeGreaterThan(before);
    expect(told('worker: ')).not.toEqual([]);
    await expect.poll(async () => (await pod('a'))?.drift, REPAIRED).toEqual([]);
  });

  test('a worker that takes no connections, though it answers, is replaced', async () => {
    const { pid } = await ask(a, plain);
    const before = await drifts('canary');
    expect(await exchange(a, { host: plain.ipv4, port: 8080 }, 'deaf')).toContain('"deaf"');
    await expect.poll(() => identifyProcess(pid), REPAIRED).toBeNull();
    expect(await drifts('canary')).toBeGreaterThan(before);
    expect(told('did not arrive at the worker')).not.toEqual([]);
    expect((await ask(a, plain)).pid).not.toBe(pid);
    await expect.poll(async () => (await pod('a'))?.drift, REPAIRED).toEqual([]);
  });

  test('another namespace at the place of a pod gets neither its worker nor its name', {
    timeout: TEST_MS,
  }, async () => {
    const lost = node.network.addPod('lost');
    expect((await node.cni('ADD', lost, { namespace: 'shop', name: 'lost' })).status).toBe(0);
    const { pid } = await ask(lost, plain);
    const before = await drifts('netns');
    node.network.removePod(lost);
    const successor = node.network.addPod('lost');
    expect(successor.netnsPath).toBe(lost.netnsPath);
    expect(await exchange(successor, { host: plain.ipv4, port: 8080 })).toBe('plain');
    await expect.poll(() => identifyProcess(pid), REPAIRED).toBeNull();
    await expect.poll(() => pod('lost'), REPAIRED).toBeUndefined();
    expect(await drifts('netns')).toBe(before + 1);
    // By its own ADD it becomes a pod of the mesh like every other.
    const containerId = 'c-lost-again';
    expect((await node.cni('ADD', successor, { namespace: 'shop', name: 'lost', containerId })).status).toBe(0);
    const answer = await ask(successor, plain);
    expect(answer).toMatchObject({ pod: 'lost' });
    expect(answer.pid).not.toBe(pid);
    await node.cni('DEL', successor, { namespace: 'shop', name: 'lost', containerId });
    node.network.removePod(successor);
  });

  test('the same while no agent runs, even where the inode comes back', async () => {
    const lost = node.network.addPod('lost');
    expect((await node.cni('ADD', lost, { namespace: 'shop', name: 'lost' })).status).toBe(0);
    const { pid } = await ask(lost, plain);
    await node.stop();
    process.kill(pid, 'SIGKILL');
    await expect.poll(() => identifyProcess(pid), REPAIRED).toBeNull();
    node.network.removePod(lost);
    const successor = node.network.addPod('lost');
    await node.start();
    expect(await pod('lost')).toBeUndefined();
    expect(await exchange(successor, { host: plain.ipv4, port: 8080 })).toBe('plain');
    expect(existsSync(path.join(node.runDir, 'workers/uid-lost'))).toBe(false);
    expect(await ask(a, plain)).toMatchObject({ pod: 'a' });
  });

  test('an address that went to another pod is the other pod alone', async () => {
    const old = node.network.addPod('old');
    expect((await node.cni('ADD', old, { namespace: 'shop', name: 'old' })).status).toBe(0);
    const { pid } = await ask(old, plain);
    const { ipv4, ipv6 } = old;
    node.network.removePod(old);
    const next = node.network.addPod('next', { ipv4, ipv6 });
    // As a network plugin's announcement does.
    for (const place of [plain, a]) ip(place.name, ['neigh flush dev eth0']);
    expect((await node.cni('ADD', next, { namespace: 'shop', name: 'next' })).status).toBe(0);
    expect(await ask(next, plain)).toMatchObject({ pod: 'next' });
    expect(await ask(plain, next)).toMatchObject({ pod: 'next' });
    await expect.poll(() => identifyProcess(pid), REPAIRED).toBeNull();
    await expect.poll(() => pod('old'), REPAIRED).toBeUndefined();
    expect(await ask(next, plain)).toMatchObject({ pod: 'next' });
    expect(await ask(plain, next)).toMatchObject({ pod: 'next' });
  });

  /** One of the four that the agent made in the namespace of pod a. */
  function isPodListener(fd: number): boolean {
    return isListening(fd) && netnsCookie(fd) === identifyNetns(a.netnsFd).cookie;
  }
});
