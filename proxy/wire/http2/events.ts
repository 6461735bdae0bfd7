// What the driver of an HTTP/2 connection hears.

import type { Headers, RequestHead, ResponseHead } from '../../http.ts';
import type { Http2Stream } from './stream.ts';

/** Calls come from inside the connection's own methods; the driver may call back into it. */
export interface Http2Events<User> {
  /** Server: a request began. */
  onRequest(stream: Http2Stream<User>, head: RequestHead, endStream: boolean): void;
  /** Client: a 1xx head. */
  onInformational(stream: Http2Stream<User>, head: ResponseHead): void;
  /** Client: the final head. */
  onResponse(stream: Http2Stream<User>, head: ResponseHead, endStream: boolean): void;
  /** Body bytes, valid during the call. False: the window is not given back until `resumeStream`. */
  onData(stream: Http2Stream<User>, bytes: Uint8Array, start: number, end: number): boolean;
  /** The peer's side ended behind a body or with trailers; not called where the head said `endStream`. */
  onEnd(stream: Http2Stream<User>, trailers: Headers | null): void;
  /** The stream is over in error; nothing follows for it. */
  onReset(stream: Http2Stream<User>, code: number, isRemote: boolean): void;
  /** A `sendData` returned false before; all of it has left. */
  onDrain(stream: Http2Stream<User>): void;
  /** The peer serves no streams above `lastStreamId`; ours were reset with REFUSED_STREAM before. */
  onGoaway(code: number, lastStreamId: number): void;
  /** An answer to `ping`. */
  onPong(): void;
  /** A stream closed, or the peer allows more: a client may be able to open one again. */
  onStreamClosed(): void;
}
