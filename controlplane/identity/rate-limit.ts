// A token bucket for each key, with a bound on keys: nodes that ask too often are told to wait, and one node's haste
// costs no other node anything.

export interface RateLimitOptions {
  perSecond: number;
  burst: number;
  /** Keys remembered at once; the longest unused one is forgotten, and starts with a full bucket when it returns. */
  keysMax: number;
}

interface Bucket {
  tokens: number;
  atMs: number;
}

export class RateLimit {
  readonly #options: RateLimitOptions;
  /** In order of last use. */
  readonly #buckets = new Map<string, Bucket>();

  constructor(options: RateLimitOptions) {
    this.#options = options;
  }

  /** Takes one token of `key` at `nowMs` (any clock that only grows); false when there is none. */
  take(key: string, nowMs: number): boolean {
    const { perSecond, burst, keysMax } = this.#options;
    const before = this.#buckets.get(key) ?? { tokens: burst, atMs: nowMs };
    const tokens = Math.min(burst, before.tokens + ((nowMs - before.atMs) / 1000) * perSecond);
    const isAllowed = tokens >= 1;
    this.#buckets.delete(key);
    if (this.#buckets.size >= keysMax) this.#buckets.delete(this.#buckets.keys().next().value!);
    this.#buckets.set(key, { tokens: isAllowed ? tokens - 1 : tokens, atMs: nowMs });
    return isAllowed;
  }
}
