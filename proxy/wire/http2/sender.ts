// The sending half of a connection: the peer's two windows (RFC 9113 section 5.2), the bytes that wait for them, and
// the output that the driver takes once a turn, so that all frames of a turn leave in one write.

import { ByteWriter } from '#lib/byte-writer.ts';
import type { Headers, RequestHead, ResponseHead } from '../../http.ts';
import { HeaderList } from '../headers.ts';
import { HpackEncoder } from '../hpack/encoder.ts';
import { ErrorCode, Flag, FRAME_HEADER_BYTES, WINDOW_DEFAULT, WINDOW_MAX } from './constants.ts';
import { Http2Error } from './error.ts';
import { finishHeaderBlock, writeData } from './frame-writer.ts';
import { encodeRequest, encodeResponse, encodeTrailers } from './message.ts';
import type { Settings } from './settings.ts';
import type { Http2Stream } from './stream.ts';

/** DATA stops going into the output here until the driver has taken it: what waits stays in the streams' queues. */
const OUTPUT_BYTES_MAX = 256 * 1024;

export interface SenderEvents<User> {
  /** Everything queued has left; the user may send again. */
  onDrain(stream: Http2Stream<User>): void;
  /** END_STREAM has left. */
  onLocalEnd(stream: Http2Stream<User>): void;
}

export class Sender<User> {
  readonly output = new ByteWriter(16 * 1024);
  readonly #encoder = new HpackEncoder();
  readonly #peer: Settings;
  readonly #events: SenderEvents<User>;
  #window = WINDOW_DEFAULT;
  /** Streams with queued bytes, in turn. */
  readonly #waiting = new Set<Http2Stream<User>>();
  #isWritable = true;
  /** Where the last frame in the output begins, and its stream: END_STREAM can still be set on it. */
  #lastFrameAt = -1;
  #lastStreamId = 0;

  constructor(peer: Settings, events: SenderEvents<User>) {
    this.#peer = peer;
    this.#events = events;
  }

  get window(): number {
    return this.#window;
  }

  /** The driver has written the output. */
  taken(): void {
    this.output.clear();
    this.#lastFrameAt = -1;
  }

  /** The transport takes bytes again, or no more for now. */
  setWritable(isWritable: boolean): void {
    this.#isWritable = isWritable;
    if (isWritable) this.flush();
  }

  setHeaderTableLimit(bytes: number): void {
    this.#encoder.setPeerLimit(bytes);
  }

  request(stream: Http2Stream<User>, head: RequestHead, endStream: boolean): void {
    this.#block(stream, endStream, () => encodeRequest(this.output, this.#encoder, head));
  }

  response(stream: Http2Stream<User>, head: ResponseHead, endStream: boolean): void {
    this.#block(stream, endStream, () => encodeResponse(this.output, this.#encoder, head));
  }

  /** 431 without a body (RFC 6585 section 5). */
  tooLarge(stream: Http2Stream<User>): void {
    const head: ResponseHead = {
      status: 431,
      reason: '',
      version: 'HTTP/2',
      headers: new HeaderList(),
      bodyBytes: null,
    };
    this.response(stream, head, true);
  }

