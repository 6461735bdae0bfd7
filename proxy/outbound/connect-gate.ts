// Connect back-off of one endpoint: after a failed connection nobody tries for a while, then exactly one attempt
// decides. Without clock: time comes in with each call, the next deadline goes out.

import { Backoff, type BackoffOptions } from '#lib/backoff.ts';

type State =
  | { kind: 'open' }
  | { kind: 'backoff'; untilMs: number }
  /** The back-off is over: the next attempt decides. */
  | { kind: 'trial' }
  | { kind: 'trying' };

export class ConnectGate {
  readonly #backoff: Backoff;
  #state: State = { kind: 'open' };

  constructor(options: BackoffOptions, random: () => number) {
    this.#backoff = new Backoff(options, random);
  }

  get isReady(): boolean {
    return this.#state.kind === 'open' || this.#state.kind === 'trial';
  }

  /** When `onDeadline` wants to be called; infinity when not at all. */
  nextDeadlineMs(): number {
    return this.#state.kind === 'backoff' ? this.#state.untilMs : Number.POSITIVE_INFINITY;
  }

  onDeadline(nowMs: number): void {
    if (this.#state.kind === 'backoff' && nowMs >= this.#state.untilMs) this.#state = { kind: 'trial' };
  }

  /** An attempt begins. */
  onAttempt(): void {
    if (this.#state.kind === 'trial') this.#state = { kind: 'trying' };
  }

  onConnected(): void {
    this.#state = { kind: 'open' };
    this.#backoff.reset();
  }

  /** Attempts that ran side by side fail together: they count once. */
  onFailed(nowMs: number): void {
    if (this.#state.kind === 'backoff' || this.#state.kind === 'trial') return;
    this.#state = { kind: 'backoff', untilMs: nowMs + this.#backoff.next() };
  }

  /** The attempt was given up before it could tell anything. */
  onAborted(): void {
    if (this.#state.kind === 'trying') this.#state = { kind: 'trial' };
  }
}
