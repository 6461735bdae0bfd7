// The receiving half of flow control, RFC 9113 section 5.2: what the peer may still send, and when it is given more.
// Bytes are given back once the user has passed them on, so that a slow reader holds at most its windows.

import type { ByteWriter } from '#lib/byte-writer.ts';
import { ErrorCode } from './constants.ts';
import { Http2Error } from './error.ts';
import { writeWindowUpdate } from './frame-writer.ts';
import type { Http2Stream } from './stream.ts';

export class ReceiveWindow {
  readonly #out: ByteWriter;
  readonly #connectionBytes: number;
  readonly #streamBytes: number;
  #window: number;
  #uncredited = 0;

  constructor(out: ByteWriter, connectionBytes: number, streamBytes: number) {
    this.#out = out;
    this.#connectionBytes = connectionBytes;
    this.#streamBytes = streamBytes;
    this.#window = connectionBytes;
  }

  /** Counts a DATA frame, padding included. Throws Http2Error when the peer had no window for it. */
  take(length: number, stream: Http2Stream<unknown> | undefined): void {
    if (length > this.#window) throw new Http2Error(ErrorCode.FLOW_CONTROL_ERROR, 'DATA beyond the connection window');
    this.#window -= length;
    if (stream === undefined) return;
    if (length > stream.receiveWindow) {
      this.creditConnection(length);
      throw new Http2Error(ErrorCode.FLOW_CONTROL_ERROR, 'DATA beyond the stream window', stream.id);
    }
    stream.receiveWindow -= length;
    stream.uncredited += length;
  }

  /** Gives back what a stream's user has passed on, in steps of half a window. */
  credit(stream: Http2Stream<unknown>): void {
    const bytes = stream.uncredited;
    if (bytes === 0 || stream.isPaused) return;
    if (stream.isRemoteEnded) {
      stream.uncredited = 0;
      this.creditConnection(bytes);
      return;
    }
    if (bytes * 2 < this.#streamBytes && this.#window * 2 > this.#connectionBytes) return;
    stream.uncredited = 0;
    stream.receiveWindow += bytes;
    writeWindowUpdate(this.#out, stream.id, bytes);
    this.creditConnection(bytes);
  }

  /** Gives back bytes that no stream holds. */
  creditConnection(bytes: number): void {
    this.#uncredited += bytes;
    if (this.#uncredited * 2 < this.#connectionBytes && this.#window * 4 > this.#connectionBytes) return;
    writeWindowUpdate(this.#out, 0, this.#uncredited);
    this.#window += this.#uncredited;
    this.#uncredited = 0;
  }

  /** A stream is over: what it held goes back. */
  release(stream: Http2Stream<unknown>): void {
    if (stream.uncredited > 0) this.creditConnection(stream.uncredited);
    stream.uncredited = 0;
  }
}
