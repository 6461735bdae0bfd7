// Opaque bytes between two Duplexes, both ways: half-close, backpressure, counters, idle rules, resets.

import type { Clock } from '#lib/clock.ts';
import type { Duplex, DuplexListener } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import { Deadline } from './deadline.ts';

export interface PumpOptions {
  clock: Clock;
  /** Sent to `right` first: what was read from `left` before the pump began, such as for detection. */
  receivedFromLeft?: Uint8Array;
  /** Sent to `left` first. */
  receivedFromRight?: Uint8Array;
  /** Cut when no byte moved in either direction for this long; 0 or absent: never, as Linkerd does. */
  idleTimeoutMs?: number;
  /** The same once one direction has ended; 0: never. Absent: HALF_CLOSED_TIMEOUT_MS. */
  halfClosedTimeoutMs?: number;
  /** Called once, when both streams are gone. Null: both directions ended in order. */
  onDone?(error: HeddleError | null): void;
}

export interface Pump {
  /** Bytes that went from left to right. */
  readonly bytesLeftToRight: number;
  readonly bytesRightToLeft: number;
  /** Cuts both streams. Idempotent. */
  close(error?: HeddleError): void;
}

/** A peer that never answers our FIN would otherwise hold the pair for good. */
export const HALF_CLOSED_TIMEOUT_MS = 3_600_000;

/** Copies until both streams are gone. Takes both streams' listeners and resumes them. */
export function pump(left: Duplex, right: Duplex, options: PumpOptions): Pump {
  return new DuplexPump(left, right, options);
}

class DuplexPump implements Pump {
  readonly #left: PumpSide;
  readonly #right: PumpSide;
  readonly #options: PumpOptions;
  readonly #idle: Deadline;
  #idleMs: number;
  #closed = 0;
  #error: HeddleError | null = null;

  constructor(left: Duplex, right: Duplex, options: PumpOptions) {
    this.#options = options;
    this.#idleMs = options.idleTimeoutMs ?? 0;
    this.#idle = new Deadline(options.clock, () => this.#onIdle());
    this.#left = new PumpSide(this, left, right);
    this.#right = new PumpSide(this, right, left);
    this.#left.start(options.receivedFromLeft);
    this.#right.start(options.receivedFromRight);
    this.moved();
  }

  get bytesLeftToRight(): number {
    return this.#left.bytes;
  }

  get bytesRightToLeft(): number {
    return this.#right.bytes;
  }

  close(error: HeddleError = new HeddleError('pump-closed', 'closed by its user')): void {
    this.#error ??= error;
    this.#left.from.reset(error);
    this.#right.from.reset(error);
  }

  /** Bytes went either way. */
  moved(): void {
    if (this.#idleMs > 0) this.#idle.set(this.#options.clock.nowMs() + this.#idleMs);
  }

  /** One direction ended. */
  halfClosed(): void {
    this.#idleMs = this.#options.halfClosedTimeoutMs ?? HALF_CLOSED_TIMEOUT_MS;
    this.moved();
  }

  sideClosed(side: PumpSide, error: HeddleError | null): void {
    this.#error ??= error;
    const other = side === this.#left ? this.#right : this.#left;
    // A stream that did not end in order must not look to the other peer as if it had.
    if (error !== null) other.from.reset(error);
    if (++this.#closed < 2) return;
    this.#idle.dispose();
    this.#options.onDone?.(this.#error);
  }

  #onIdle(): void {
    this.close(new HeddleError('idle-timeout', `pass bytes: expected some within ${this.#idleMs} ms`));
  }
}

/** One direction: reads `from`, writes `to`. */
class PumpSide implements DuplexListener {
  bytes = 0;
  readonly from: Duplex;
  readonly #to: Duplex;
  readonly #pump: DuplexPump;

  constructor(owner: DuplexPump, from: Duplex, to: Duplex) {
    this.#pump = owner;
    this.from = from;
    this.#to = to;
  }

  start(received: Uint8Array | undefined): void {
    this.from.listener = this;
    if (received === undefined || received.length === 0 || this.#forward(received)) this.from.resume();
    else this.from.pause();
  }

  onData(buffer: Buffer, start: number, end: number): void {
    if (!this.#forward(buffer.subarray(start, end))) this.from.pause();
    this.#pump.moved();
  }

  onEnd(): void {
    this.#to.end();
    this.#pump.halfClosed();
  }

  /** `from` can be written again: whoever reads the other side goes on. */
  onDrain(): void {
    this.#to.resume();
  }

  onClose(error: HeddleError | null): void {
    this.#pump.sideClosed(this, error);
  }

  #forward(bytes: Uint8Array): boolean {
    this.bytes += bytes.length;
    return this.#to.write(bytes);
  }
}
