// Cuts a byte stream into frames, RFC 9113 section 4.1. A frame that lies whole in the bytes that arrived is passed on
// as a view; only one that straddles two reads is copied.

import { ErrorCode, FRAME_BYTES_DEFAULT, FRAME_HEADER_BYTES } from './constants.ts';
import { Http2Error } from './error.ts';

export interface FrameSink {
  /** The payload is `bytes[start..end)`, valid during the call only. */
  frame(type: number, flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): void;
}

export class FrameReader {
  /** The beginning of a frame whose rest has not arrived; empty most of the time. */
  #held: Uint8Array | null = null;
  #heldBytes = 0;
  /** What our SETTINGS_MAX_FRAME_SIZE says. */
  readonly #frameBytesMax: number;

  constructor(frameBytesMax = FRAME_BYTES_DEFAULT) {
    this.#frameBytesMax = frameBytesMax;
  }

  /** Throws Http2Error FRAME_SIZE_ERROR for a frame above the maximum; passes on what the sink throws. */
  push(bytes: Uint8Array, start: number, end: number, sink: FrameSink): void {
    let at = start;
    while (this.#held !== null && at < end) at = this.#complete(bytes, at, end, sink);
    while (end - at >= FRAME_HEADER_BYTES) {
      const length = this.#length(bytes, at);
      if (end - at < FRAME_HEADER_BYTES + length) break;
      deliver(bytes, at, length, sink);
      at += FRAME_HEADER_BYTES + length;
    }
    if (at < end) this.#hold(bytes, at, end);
  }

  #length(bytes: Uint8Array, at: number): number {
    const length = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
    if (length > this.#frameBytesMax) {
      throw new Http2Error(
        ErrorCode.FRAME_SIZE_ERROR,
        `frame of ${length} bytes, at most ${this.#frameBytesMax} allowed`,
      );
    }
    return length;
  }

  #hold(bytes: Uint8Array, at: number, end: number): void {
    const known = end - at >= FRAME_HEADER_BYTES;
    const room = FRAME_HEADER_BYTES + (known ? this.#length(bytes, at) : 0);
    this.#held = new Uint8Array(room);
    this.#held.set(bytes.subarray(at, end));
    this.#heldBytes = end - at;
  }

  /** Adds to the held frame and delivers it once it is whole. Returns the position behind what was taken. */
  #complete(bytes: Uint8Array, at: number, end: number, sink: FrameSink): number {
    const held = this.#held!;
    const take = Math.min(held.length - this.#heldBytes, end - at);
    held.set(bytes.subarray(at, at + take), this.#heldBytes);
    this.#heldBytes += take;
    if (this.#heldBytes < held.length) return at + take;
    const length = this.#length(held, 0);
    if (held.length < FRAME_HEADER_BYTES + length) {
      // Only the header was known to be needed; now its length is.
      this.#held = new Uint8Array(FRAME_HEADER_BYTES + length);
      this.#held.set(held);
      return at + take;
    }
    this.#held = null;
    deliver(held, 0, length, sink);
    return at + take;
  }
}

function deliver(bytes: Uint8Array, at: number, length: number, sink: FrameSink): void {
  // The highest bit of the stream identifier is reserved and ignored (section 4.1).
  const streamId = ((bytes[at + 5]! & 0x7f) << 24) | (bytes[at + 6]! << 16) | (bytes[at + 7]! << 8) | bytes[at + 8]!;
  const start = at + FRAME_HEADER_BYTES;
  sink.frame(bytes[at + 3]!, bytes[at + 4]!, streamId, bytes, start, start + length);
}
