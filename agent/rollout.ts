// Replaces workers of another version, one pod at a time: the next one begins when the one before is ready. A version
// that does not start stops at the first pod, which serves on with its old worker.

import type { Clock, Timer } from '#lib/clock.ts';

/** A pod's worker, as far as this is concerned. */
export interface Replaceable {
  readonly current: { readonly version: string } | null;
  readonly isUpgrading: boolean;
  readonly canUpgrade: boolean;
  upgrade(): void;
}

const LOOK_MS = 250;

export class Rollout {
  readonly #workers: () => readonly Replaceable[];
  readonly #version: string;
  readonly #clock: Clock;
  #timer: Timer | null = null;

  constructor(options: { workers: () => readonly Replaceable[]; version: string; clock: Clock }) {
    this.#workers = options.workers;
    this.#version = options.version;
    this.#clock = options.clock;
  }

  /** Starts what can be started now, and looks again until no worker is outdated. */
  look(): void {
    this.stop();
    const workers = this.#workers();
    const outdated = workers.filter(({ current }) => current !== null && current.version !== this.#version);
    if (outdated.length === 0) return;
    if (!workers.some(({ isUpgrading }) => isUpgrading)) outdated.find(({ canUpgrade }) => canUpgrade)?.upgrade();
    this.#timer = this.#clock.after(LOOK_MS, () => this.look());
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }
}
