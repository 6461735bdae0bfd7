// How many retries a service may cost: a share of the requests of the last while plus a floor per second, so that
// retries cannot multiply an overload (Finagle's retry budget, as ServiceProfiles have it). Without clock.

export interface RetryBudgetOptions {
  /** Retries per request. */
  retryRatio: number;
  minRetriesPerSecond: number;
  ttlMs: number;
}

export const DEFAULT_RETRY_BUDGET: RetryBudgetOptions = { retryRatio: 0.2, minRetriesPerSecond: 10, ttlMs: 10_000 };

const BUCKETS = 10;

export class RetryBudget {
  readonly #retryRatio: number;
  readonly #bucketMs: number;
  /** Retries that the floor allows within the ttl. */
  readonly #reserve: number;
  /** Balance of each bucket in retries: deposits less withdrawals. */
  readonly #balance = new Float64Array(BUCKETS);
  #newest = 0;

  constructor(options: RetryBudgetOptions) {
    this.#retryRatio = options.retryRatio;
    this.#bucketMs = Math.max(1, options.ttlMs / BUCKETS);
    this.#reserve = (options.minRetriesPerSecond * options.ttlMs) / 1000;
  }

  /** A request was answered that needs no retry. */
  deposit(nowMs: number): void {
    this.#balance[this.#advance(nowMs)]! += this.#retryRatio;
  }

  /** Takes one retry out of the budget; false when it is spent. */
  withdraw(nowMs: number): boolean {
    const index = this.#advance(nowMs);
    let balance = this.#reserve;
    for (let bucket = 0; bucket < BUCKETS; bucket++) balance += this.#balance[bucket]!;
    // Ratios such as 0.2 add up to a hair less than a whole.
    if (balance < 1 - 1e-9) return false;
    this.#balance[index]! -= 1;
    return true;
  }

  #advance(nowMs: number): number {
    const current = Math.floor(nowMs / this.#bucketMs);
    const expired = Math.min(BUCKETS, current - this.#newest);
    for (let step = 1; step <= expired; step++) this.#balance[(current - expired + step) % BUCKETS] = 0;
    this.#newest = Math.max(this.#newest, current);
    return this.#newest % BUCKETS;
  }
}
