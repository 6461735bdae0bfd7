// The load of one endpoint as the balancer sees it: estimated round trip times the requests in flight plus one. One
// request is accounted from its dispatch to the first body bytes of its answer (HTTP) or the end of the connection.

import { PeakEwma, type PeakEwmaOptions } from './peak-ewma.ts';

export class Load {
  readonly #ewma: PeakEwma;
  #pending = 0;

  constructor(options: PeakEwmaOptions, nowMs: number) {
    this.#ewma = new PeakEwma(options, nowMs);
  }

  /** Requests dispatched whose answer has not begun. */
  get pending(): number {
    return this.#pending;
  }

  /** A request is dispatched. The caller keeps the time and calls `finish` exactly once. */
  start(): void {
    this.#pending++;
  }

  /** The request dispatched at `startedMs` was answered, failed or given up: each is an observation. */
  finish(startedMs: number, nowMs: number): void {
    this.#pending--;
    this.#ewma.observe(nowMs - startedMs, nowMs);
  }

  /** A failure counts as if it had taken `penaltyMs`, so that an endpoint that fails fast does not attract traffic. */
  penalize(penaltyMs: number, nowMs: number): void {
    this.#ewma.observe(penaltyMs, nowMs);
  }

  /** What p2c compares; lower is better. */
  cost(nowMs: number): number {
    return this.#ewma.estimate(nowMs) * (this.#pending + 1);
  }
}
