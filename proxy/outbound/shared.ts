// Things that several owners share by key and that outlive the last of them for a while: a backend keeps its
// connections and its measured latencies when a policy update composes the stack anew.

import type { Clock, Timer } from '#lib/clock.ts';

interface Entry<T> {
  value: T;
  owners: number;
  idle: Timer | null;
}

export interface Lease<T> {
  readonly value: T;
  /** Idempotent. */
  release(): void;
}

export class Shared<T extends { close(): void }> {
  readonly #clock: Clock;
  readonly #idleMs: () => number;
  readonly #entries = new Map<string, Entry<T>>();

  /** `idleMs`: how long a thing lives on without owner. */
  constructor(clock: Clock, idleMs: () => number) {
    this.#clock = clock;
    this.#idleMs = idleMs;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The thing of that key, made if there is none. */
  acquire(key: string, make: () => T): Lease<T> {
    let entry = this.#entries.get(key);
    if (!entry) {
      entry = { value: make(), owners: 0, idle: null };
      this.#entries.set(key, entry);
    }
    entry.owners++;
    entry.idle?.cancel();
    entry.idle = null;
    return this.#lease(key, entry);
  }

  /** Closes everything at once, owned or not. */
  close(): void {
    for (const entry of this.#entries.values()) {
      entry.idle?.cancel();
      entry.value.close();
    }
    this.#entries.clear();
  }

  #lease(key: string, entry: Entry<T>): Lease<T> {
    let isHeld = true;
    return {
      value: entry.value,
      release: () => {
        if (!isHeld) return;
        isHeld = false;
        if (--entry.owners > 0 || this.#entries.get(key) !== entry) return;
        entry.idle = this.#clock.after(this.#idleMs(), () => {
          this.#entries.delete(key);
          entry.value.close();
        });
      },
    };
  }
}
