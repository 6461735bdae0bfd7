// The targets that connections use now or used a moment ago, one for each original destination.

import { HeddleError } from '#lib/errors.ts';
import type { Original } from './resolve.ts';
import { Target, type TargetOptions } from './target.ts';

/** Each holds two streams to the agent. A pod that scans a network must not take the node's control plane with it. */
export const TARGETS_MAX = 4_096;

export class Discover {
  readonly #options: Omit<TargetOptions, 'onIdle'>;
  readonly #targets = new Map<string, Target>();

  constructor(options: Omit<TargetOptions, 'onIdle'>) {
    this.#options = options;
  }

  get size(): number {
    return this.#targets.size;
  }

  /** Streams that nobody feeds, and since when (worker's clock) the oldest of them; 0 streams when all is well. */
  staleness(): { targets: number; sinceMs: number | null } {
    let targets = 0;
    let sinceMs: number | null = null;
    for (const target of this.#targets.values()) {
      const { staleSinceMs } = target;
      if (staleSinceMs === null) continue;
      targets++;
      sinceMs = Math.min(sinceMs ?? staleSinceMs, staleSinceMs);
    }
    return { targets, sinceMs };
  }

  /** The target, to be acquired at once. Throws `targets-exhausted`. */
  get(original: Original): Target {
    const key = `${original.address}/${original.port}`;
    const known = this.#targets.get(key);
    if (known) return known;
    if (this.#targets.size >= TARGETS_MAX) this.#evict();
    const target = new Target(original, {
      ...this.#options,
      onIdle: () => {
        if (this.#targets.get(key) === target) this.#targets.delete(key);
      },
    });
    this.#targets.set(key, target);
    return target;
  }

  close(): void {
    for (const target of this.#targets.values()) target.close();
    this.#targets.clear();
  }

  /** Makes room: the longest known target without a connection goes. */
  #evict(): void {
    for (const [key, target] of this.#targets) {
      if (target.isUsed) continue;
      this.#targets.delete(key);
      target.close();
      return;
    }
    const message = `discover target: expected fewer than ${TARGETS_MAX} with open connections`;
    throw new HeddleError('targets-exhausted', message, { source: 'downstream' });
  }
}
