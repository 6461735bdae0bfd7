// Peak-EWMA: how long an endpoint takes, pessimistically. A slower answer than the estimate replaces it at once, a
// faster one pulls it down with the time constant `decayMs`, and so does silence: an endpoint that was slow is tried
// again after a while. Finagle's "Peak EWMA" load metric, with the parameters of Linkerd's proxy.

export interface PeakEwmaOptions {
  /** Assumed before the first answer. */
  defaultRttMs: number;
  /** Time constant: an estimate shrinks to 1/e of itself in this long. */
  decayMs: number;
}

export const DEFAULT_PEAK_EWMA: PeakEwmaOptions = { defaultRttMs: 30, decayMs: 10_000 };

export class PeakEwma {
  #decayMs: number;
  #rttMs: number;
  #updatedMs: number;

  constructor(options: PeakEwmaOptions, nowMs: number) {
    this.#decayMs = options.decayMs;
    this.#rttMs = options.defaultRttMs;
    this.#updatedMs = nowMs;
  }

  /** An answer took `rttMs` and was complete at `nowMs`. */
  observe(rttMs: number, nowMs: number): void {
    if (rttMs > this.#rttMs) {
      this.#rttMs = rttMs;
    } else {
      const kept = Math.exp(-Math.max(0, nowMs - this.#updatedMs) / this.#decayMs);
      this.#rttMs = this.#rttMs * kept + rttMs * (1 - kept);
    }
    this.#updatedMs = nowMs;
  }

  /** The estimate at `nowMs` in milliseconds. Asking decays it, as an answer in no time would. */
  estimate(nowMs: number): number {
    this.observe(0, nowMs);
    return this.#rttMs;
  }
}
