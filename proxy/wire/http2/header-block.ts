// Puts HEADERS and CONTINUATION together, RFC 9113 section 6.10. Nothing else may come between them, and both their
// number and their bytes are bounded: a block that never ends is an attack (CVE-2024-27983 and its kin).

import { ErrorCode } from './constants.ts';
import { Http2Error } from './error.ts';

export interface BlockStart {
  streamId: number;
  endStream: boolean;
  /** The stream that this one says it depends on, or null; only the check of section 5.3.1 of RFC 7540 is left of it. */
  dependsOn: number | null;
}

export class HeaderBlockAssembler {
  readonly #bytesMax: number;
  readonly #framesMax: number;
  #start: BlockStart | null = null;
  #parts: Uint8Array[] = [];
  #bytes = 0;

  constructor(options: { bytesMax: number; framesMax: number }) {
    this.#bytesMax = options.bytesMax;
    this.#framesMax = options.framesMax;
  }

  /** The block that waits for CONTINUATION, or null. */
  get open(): BlockStart | null {
    return this.#start;
  }

  begin(start: BlockStart, part: Uint8Array): void {
    this.#start = start;
    this.#add(part);
  }

  /** Adds a CONTINUATION of `streamId`. Throws Http2Error when it does not belong or the bounds are passed. */
  continue(streamId: number, part: Uint8Array): void {
    if (this.#start === null || this.#start.streamId !== streamId) {
      throw new Http2Error(ErrorCode.PROTOCOL_ERROR, `CONTINUATION of stream ${streamId} without its HEADERS`);
    }
    this.#add(part);
  }

  /** Takes the whole block and gets ready for the next. */
  finish(): { start: BlockStart; block: Uint8Array } {
    const start = this.#start!;
    const block = new Uint8Array(this.#bytes);
    let at = 0;
    for (const part of this.#parts) {
      block.set(part, at);
      at += part.length;
    }
    this.#start = null;
    this.#parts = [];
    this.#bytes = 0;
    return { start, block };
  }

  #add(part: Uint8Array): void {
    this.#bytes += part.length;
    if (this.#bytes > this.#bytesMax || this.#parts.length >= this.#framesMax) {
      throw new Http2Error(
        ErrorCode.ENHANCE_YOUR_CALM,
        `header block above ${this.#bytesMax} bytes or ${this.#framesMax} frames`,
      );
    }
    // A copy: the bytes are the reader's. (`slice` of a Buffer would be a view.)
    this.#parts.push(new Uint8Array(part));
  }
}