  #trailers(stream: Http2Stream<User>, trailers: Headers): void {
    this.#block(stream, true, () => encodeTrailers(this.output, this.#encoder, trailers));
  }

  #block(stream: Http2Stream<User>, endStream: boolean, encode: () => void): void {
    const at = this.output.reserve(FRAME_HEADER_BYTES);
    this.output.length = at + FRAME_HEADER_BYTES;
    encode();
    finishHeaderBlock(this.output, at + FRAME_HEADER_BYTES, stream.id, endStream, this.#peer.frameBytesMax);
    this.#lastFrameAt = at;
    this.#lastStreamId = stream.id;
    if (endStream) this.#events.onLocalEnd(stream);
  }

  /** Sends or queues body bytes. False: everything from here on waits, stop until `onDrain`. */
  data(stream: Http2Stream<User>, bytes: Uint8Array): boolean {
    let rest = bytes;
    if (stream.queuedBytes === 0) rest = rest.subarray(this.#send(stream, rest));
    if (rest.length === 0) return true;
    // A copy: the caller reuses its memory. (`slice` of a Buffer would be a view.)
    stream.queue.push(new Uint8Array(rest));
    stream.queuedBytes += rest.length;
    stream.wantsDrain = true;
    this.#waiting.add(stream);
    return false;
  }

  /** Ends our side behind what is queued. */
  end(stream: Http2Stream<User>, trailers: Headers | null): void {
    stream.end = { trailers };
    if (stream.queuedBytes === 0) this.#finish(stream);
  }

  /** Forgets what is queued for a stream that is over. */
  drop(stream: Http2Stream<User>): void {
    stream.queue.length = 0;
    stream.queuedBytes = 0;
    this.#waiting.delete(stream);
  }

  /** WINDOW_UPDATE of the connection. */
  addWindow(increment: number): void {
    if (this.#window + increment > WINDOW_MAX) {
      throw new Http2Error(ErrorCode.FLOW_CONTROL_ERROR, 'the connection window overflows');
    }
    this.#window += increment;
    this.flush();
  }

  /** WINDOW_UPDATE of a stream. */
  addStreamWindow(stream: Http2Stream<User>, increment: number): void {
    if (stream.sendWindow + increment > WINDOW_MAX) {
      throw new Http2Error(ErrorCode.FLOW_CONTROL_ERROR, 'the stream window overflows', stream.id);
    }
    stream.sendWindow += increment;
    if (stream.queuedBytes > 0) this.flush();
  }

  /** Sends queued bytes as far as windows and output allow, one frame a stream in turn. */
  flush(): void {
    let progress = true;
    while (progress && this.#waiting.size > 0 && this.#window > 0 && this.#hasRoom()) {
      progress = false;
      for (const stream of [...this.#waiting]) {
        if (this.#sendQueued(stream)) progress = true;
      }
    }
  }

  #hasRoom(): boolean {
    return this.#isWritable && this.output.length < OUTPUT_BYTES_MAX;
  }

  #sendQueued(stream: Http2Stream<User>): boolean {
    const first = stream.queue[0];
    if (first === undefined) return false;
    const part = first.length > this.#peer.frameBytesMax ? first.subarray(0, this.#peer.frameBytesMax) : first;
    const sent = this.#send(stream, part);
    if (sent === 0) return false;
    stream.queuedBytes -= sent;
    if (sent === first.length) stream.queue.shift();
    else stream.queue[0] = first.subarray(sent);
    if (stream.queuedBytes > 0) return true;
    this.#waiting.delete(stream);
    if (stream.end !== null) this.#finish(stream);
    else if (stream.wantsDrain) {
      stream.wantsDrain = false;
      this.#events.onDrain(stream);
    }
    return true;
  }

  /** Writes as much of `bytes` as may leave now and returns how much that was. */
  #send(stream: Http2Stream<User>, bytes: Uint8Array): number {
    let sent = 0;
    while (sent < bytes.length && this.#hasRoom()) {
      const room = Math.min(stream.sendWindow, this.#window, this.#peer.frameBytesMax, bytes.length - sent);
      if (room <= 0) break;
      this.#lastFrameAt = this.output.length;
      this.#lastStreamId = stream.id;
      writeData(this.output, stream.id, bytes.subarray(sent, sent + room), false);
      stream.sendWindow -= room;
      this.#window -= room;
      sent += room;
    }
    return sent;
  }

  #finish(stream: Http2Stream<User>): void {
    const trailers = stream.end?.trailers ?? null;
    if (trailers !== null && trailers.length > 0) {
      this.#trailers(stream, trailers);
      return;
    }
    const isLast = this.#lastFrameAt >= 0 && this.#lastStreamId === stream.id && this.#isWholeLastFrame();
    if (isLast) this.output.bytes[this.#lastFrameAt + 4]! |= Flag.END_STREAM;
    else writeData(this.output, stream.id, new Uint8Array(0), true);
    this.#lastFrameAt = -1;
    this.#events.onLocalEnd(stream);
  }

  /** Nothing was written behind the remembered frame. */
  #isWholeLastFrame(): boolean {
    const { bytes, length } = this.output;
    const at = this.#lastFrameAt;
    const payload = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
    return at + FRAME_HEADER_BYTES + payload === length;
  }
}
