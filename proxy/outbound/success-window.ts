// How many of the requests of the last while succeeded: exact counts in ten buckets that together span the window.

const BUCKETS = 10;

export class SuccessWindow {
  readonly #bucketMs: number;
  readonly #total = new Uint32Array(BUCKETS);
  readonly #successes = new Uint32Array(BUCKETS);
  /** Number of the newest bucket since time zero; the ring index is its remainder. */
  #newest = 0;

  constructor(windowMs: number) {
    this.#bucketMs = Math.max(1, windowMs / BUCKETS);
  }

  record(isSuccess: boolean, nowMs: number): void {
    const index = this.#advance(nowMs);
    this.#total[index]!++;
    if (isSuccess) this.#successes[index]!++;
  }

  counts(nowMs: number): { total: number; successes: number } {
    this.#advance(nowMs);
    let total = 0;
    let successes = 0;
    for (let index = 0; index < BUCKETS; index++) {
      total += this.#total[index]!;
      successes += this.#successes[index]!;
    }
    return { total, successes };
  }

  clear(): void {
    this.#total.fill(0);
    this.#successes.fill(0);
  }

  /** Empties the buckets that fell out of the window; returns the index of the current one. */
  #advance(nowMs: number): number {
    const current = Math.floor(nowMs / this.#bucketMs);
    const expired = Math.min(BUCKETS, current - this.#newest);
    for (let step = 1; step <= expired; step++) {
      const index = (current - expired + step) % BUCKETS;
      this.#total[index] = 0;
      this.#successes[index] = 0;
    }
    this.#newest = Math.max(this.#newest, current);
    return this.#newest % BUCKETS;
  }
}
