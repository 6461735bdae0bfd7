// When to repair a configuration that somebody else rewrites: at once as a rule, ever more slowly in a war. A war wears
// out the runtime, which reloads at each write, and is not won by the faster; it is ended by whoever is told of it.

import { Backoff } from '#lib/backoff.ts';

export interface RepairPace {
  /** Repairs that are done at once within `windowMs`; the next ones wait. */
  freeRepairs: number;
  windowMs: number;
  minMs: number;
  maxMs: number;
}

export const REPAIR_PACE: RepairPace = { freeRepairs: 5, windowMs: 60_000, minMs: 1_000, maxMs: 60_000 };

export class RepairPacer {
  readonly #pace: RepairPace;
  readonly #backoff: Backoff;
  #repairsMs: number[] = [];
  #notBeforeMs = 0;

  constructor(pace: RepairPace = REPAIR_PACE, random: () => number = Math.random) {
    this.#pace = pace;
    this.#backoff = new Backoff({ minMs: pace.minMs, maxMs: pace.maxMs, jitter: 0.2 }, random);
  }

  /** True while repairs are delayed. */
  isWar(nowMs: number): boolean {
    this.#forget(nowMs);
    return this.#repairsMs.length >= this.#pace.freeRepairs;
  }

  /** Milliseconds until a repair may be done; 0 for now. */
  waitMs(nowMs: number): number {
    return this.isWar(nowMs) ? Math.max(0, this.#notBeforeMs - nowMs) : 0;
  }

  /** Notes that a repair was done. */
  repaired(nowMs: number): void {
    this.#repairsMs.push(nowMs);
    if (this.isWar(nowMs)) this.#notBeforeMs = nowMs + this.#backoff.next();
  }

  /** Only what is within the window counts; with the last free repair forgotten the peace is back. */
  #forget(nowMs: number): void {
    const wasWar = this.#repairsMs.length >= this.#pace.freeRepairs;
    // While repairs are delayed the window reaches back over the delay, else the delay itself would end the war.
    const windowMs = Math.max(this.#pace.windowMs, 2 * (this.#notBeforeMs - (this.#repairsMs.at(-1) ?? 0)));
    this.#repairsMs = this.#repairsMs.filter((atMs) => nowMs - atMs < windowMs).slice(-this.#pace.freeRepairs);
    if (wasWar && this.#repairsMs.length < this.#pace.freeRepairs) this.#backoff.reset();
  }
}
