// What a peer may do that costs us more than it costs the peer: resets, pings, settings, empty frames. Each such frame
// takes one from a bucket that refills with time, as in HAProxy's glitches and nghttp2's reset rate. An honest peer
// never gets near; a flood ends with ENHANCE_YOUR_CALM.

export class GlitchBudget {
  readonly #burst: number;
  readonly #perSecond: number;
  #left: number;
  #filledMs = 0;

  constructor(options: { burst: number; perSecond: number }) {
    this.#burst = options.burst;
    this.#perSecond = options.perSecond;
    this.#left = options.burst;
  }

  /** Takes one; false when there is none left. */
  take(nowMs: number): boolean {
    if (nowMs > this.#filledMs) {
      this.#left = Math.min(this.#burst, this.#left + ((nowMs - this.#filledMs) * this.#perSecond) / 1000);
      this.#filledMs = nowMs;
    }
    if (this.#left < 1) return false;
    this.#left--;
    return true;
  }
}
