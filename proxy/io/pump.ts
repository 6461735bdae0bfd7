// Opaque bytes between two Duplexes, both ways: half-close, backpressure, counters, idle rules, resets.

import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import type { HeddleError } from '#lib/errors.ts';

export interface PumpOptions {
  clock: Clock;
  /** Sent to `right` first: what was read from `left` before the pump began, such as for detection. */
  receivedFromLeft?: Uint8Array;
  /** Sent to `left` first. */
  receivedFromRight?: Uint8Array;
  /** Cut when no byte moved in either direction for this long; 0: never. */
  idleTimeoutMs?: number;
  /** The same once one direction has ended; 0: never. */
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

/** Copies until both streams are gone. Takes both streams' listeners and resumes them. */
export declare function pump(left: Duplex, right: Duplex, options: PumpOptions): Pump;
