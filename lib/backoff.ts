// Exponential back-off with jitter, as a value: no timer, no clock. The owner asks for the next delay and arms its own
// timer with it.

export interface BackoffOptions {
  minMs: number;
  maxMs: number;
  /** Share of the delay added at random: 0 none, 0.5 up to half as much again. */
  jitter: number;
}

export class Backoff {
  readonly #options: BackoffOptions;
  readonly #random: () => number;
  #nextMs: number;

  /** `random` returns numbers in [0, 1), so that simulations can seed it. */
  constructor(options: BackoffOptions, random: () => number = Math.random) {
    this.#options = options;
    this.#random = random;
    this.#nextMs = options.minMs;
  }

  /** Milliseconds to wait before the next attempt. Doubles from `minMs` to `maxMs`; jitter comes on top. */
  next(): number {
    const baseMs = this.#nextMs;
    this.#nextMs = Math.min(this.#options.maxMs, baseMs * 2);
    return baseMs * (1 + this.#random() * this.#options.jitter);
  }

  /** An attempt succeeded: the next failure starts at `minMs` again. */
  reset(): void {
    this.#nextMs = this.#options.minMs;
  }
}
