// Fail-fast: when nothing has been ready for a while, waiting is pointless. The gate shuts, everything queued and new
// fails at once, and it opens with the first endpoint that is ready again. Without clock: deadlines go out, time comes in.

export class FailFast {
  readonly #timeoutMs: number;
  #deadlineMs = Number.POSITIVE_INFINITY;
  #isOpen = true;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** False: fail at once instead of waiting. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** When `onDeadline` wants to be called; infinity when not at all. */
  nextDeadlineMs(): number {
    return this.#deadlineMs;
  }

  /** A request has to wait because nothing is ready. The first one starts the time limit for all. */
  onWaiting(nowMs: number): void {
    if (this.#isOpen && this.#deadlineMs === Number.POSITIVE_INFINITY) this.#deadlineMs = nowMs + this.#timeoutMs;
  }

  /** Something is ready. Returns true when that opened the gate. */
  onReady(): boolean {
    const wasShut = !this.#isOpen;
    this.#isOpen = true;
    this.#deadlineMs = Number.POSITIVE_INFINITY;
    return wasShut;
  }

  /** Nobody waits any more, so that nobody knows whether anything would be ready. */
  onEmpty(): void {
    this.#deadlineMs = Number.POSITIVE_INFINITY;
  }

  /** Returns true when the time limit passed and the gate shut. */
  onDeadline(nowMs: number): boolean {
    if (nowMs < this.#deadlineMs) return false;
    this.#deadlineMs = Number.POSITIVE_INFINITY;
    this.#isOpen = false;
    return true;
  }
}
