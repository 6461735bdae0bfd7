// The outermost layer: an exchange that fails before its head becomes a response of the proxy's own; behind the head
// the stream is cut. Everything inside may just fail.

import type { HeddleError } from '#lib/errors.ts';
import { answerError, classifyError } from './error-response.ts';
import type { Headers, HttpLayer, RequestHead, ResponseHead, ResponseStream } from './http.ts';
import type { Direction, Recorder } from './observe/recorder.ts';

export interface ErrorLayerOptions {
  recorder: Recorder;
  direction: Direction;
  /** The client learns what went wrong. */
  withDetails: boolean;
}

export function answerErrorsLayer(options: ErrorLayerOptions): HttpLayer {
  return (inner) => ({
    call: (request, exchange, response) => inner.call(request, exchange, new Answering(options, request, response)),
  });
}

class Answering implements ResponseStream {
  readonly #options: ErrorLayerOptions;
  readonly #request: RequestHead;
  readonly #response: ResponseStream;
  #hasHead = false;

  constructor(options: ErrorLayerOptions, request: RequestHead, response: ResponseStream) {
    this.#options = options;
    this.#request = request;
    this.#response = response;
  }

  informational(head: ResponseHead): void {
    this.#response.informational(head);
  }

  head(head: ResponseHead): void {
    this.#hasHead = true;
    this.#response.head(head);
  }

  data(bytes: Uint8Array): boolean {
    return this.#response.data(bytes);
  }

  end(trailers: Headers | null): void {
    this.#response.end(trailers);
  }

  fail(error: HeddleError): void {
    const { recorder, direction, withDetails } = this.#options;
    recorder.httpError(direction, classifyError(error).label, {});
    if (this.#hasHead) this.#response.fail(error);
    else answerError(this.#request, error, this.#response, { withDetails });
  }

  resumeRequest(): void {
    this.#response.resumeRequest();
  }
}
