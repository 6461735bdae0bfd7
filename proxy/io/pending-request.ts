// The request half of an exchange that has no connection yet: it keeps what the client sends, little of it, until
// `attach` gives it one.

import type { HeddleError } from '#lib/errors.ts';
import type { Headers, RequestStream, ResponseStream } from '../http.ts';

/** The client is told to stop at this many bytes; what is in flight then comes on top. */
const BUFFERED_BYTES_MAX = 16 * 1024;

export class PendingRequest implements RequestStream {
  readonly #response: ResponseStream;
  readonly #onReset: () => void;
  #inner: RequestStream | null = null;
  #chunks: Uint8Array[] = [];
  #bytes = 0;
  #end: { trailers: Headers | null } | null = null;
  #isPaused = false;
  #isReset = false;

  /** `onReset`: the client went away before there was a connection. */
  constructor(response: ResponseStream, onReset: () => void) {
    this.#response = response;
    this.#onReset = onReset;
  }

  /** The client went away: nobody waits for a connection. */
  get isReset(): boolean {
    return this.#isReset;
  }

  data(bytes: Uint8Array): boolean {
    if (this.#inner !== null) return this.#inner.data(bytes);
    this.#chunks.push(new Uint8Array(bytes));
    this.#bytes += bytes.length;
    this.#isPaused = this.#bytes >= BUFFERED_BYTES_MAX;
    return !this.#isPaused;
  }

  end(trailers: Headers | null): void {
    if (this.#inner !== null) this.#inner.end(trailers);
    else this.#end = { trailers };
  }

  reset(error: HeddleError): void {
    if (this.#inner !== null) {
      this.#inner.reset(error);
      return;
    }
    this.#isReset = true;
    this.#chunks = [];
    this.#onReset();
  }

  resumeResponse(): void {
    this.#inner?.resumeResponse();
  }

  /** Sends what was kept, and everything that follows, to `inner`. */
  attach(inner: RequestStream): void {
    this.#inner = inner;
    let goesOn = true;
    for (const chunk of this.#chunks) goesOn = inner.data(chunk);
    this.#chunks = [];
    if (this.#end !== null) inner.end(this.#end.trailers);
    // Where `inner` wants a pause it says itself when the client may go on.
    else if (this.#isPaused && goesOn) this.#response.resumeRequest();
  }
}
