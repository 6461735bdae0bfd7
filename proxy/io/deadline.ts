// A deadline that moves with every message costs no timer operation: the timer that runs is left alone, and looks when
// it fires whether the deadline has moved.

import type { Clock, Timer } from '#lib/clock.ts';

export class Deadline {
  readonly #clock: Clock;
  readonly #onDue: () => void;
  #dueMs = Number.POSITIVE_INFINITY;
  #armedMs = Number.POSITIVE_INFINITY;
  #timer: Timer | null = null;

  constructor(clock: Clock, onDue: () => void) {
    this.#clock = clock;
    this.#onDue = onDue;
  }

  /** `onDue` is called once at `dueMs` on the clock, unless the deadline is moved or cleared before. */
  set(dueMs: number): void {
    this.#dueMs = dueMs;
    if (dueMs < this.#armedMs) this.#arm(dueMs - this.#clock.nowMs());
  }

  clear(): void {
    this.#dueMs = Number.POSITIVE_INFINITY;
  }

  /** Clears the deadline and stops the timer: for the end of the owner. */
  dispose(): void {
    this.clear();
    this.#timer?.cancel();
    this.#timer = null;
    this.#armedMs = Number.POSITIVE_INFINITY;
  }

  #arm(delayMs: number): void {
    this.#timer?.cancel();
    this.#armedMs = this.#dueMs;
    this.#timer = this.#clock.after(Math.max(0, delayMs), () => this.#fire());
  }

  #fire(): void {
    this.#timer = null;
    this.#armedMs = Number.POSITIVE_INFINITY;
    if (this.#dueMs === Number.POSITIVE_INFINITY) return;
    const leftMs = this.#dueMs - this.#clock.nowMs();
    if (leftMs > 0) {
      this.#arm(leftMs);
      return;
    }
    this.#dueMs = Number.POSITIVE_INFINITY;
    this.#onDue();
  }
}
