// One stream's state, RFC 9113 section 5.1: two ends that close, two windows, and the bytes that wait for the peer's.

import type { Headers } from '../../http.ts';

/** What goes out behind the queued bytes. */
export type StreamEnd = { trailers: Headers | null } | null;

/** `User` is what the driver keeps with the stream: its exchange. */
export class Http2Stream<User> {
  readonly id: number;
  user: User | null = null;
  /** The peer sent END_STREAM or RST_STREAM; the same for our side. */
  isRemoteEnded = false;
  isLocalEnded = false;
  /** The final (not 1xx) head has arrived: a second block is trailers. */
  hasHead = false;
  /** A HEAD request or a response without content: Content-Length says nothing about DATA (section 8.1.1). */
  isBodyless = false;
  /** What the peer still lets us send; negative after it lowered SETTINGS_INITIAL_WINDOW_SIZE (section 6.9.2). */
  sendWindow: number;
  /** What we still let the peer send. */
  receiveWindow: number;
  /** Bytes the user has taken that were not given back to the peer's window yet. */
  uncredited = 0;
  /** The user asked for a pause: its bytes are not credited. */
  isPaused = false;
  /** Content-Length less what arrived; null where it was not told. */
  bodyBytesLeft: number | null = null;
  readonly queue: Uint8Array[] = [];
  queuedBytes = 0;
  end: StreamEnd = null;
  /** `sendData` returned false: the user waits for a drain. */
  wantsDrain = false;

  constructor(id: number, sendWindow: number, receiveWindow: number) {
    this.id = id;
    this.sendWindow = sendWindow;
    this.receiveWindow = receiveWindow;
  }

  get isClosed(): boolean {
    return this.isRemoteEnded && this.isLocalEnded;
  }
}

/** Why a stream that is no longer there ended: it decides how late frames are answered (section 5.1, "closed"). */
export type ClosedBy = 'both-ended' | 'reset-by-peer' | 'reset-by-us';

/** Remembers the last streams that closed; older ones are treated as ended. */
export class ClosedStreams {
  readonly #ring: Int32Array;
  readonly #reasons = new Map<number, ClosedBy>();
  #at = 0;

  constructor(remembered: number) {
    this.#ring = new Int32Array(remembered);
  }

  add(id: number, reason: ClosedBy): void {
    const oldest = this.#ring[this.#at]!;
    if (oldest !== 0) this.#reasons.delete(oldest);
    this.#ring[this.#at] = id;
    this.#at = (this.#at + 1) % this.#ring.length;
    this.#reasons.set(id, reason);
  }

  get(id: number): ClosedBy | undefined {
    return this.#reasons.get(id);
  }
}
