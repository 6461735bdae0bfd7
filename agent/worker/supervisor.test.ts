import { describe, expect, test } from 'vitest';
import type { WorkerConfig } from '#api/worker-config.ts';
import type { LinkDrain, LinkState } from '#api/worker-link.ts';
import { FakeClock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { silentLog } from '#lib/log.ts';
import { PodWorker, RETIRED_MAX, type SupervisedProcess, type WorkerHost } from './supervisor.ts';
import type { ProcessListener } from './worker-process.ts';

const config = { logLevel: 'info' } as WorkerConfig;

class FakeProcess implements SupervisedProcess {
  readonly generation: number;
  readonly pid: number;
  version = 'v1';
  state: LinkState | null = null;
  listener: ProcessListener = { onState: () => {}, onExit: () => {} };
  configs: WorkerConfig[] = [];
  drains: LinkDrain[] = [];
  isKilled = false;
  isReleased = false;
  answersPings = true;

  constructor(generation: number) {
    this.generation = generation;
    this.pid = 1000 + generation;
  }

  configure(value: WorkerConfig): void {
    this.configs.push(value);
  }

  drain(value: LinkDrain): void {
    this.drains.push(value);
  }

  kill(): void {
    this.isKilled = true;
    this.listener.onExit('SIGKILL');
  }

  async ping(): Promise<void> {
    if (!this.answersPings) throw new HeddleError('link-timeout', 'no pong');
  }

  readonly knowsCanaries = true;

  async canary(): Promise<void> {}

  async scrape(): Promise<void> {}

  release(): void {
    this.isReleased = true;
  }

  becomes(state: LinkState['state'], reason = ''): void {
    this.state = { state, reason, connections: 0, certificateExpires: 0 };
    this.listener.onState(this.state);
  }
}

class FakeHost implements WorkerHost {
  readonly processes: FakeProcess[] = [];
  readonly gone: number[] = [];
  failures = 0;
  changes = 0;

  start(generation: number): FakeProcess {
    if (this.failures > 0) {
      this.failures--;
      throw new HeddleError('worker-failed', 'start the worker: no such file');
    }
    const process = new FakeProcess(generation);
    this.processes.push(process);
    return process;
  }

  changed(): void {
    this.changes++;
  }

  exited(process: SupervisedProcess): void {
    this.gone.push(process.pid);
  }
}

function setUp() {
  const host = new FakeHost();
  const clock = new FakeClock();
  const worker = new PodWorker({ host, clock, log: silentLog, drainGraceMs: 10_000, random: () => 0 });
  return { host, clock, worker };
}
/** Lets promises settle that a timer of the fake clock set off. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise<void>((resolve) => queueMicrotask(resolve));
}

describe('supervisor', () => {
  test('a worker is ready when it says so, and gets its configuration first', async () => {
    const { host, worker } = setUp();
    worker.start(config);
    expect(host.processes[0]!.configs).toContain(config);
    expect(worker.state).toBe('starting');
    const ready = worker.whenReady(1000);
    host.processes[0]!.becomes('ready');
    await ready;
    expect(worker.state).toBe('ready');
    await worker.whenReady(0);
  });

  test('waiting for a worker ends with its own reason', async () => {
    const { host, clock, worker } = setUp();
    worker.start(config);
    const ready = worker.whenReady(1000);
    host.processes[0]!.becomes('starting', 'no certificate: identity service cannot be reached');
    clock.advance(1000);
    await expect(ready).rejects.toThrow('no certificate: identity service cannot be reached');
  });

  test('restarts with doubling delays, and quickly again after a long life', () => {
    const { host, clock, worker } = setUp();
    worker.start(config);
    const delays: number[] = [];
    for (let death = 0; death < 4; death++) {
      const before = host.processes.length;
      const startMs = clock.nowMs();
      host.processes.at(-1)!.listener.onExit('SIGSEGV');
      expect(worker.state).toBe('backoff');
      while (host.processes.length === before) clock.advance(10);
      delays.push(clock.nowMs() - startMs);
    }
    expect(delays).toEqual([50, 100, 200, 400]);
    expect(worker.restarts).toBe(4);
    expect(worker.generation).toBe(5);

    const before = host.processes.length;
    clock.advance(60_000);
    host.processes.at(-1)!.listener.onExit('SIGKILL');
    clock.advance(50);
    expect(host.processes.length).toBe(before + 1);
  });

  test('a birth that fails is tried again', () => {
    const { host, clock, worker } = setUp();
    host.failures = 2;
    worker.start(config);
    expect(worker.state).toBe('backoff');
    expect(worker.reason).toContain('no such file');
    clock.advance(50);
    expect(host.processes).toHaveLength(0);
    clock.advance(100);
    expect(host.processes).toHaveLength(1);
    expect(worker.state).toBe('starting');
  });

  test('an upgrade drains the old worker only when the new one is ready', () => {
    const { host, clock, worker } = setUp();
    worker.start(config);
    host.processes[0]!.becomes('ready');
    worker.upgrade();
    worker.upgrade();
    const [old, next] = host.processes as [FakeProcess, FakeProcess];
    expect(host.processes).toHaveLength(2);
    expect(worker.current).toBe(old);
    expect(old.drains).toEqual([]);

    next.becomes('ready');
    expect(worker.current).toBe(next);
    expect(worker.state).toBe('ready');
    expect(old.drains).toEqual([{ graceMs: 10_000, reason: 'successor' }]);
    old.becomes('draining');
    expect(worker.state).toBe('ready');
    clock.advance(10_249);
    expect(old.isKilled).toBe(false);
    clock.advance(1);
    expect(old.isKilled).toBe(true);
    expect(worker.state).toBe('ready');
    expect(worker.restarts).toBe(0);
    expect(worker.processes()).toEqual([next]);
  });

  test('a successor that dies leaves the worker alone, and the next one waits', () => {
    const { host, clock, worker } = setUp();
    worker.start(config);
    host.processes[0]!.becomes('ready');
    worker.upgrade();
    host.processes[1]!.listener.onExit('status 1');
    expect(worker.state).toBe('ready');
    expect(worker.current).toBe(host.processes[0]);
    expect(worker.isUpgrading).toBe(false);
    const tries: number[] = [];
    for (let round = 0; round < 3; round++) {
      const startMs = clock.nowMs();
      const before = host.processes.length;
      while (host.processes.length === before) {
        clock.advance(1_000);
        worker.upgrade();
      }
      tries.push(clock.nowMs() - startMs);
      host.processes.at(-1)!.listener.onExit('status 1');
    }
    expect(tries).toEqual([5_000, 10_000, 20_000]);
  });

  test('a successor that is never ready is given up', () => {
    const { host, clock, worker } = setUp();
    worker.start(config);
    host.processes[0]!.becomes('ready');
    worker.upgrade();
    clock.advance(59_999);
    expect(host.processes[1]!.isKilled).toBe(false);
    clock.advance(1);
    expect(host.processes[1]!.isKilled).toBe(true);
    expect(worker.current).toBe(host.processes[0]);
    expect(worker.state).toBe('ready');
  });

  test('only a ready worker is replaced', () => {
    const { host, worker } = setUp();
    worker.start(config);
    worker.upgrade();
    expect(host.processes).toHaveLength(1);
  });

  test('a worker that dies while its successor starts is followed by it', () => {
    const { host, worker } = setUp();
    worker.start(config);
    host.processes[0]!.becomes('ready');
    worker.upgrade();
    host.processes[0]!.listener.onExit('SIGKILL');
    expect(worker.current).toBe(host.processes[1]);
    expect(worker.state).toBe('starting');
    host.processes[1]!.becomes('ready');
    expect(worker.state).toBe('ready');
    expect(host.processes).toHaveLength(2);
  });

  test('bounds how many workers of a pod drain at once', () => {
    const { host, worker } = setUp();
    worker.start(config);
    host.processes[0]!.becomes('ready');
    for (let round = 0; round < RETIRED_MAX + 1; round++) {
      worker.upgrade();
      host.processes.at(-1)!.becomes('ready');
    }
    expect(host.processes.map(({ isKilled }) => isKilled)).toEqual([true, false, false, false]);
    expect(host.gone).toEqual([1001]);
  });

  test('kills a worker that answers no ping', async () => {
    const { host, clock, worker } = setUp();
    worker.start(config);
    host.processes[0]!.becomes('ready');
    for (let round = 0; round < 5; round++) {
      clock.advance(4_000);
      await settle();
    }
    expect(host.processes[0]!.isKilled).toBe(false);
    host.processes[0]!.answersPings = false;
    for (let round = 0; round < 3; round++) {
      expect(host.processes[0]!.isKilled).toBe(false);
      clock.advance(4_000);
      await settle();
    }
    expect(host.processes[0]!.isKilled).toBe(true);
    clock.advance(50);
    expect(host.processes).toHaveLength(2);
  });

  test('stops by draining, then by killing, and starts nothing afterwards', async () => {
    const { host, clock, worker } = setUp();
    worker.start(config);
    host.processes[0]!.becomes('ready');
    worker.upgrade();
    const stopped = worker.stop(200);
    expect(host.processes.map(({ drains }) => drains)).toEqual([
      [{ graceMs: 200, reason: 'shutdown' }],
      [{ graceMs: 200, reason: 'shutdown' }],
    ]);
    host.processes[0]!.listener.onExit('status 0');
    expect(worker.state).toBe('draining');
    clock.advance(450);
    await stopped;
    expect(worker.state).toBe('stopped');
    expect(host.processes[1]!.isKilled).toBe(true);
    clock.advance(100_000);
    expect(host.processes).toHaveLength(2);
  });

  test('stopping while the next start waits, and stopping twice', async () => {
    const { host, clock, worker } = setUp();
    worker.start(config);
    host.processes[0]!.listener.onExit('SIGKILL');
    const waiting = worker.whenReady(5_000);
    await Promise.all([worker.stop(200), worker.stop(200), expect(waiting).rejects.toThrow('the pod goes')]);
    clock.advance(1_000);
    expect(host.processes).toHaveLength(1);
  });

  test('an adopted worker goes on, and its next generation follows its own', () => {
    const { host, clock, worker } = setUp();
    const foundling = new FakeProcess(7);
    foundling.state = { state: 'ready', reason: '', connections: 3, certificateExpires: 0 };
    const draining = new FakeProcess(6);
    worker.adopt({ current: foundling, retired: [draining], generation: 7 }, config);
    expect(worker.state).toBe('ready');
    expect(worker.processes()).toEqual([foundling, draining]);
    expect(foundling.configs).toEqual([config]);
    foundling.listener.onExit('found dead');
    clock.advance(50);
    expect(host.processes[0]!.generation).toBe(8);
    clock.advance(11_000);
    expect(draining.isKilled).toBe(true);
    expect(worker.restarts).toBe(1);
  });

  test('a worker that died while there was no agent is followed by the next', () => {
    const { host, worker } = setUp();
    worker.adopt({ current: null, retired: [], generation: 3 }, config);
    expect(host.processes.map(({ generation }) => generation)).toEqual([4]);
  });

  test('a new configuration reaches every process', () => {
    const { host, worker } = setUp();
    worker.start(config);
    host.processes[0]!.becomes('ready');
    worker.upgrade();
    const next = { logLevel: 'debug' } as WorkerConfig;
    worker.configure(next);
    expect(host.processes.map(({ configs }) => configs.at(-1))).toEqual([next, next]);
  });

  test('an agent that exits lets go of its workers', () => {
    const { host, clock, worker } = setUp();
    worker.start(config);
    worker.release();
    expect(host.processes[0]).toMatchObject({ isReleased: true, isKilled: false, drains: [] });
    clock.advance(100_000);
    expect(host.processes).toHaveLength(1);
  });
});
