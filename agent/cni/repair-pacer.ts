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
  /** Free repairs within the window. */
  #repairsMs: number[] = [];
  /** Delay after the last repair of a war; 0 in peace. */
  #delayMs = 0;
  #lastRepairMs = 0;

  constructor(pace: RepairPace = REPAIR_PACE, random: () => number = Math.random) {
    this.#pace = pace;
    this.#backoff = new Backoff({ minMs: pace.minMs, maxMs: pace.maxMs, jitter: 0.2 }, random);
  }

  /** True while repairs are delayed. Quiet ends a war: a window, or as long again as the last delay. */
  isWar(nowMs: number): boolean {
    if (this.#delayMs === 0) return false;
    if (nowMs - this.#lastRepairMs < Math.max(this.#pace.windowMs, 2 * this.#delayMs)) return true;
    this.#delayMs = 0;
    this.#repairsMs = [];
    this.#backoff.reset();
    return false;
  }

  /** Milliseconds until a repair may be done; 0 for now. */
  waitMs(nowMs: number): number {
    return this.isWar(nowMs) ? Math.max(0, this.#lastRepairMs + this.#delayMs - nowMs) : 0;
  }

  /** Notes that a repair was done. */
  repaired(nowMs: number): void {
    const isWar = this.isWar(nowMs);
    this.#lastRepairMs = nowMs;
    if (!isWar) {
      this.#repairsMs = [...this.#repairsMs, nowMs].filter((atMs) => nowMs - atMs < this.#pace.windowMs);
      if (this.#repairsMs.length < this.#pace.freeRepairs) return;
    }
    this.#delayMs = this.#backoff.next();
  }
}
