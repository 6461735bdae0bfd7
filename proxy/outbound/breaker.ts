// Failure accrual of one endpoint (Linkerd's circuit breaking): shuts after N failures in a row or when the success
// rate of a window falls too low, lets exactly one probe through after a back-off, opens on its success. Without clock:
// time comes in with each call, the next deadline goes out.

import { Backoff, type BackoffOptions } from '#lib/backoff.ts';
import type { Outcome } from '../classify.ts';
import { SuccessWindow } from './success-window.ts';

export interface BreakerOptions {
  /** Failures in a row that shut the gate. */
  maxFailures: number;
  backoff: BackoffOptions;
  /** The first back-off is what the server asked for by Retry-After, if it did. */
  respectRetryAfter: boolean;
  /** Null: only failures in a row count. */
  successRate: { threshold: number; windowMs: number; minRequests: number } | null;
}

type State =
  | { kind: 'open' }
  /** Takes nothing until the deadline. */
  | { kind: 'shut'; untilMs: number }
  /** Waits for the one request that decides. */
  | { kind: 'probation' }
  | { kind: 'probing' };

export class Breaker {
  readonly #options: BreakerOptions;
  readonly #backoff: Backoff;
  readonly #window: SuccessWindow | null;
  #state: State = { kind: 'open' };
  #failures = 0;

  constructor(options: BreakerOptions, random: () => number) {
    this.#options = options;
    this.#backoff = new Backoff(options.backoff, random);
    this.#window = options.successRate ? new SuccessWindow(options.successRate.windowMs) : null;
  }

  /** May the endpoint be chosen? */
  get isReady(): boolean {
    return this.#state.kind === 'open' || this.#state.kind === 'probation';
  }

  /** When `onDeadline` wants to be called; infinity when not at all. */
  nextDeadlineMs(): number {
    return this.#state.kind === 'shut' ? this.#state.untilMs : Number.POSITIVE_INFINITY;
  }

  /** Returns true when the endpoint became ready (for one probe). */
  onDeadline(nowMs: number): boolean {
    if (this.#state.kind !== 'shut' || nowMs < this.#state.untilMs) return false;
    this.#state = { kind: 'probation' };
    return true;
  }

  /**
   * A request was dispatched. Returns whether it is the probe: the caller hands that back with its outcome, because
   * answers of requests from before the gate shut decide nothing.
   */
  onDispatch(): boolean {
    if (this.#state.kind !== 'probation') return false;
    this.#state = { kind: 'probing' };
    return true;
  }

  /**
   * A request ended. `limited` lowers the success rate and fails a probe, but is no failure in a row. `retryAfterMs` is what the server asked for, or null. Returns true when readiness may have
   * changed.
   */
  onOutcome(outcome: Outcome, isProbe: boolean, nowMs: number, retryAfterMs: number | null = null): boolean {
    if (isProbe) return this.#onProbe(outcome, nowMs);
    if (this.#state.kind !== 'open') return false;
    if (outcome === 'failure') this.#failures++;
    else if (outcome === 'success') this.#failures = 0;
    this.#window?.record(outcome === 'success', nowMs);
    if (this.#failures < this.#options.maxFailures && !this.#isRateTooLow(nowMs)) return false;
    this.#shut(nowMs, this.#options.respectRetryAfter ? retryAfterMs : null);
    return true;
  }

  /** The probe went away without an answer (the client gave up): the next request is the probe. */
  onProbeAbandoned(): boolean {
    if (this.#state.kind !== 'probing') return false;
    this.#state = { kind: 'probation' };
    return true;
  }

  #onProbe(outcome: Outcome, nowMs: number): boolean {
    if (outcome !== 'success') {
      this.#shut(nowMs, null);
      return true;
    }
    this.#state = { kind: 'open' };
    this.#failures = 0;
    this.#window?.clear();
    this.#backoff.reset();
    return true;
  }

  #shut(nowMs: number, retryAfterMs: number | null): void {
    const delayMs = Math.max(this.#backoff.next(), Math.min(retryAfterMs ?? 0, this.#options.backoff.maxMs));
    this.#state = { kind: 'shut', untilMs: nowMs + delayMs };
  }

  #isRateTooLow(nowMs: number): boolean {
    const { successRate } = this.#options;
    if (!successRate || !this.#window) return false;
    const { total, successes } = this.#window.counts(nowMs);
    return total >= successRate.minRequests && successes / total < successRate.threshold;
  }
}
