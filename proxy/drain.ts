// The end of a worker, in two phases: nothing new is accepted and everything under way may finish; when all is done, or
// the grace is over, the process ends. A successor takes the same listeners meanwhile, so these are let go, not shut.

import type { LinkDrain } from '#api/worker-link.ts';
import type { Clock, Timer } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import type { LiveConnections } from './live-connections.ts';

export interface DrainOptions {
  clock: Clock;
  log: Log;
  live: LiveConnections;
  /** Called once, when the drain begins. */
  stopAccepting(): void;
  /** Called once, at the end: nothing is open any more, or the grace is over. */
  finish(): void;
}

export class Drain {
  readonly #options: DrainOptions;
  #deadline: Timer | null = null;
  #deadlineMs = Number.POSITIVE_INFINITY;
  #isFinished = false;

  constructor(options: DrainOptions) {
    this.#options = options;
  }

  get hasBegun(): boolean {
    return this.#deadline !== null;
  }

  /** Begins, or when it has begun already, brings the end nearer: the earliest deadline holds. */
  begin({ graceMs, reason }: LinkDrain): void {
    const { clock, log, live, stopAccepting } = this.#options;
    const deadlineMs = clock.nowMs() + graceMs;
    if (deadlineMs >= this.#deadlineMs) return;
    const isFirst = this.#deadline === null;
    this.#deadline?.cancel();
    this.#deadlineMs = deadlineMs;
    this.#deadline = clock.after(graceMs, () => this.#cut());
    if (!isFirst) return;
    log.info('draining', { reason, graceMs, connections: live.count });
    stopAccepting();
    live.drain(() => this.#finish());
  }

  #cut(): void {
    const { log, live } = this.#options;
    log.warn('grace is over: connections are cut', { connections: live.count });
    live.cut(new HeddleError('drained', 'connection was open longer than the grace of the drain'));
    this.#finish();
  }

  #finish(): void {
    if (this.#isFinished) return;
    this.#isFinished = true;
    this.#deadline?.cancel();
    this.#options.finish();
  }
}
