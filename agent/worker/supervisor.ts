// Keeps one pod's worker alive. States of a pod: `starting` (a process runs, not ready yet), `ready`, `backoff` (it died,
// the next one waits), `draining` (the pod goes), `stopped`. Besides the current process there may be a successor that
// is not ready yet, and retired ones that finish their connections. The processes come from a host, so that the rules
// are tested without any.

import type { WorkerConfig } from '#api/worker-config.ts';
import type { LinkDrain, LinkState } from '#api/worker-link.ts';
import { Backoff } from '#lib/backoff.ts';
import type { Clock, Timer } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import type { ProcessListener } from './worker-process.ts';

export interface SupervisedProcess {
  readonly pid: number;
  readonly generation: number;
  readonly version: string;
  readonly state: LinkState | null;
  listener: ProcessListener;
  configure(config: WorkerConfig): void;
  drain(drain: LinkDrain): void;
  kill(): void;
  readonly knowsCanaries: boolean;
  ping(timeoutMs: number): Promise<void>;
  canary(token: Uint8Array, timeoutMs: number, signal: AbortSignal): Promise<void>;
  scrape(onChunk: (chunk: Buffer) => void, timeoutMs: number): Promise<void>;
  /** Lets go of it without ending it. */
  release(): void;
}

export interface WorkerHost {
  /** Starts a process on the pod's listeners. Throws `worker-failed`. */
  start(generation: number): SupervisedProcess;
  /** The set of processes changed: for whoever writes it down. */
  changed(): void;
  /** A process is gone, and what was set up for it can go. */
  exited(process: SupervisedProcess): void;
}

export type PodWorkerState = 'starting' | 'ready' | 'backoff' | 'draining' | 'stopped';

export interface SupervisorOptions {
  host: WorkerHost;
  clock: Clock;
  log: Log;
  /** How long a replaced worker may go on with its connections. */
  drainGraceMs: number;
  random?: () => number;
}

const BACKOFF = { minMs: 50, maxMs: 30_000, jitter: 0.2 } as const;
/** A successor that fails is tried again later: its version may be broken, and the worker serves on. */
const UPGRADE_BACKOFF = { minMs: 5_000, maxMs: 300_000, jitter: 0.2 } as const;
/** A successor that is not ready by then has failed. */
const UPGRADE_TIMEOUT_MS = 60_000;
/** A worker that lived this long was not broken by its start: the next restart is quick again. */
const STABLE_MS = 60_000;
/** Added to a grace before the process is killed. */
const KILL_MARGIN_MS = 250;
/** A worker that stopped is replaced within 20 s, also when it stopped right behind an answer. */
const PING_INTERVAL_MS = 4_000;
/** Unanswered pings until a worker counts as hung. */
const PINGS_MISSED_MAX = 3;
/** Retired processes of one pod; the oldest is killed when there are more. */
export const RETIRED_MAX = 2;

interface Waiter {
  resolve: () => void;
  reject: (error: HeddleError) => void;
  timer: Timer;
}

