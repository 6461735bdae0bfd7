// Time as a dependency, so that tests and simulations own it.

export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Milliseconds that only grow; fractions count. Not wall time. */
  nowMs(): number;
  /** Wall time in milliseconds since the Unix epoch. */
  wallMs(): number;
  /** Calls `run` once after `delayMs`. The timer does not keep the process alive. */
  after(delayMs: number, run: () => void): Timer;
}

class SystemClock implements Clock {
  nowMs(): number {
    return performance.now();
  }

  wallMs(): number {
    return Date.now();
  }

  after(delayMs: number, run: () => void): Timer {
    const handle = setTimeout(run, Math.min(delayMs, 0x7fffffff));
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  }
}

export const systemClock: Clock = new SystemClock();

/** A clock that stands still until `advance`; timers run in order of their deadline. */
export class FakeClock implements Clock {
  #nowMs = 0;
  #timers: { deadlineMs: number; order: number; run: () => void }[] = [];
  #order = 0;
  readonly #epochMs: number;

  constructor(epochMs = Date.UTC(2026, 0, 1)) {
    this.#epochMs = epochMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#epochMs + this.#nowMs;
  }

  after(delayMs: number, run: () => void): Timer {
    const timer = { deadlineMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, run };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
      },
    };
  }

  /** Moves time forward by `durationMs`, running every timer that falls due, at its own time. */
  advance(durationMs: number): void {
    const untilMs = this.#nowMs + durationMs;
    for (;;) {
      const due = this.#timers
        .filter((timer) => timer.deadlineMs <= untilMs)
        .sort((a, b) => a.deadlineMs - b.deadlineMs || a.order - b.order)[0];
      if (!due) break;
      this.#timers = this.#timers.filter((other) => other !== due);
      this.#nowMs = due.deadlineMs;
      due.run();
    }
    this.#nowMs = untilMs;
  }
}