export class PodWorker {
  readonly #options: SupervisorOptions;
  readonly #backoff: Backoff;
  readonly #upgradeBackoff: Backoff;
  #state: PodWorkerState = 'stopped';
  #current: SupervisedProcess | null = null;
  #currentSinceMs = 0;
  #successor: SupervisedProcess | null = null;
  readonly #retired = new Map<SupervisedProcess, Timer>();
  #generation = 0;
  #config: WorkerConfig | null = null;
  #restarts = 0;
  #lastFailure = '';
  #restartTimer: Timer | null = null;
  #upgradeTimer: Timer | null = null;
  #upgradeNotBeforeMs = 0;
  #pingTimer: Timer | null = null;
  #pingsMissed = 0;
  readonly #readyWaiters = new Set<Waiter>();
  readonly #stopWaiters = new Set<() => void>();

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#backoff = new Backoff(BACKOFF, options.random);
    this.#upgradeBackoff = new Backoff(UPGRADE_BACKOFF, options.random);
  }

  get state(): PodWorkerState {
    return this.#state;
  }

  get current(): SupervisedProcess | null {
    return this.#current;
  }

  get generation(): number {
    return this.#generation;
  }

  /** Unplanned deaths since this agent started. */
  get restarts(): number {
    return this.#restarts;
  }

  /** Pings in a row that the current process did not answer. */
  get pingsMissed(): number {
    return this.#pingsMissed;
  }

  /** Why it is not ready, for people; empty when it is. */
  get reason(): string {
    if (this.#state === 'ready') return '';
    if (this.#state === 'starting') return this.#current?.state?.reason || 'worker is starting';
    return this.#lastFailure;
  }

  /** Every live process, the current one first. */
  processes(): SupervisedProcess[] {
    return [this.#current, this.#successor, ...this.#retired.keys()].filter((process) => process !== null);
  }

  /** Starts the first process. A failure is retried with back-off like a death. */
  start(config: WorkerConfig): void {
    this.#config = config;
    this.#launch();
    this.#armPing();
  }

  /**
   * Takes over what an agent before started: the process that serves, or null when it died meanwhile, and those that
   * drain. `generation` is the highest that was ever used.
   */
  adopt(
    found: { current: SupervisedProcess | null; retired: SupervisedProcess[]; generation: number },
    config: WorkerConfig,
  ): void {
    this.#config = config;
    this.#generation = found.generation;
    for (const process of found.retired) {
      process.listener = this.#listenTo(process);
      this.#retire(process, this.#options.drainGraceMs, 'successor');
    }
    if (found.current) this.#become(found.current);
    else this.#launch();
    this.#armPing();
  }

  /** Gives every process a new configuration. */
  configure(config: WorkerConfig): void {
    this.#config = config;
    for (const process of this.processes()) process.configure(config);
  }

  /** Resolves when the pod has a ready worker; rejects with `worker-not-ready` and the worker's own reason. */
  whenReady(timeoutMs: number): Promise<void> {
    if (this.#state === 'ready') return Promise.resolve();
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        waiter.timer.cancel();
        this.#readyWaiters.delete(waiter);
      };
      const waiter: Waiter = {
        resolve: () => {
          settle();
          resolve();
        },
        reject: (error) => {
          settle();
          reject(error);
        },
        timer: this.#options.clock.after(timeoutMs, () => {
          waiter.reject(new HeddleError('worker-not-ready', `wait ${timeoutMs} ms for the worker: ${this.reason}`));
        }),
      };
      this.#readyWaiters.add(waiter);
    });
  }

  /** False while a successor starts, and for a while after one failed. */
  get canUpgrade(): boolean {
    const isTime = this.#options.clock.nowMs() >= this.#upgradeNotBeforeMs;
    return isTime && !this.#successor && this.#current !== null && this.#state === 'ready';
  }

  /** Starts a successor on the same listeners; when it is ready the current process drains. */
  upgrade(): void {
    if (!this.canUpgrade) return;
    try {
      this.#successor = this.#spawn();
    } catch (error) {
      this.#options.log.error('cannot start the successor of the worker', { error });
      this.#upgradeFailed();
      return;
    }
    const successor = this.#successor;
    this.#upgradeTimer = this.#options.clock.after(UPGRADE_TIMEOUT_MS, () => {
      this.#options.log.error('successor of the worker is not ready in time', { worker: successor.pid });
      successor.kill();
    });
    this.#options.host.changed();
  }

  /** Another process in place of the current one: a successor where it still serves, else the one after its death. */
  replace(): void {
    if (this.canUpgrade) this.upgrade();
    else if (!this.#successor) this.#current?.kill();
  }

  #upgradeFailed(): void {
    this.#upgradeTimer?.cancel();
    this.#upgradeNotBeforeMs = this.#options.clock.nowMs() + this.#upgradeBackoff.next();
  }

  get isUpgrading(): boolean {
    return this.#successor !== null;
  }

  /** Drains all processes and resolves when they are gone; after `graceMs` they are killed. */
  stop(graceMs: number): Promise<void> {
    this.#cancelTimers();
    this.failWaiters('the pod goes');
    if (this.#state !== 'stopped') this.#state = 'draining';
    for (const process of this.processes()) this.#retire(process, graceMs, 'shutdown');
    this.#current = null;
    this.#successor = null;
    return new Promise((resolve) => {
      this.#stopWaiters.add(resolve);
      this.#maybeStopped();
    });
  }

  /** Leaves the processes alone: for an agent that exits. */
  release(): void {
    this.#cancelTimers();
    for (const timer of this.#retired.values()) timer.cancel();
    for (const process of this.processes()) process.release();
    this.failWaiters('the agent exits');
  }

  #cancelTimers(): void {
    for (const timer of [this.#restartTimer, this.#pingTimer, this.#upgradeTimer]) timer?.cancel();
  }

  #launch(): void {
    this.#restartTimer = null;
    try {
      this.#become(this.#spawn());
    } catch (error) {
      this.#options.log.error('cannot start the worker', { error });
      this.#backOff(error instanceof Error ? error.message : String(error));
    }
  }

  #spawn(): SupervisedProcess {
    const process = this.#options.host.start(++this.#generation);
    process.listener = this.#listenTo(process);
    process.configure(this.#config!);
    return process;
  }

  #become(process: SupervisedProcess): void {
    process.listener = this.#listenTo(process);
    process.configure(this.#config!);
    this.#current = process;
    this.#currentSinceMs = this.#options.clock.nowMs();
    this.#pingsMissed = 0;
    this.#state = 'starting';
    if (process.state) this.#stateChanged(process, process.state);
    this.#options.host.changed();
  }

  #listenTo(process: SupervisedProcess): ProcessListener {
    return {
      onState: (state) => this.#stateChanged(process, state),
      onExit: (how) => this.#exited(process, how),
    };
  }

  #stateChanged(process: SupervisedProcess, state: LinkState): void {
    if (process === this.#successor && state.state === 'ready') {
      this.#promote();
      return;
    }
    if (process !== this.#current || (this.#state !== 'starting' && this.#state !== 'ready')) return;
    if (state.state === 'ready') {
      this.#state = 'ready';
      for (const waiter of [...this.#readyWaiters]) waiter.resolve();
    } else if (state.state === 'starting') {
      this.#state = 'starting';
    }
  }

  #promote(): void {
    const old = this.#current;
    const next = this.#successor!;
    this.#successor = null;
    this.#upgradeTimer?.cancel();
    this.#upgradeBackoff.reset();
    this.#become(next);
    if (old) this.#retire(old, this.#options.drainGraceMs, 'successor');
    this.#options.log.info('worker was replaced', { worker: next.pid, version: next.version, before: old?.pid });
  }

  #retire(process: SupervisedProcess, graceMs: number, reason: LinkDrain['reason']): void {
    this.#retired.get(process)?.cancel();
    process.drain({ graceMs, reason });
    const timer = this.#options.clock.after(graceMs + KILL_MARGIN_MS, () => process.kill());
    this.#retired.set(process, timer);
    for (const oldest of this.#retired.keys()) {
      if (this.#retired.size <= RETIRED_MAX || reason === 'shutdown') break;
      this.#options.log.warn('too many workers drain at once: the oldest is killed', { worker: oldest.pid });
      this.#retired.get(oldest)!.cancel();
      this.#retired.delete(oldest);
      oldest.kill();
    }
  }

  #exited(process: SupervisedProcess, how: string): void {
    const { host, log } = this.#options;
    this.#retired.get(process)?.cancel();
    const wasRetired = this.#retired.delete(process);
    host.exited(process);
    if (process === this.#successor) {
      this.#successor = null;
      this.#upgradeFailed();
      log.error('successor of the worker died before it was ready: the worker stays', { worker: process.pid, how });
    } else if (process === this.#current) {
      this.#current = null;
      this.#restarts++;
      log.error('worker died', { worker: process.pid, how, state: this.#state });
      if (this.#successor) {
        const next = this.#successor;
        this.#successor = null;
        this.#upgradeTimer?.cancel();
        this.#become(next);
      } else this.#backOff(`worker died: ${how}`);
    } else if (wasRetired) {
      log.debug('worker is drained', { worker: process.pid, how });
    }
    host.changed();
    this.#maybeStopped();
  }

  #backOff(failure: string): void {
    this.#state = 'backoff';
    this.#lastFailure = failure;
    if (this.#options.clock.nowMs() - this.#currentSinceMs >= STABLE_MS) this.#backoff.reset();
    this.#restartTimer = this.#options.clock.after(this.#backoff.next(), () => this.#launch());
  }

  #armPing(): void {
    this.#pingTimer = this.#options.clock.after(PING_INTERVAL_MS, () => {
      this.#armPing();
      const process = this.#current;
      if (process) {
        this.#ping(process).catch((error: unknown) => this.#missed(process, error));
      }
    });
  }

  async #ping(process: SupervisedProcess): Promise<void> {
    await process.ping(PING_INTERVAL_MS);
    if (process === this.#current) this.#pingsMissed = 0;
  }

  #missed(process: SupervisedProcess, error: unknown): void {
    if (process !== this.#current || ++this.#pingsMissed < PINGS_MISSED_MAX) return;
    this.#options.log.error('worker does not answer: it is killed', { worker: process.pid, error });
    this.#pingsMissed = 0;
    process.kill();
  }

  #maybeStopped(): void {
    if (this.#state !== 'draining' && this.#state !== 'stopped') return;
    if (this.#retired.size > 0) return;
    this.#state = 'stopped';
    for (const resolve of this.#stopWaiters) resolve();
    this.#stopWaiters.clear();
  }

  /** Ends all waiting for readiness. */
  failWaiters(why: string): void {
    for (const waiter of [...this.#readyWaiters]) {
      waiter.reject(new HeddleError('worker-not-ready', `wait for the worker: ${why}`));
    }
  }
}
