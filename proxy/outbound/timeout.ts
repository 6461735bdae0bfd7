// Deadlines of one exchange. `request` bounds all of it and sits outside of retries; `response` (from the request's end
// or the response's head to the response's end) and `idle` (no byte either way) bound an attempt; a ServiceProfile's
// timeout bounds everything and closes the connection. Tunnels (101) are not bound: they are no responses.

import type { Clock, Timer } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Headers, HttpLayer, RequestStream, ResponseHead, ResponseStream } from '../http.ts';

export interface TimeoutOptions {
  clock: Clock;
  requestMs: number | null;
  responseMs: number | null;
  idleMs: number | null;
  /** Code of the error when `requestMs` passed. */
  requestCode: 'request-timeout' | 'profile-timeout';
}

const SWITCHING_PROTOCOLS = 101;

/** A layer without a deadline is no layer: ask only where one is set. */
export function timeoutLayer(options: TimeoutOptions): HttpLayer {
  return (inner) => ({
    call(request, exchange, response) {
      const timed = new TimedExchange(options, response);
      timed.request = inner.call(request, exchange, timed);
      return new TimedRequest(timed, timed.request);
    },
  });
}

class TimedExchange implements ResponseStream {
  request: RequestStream | null = null;
  readonly #options: TimeoutOptions;
  readonly #response: ResponseStream;
  readonly #deadline: Timer | null;
  #responseDeadline: Timer | null = null;
  #idle: Timer | null = null;
  #lastByteMs = 0;
  #isOver = false;
  /** A deadline passed: the inner request was reset and takes no further call. */
  isExpired = false;

  constructor(options: TimeoutOptions, response: ResponseStream) {
    this.#options = options;
    this.#response = response;
    const { clock, requestMs, requestCode } = options;
    this.#deadline =
      requestMs === null ? null : clock.after(requestMs, () => this.#expire(requestCode, 'request', requestMs));
    this.onByte();
    this.#armIdle();
  }

  informational(head: ResponseHead): void {
    this.#response.informational(head);
  }

  head(head: ResponseHead): void {
    this.onByte();
    if (head.status === SWITCHING_PROTOCOLS) this.stop();
    else this.onRequestEnd();
    this.#response.head(head);
  }

  data(bytes: Uint8Array): boolean {
    this.onByte();
    return this.#response.data(bytes);
  }

  end(trailers: Headers | null): void {
    this.stop();
    this.#response.end(trailers);
  }

  fail(error: HeddleError): void {
    this.stop();
    this.#response.fail(error);
  }

  resumeRequest(): void {
    this.#response.resumeRequest();
  }

  /** A byte moved. The timer is not armed anew for each: it looks at the time when it fires. */
  onByte(): void {
    if (this.#options.idleMs !== null) this.#lastByteMs = this.#options.clock.nowMs();
  }

  /** The response's own time begins, if it has not. */
  onRequestEnd(): void {
    const { clock, responseMs } = this.#options;
    if (responseMs === null || this.#responseDeadline !== null || this.#isOver) return;
    this.#responseDeadline = clock.after(responseMs, () => this.#expire('response-timeout', 'response', responseMs));
  }

  stop(): void {
    this.#isOver = true;
    this.#deadline?.cancel();
    this.#responseDeadline?.cancel();
    this.#idle?.cancel();
  }

  #armIdle(): void {
    const { clock, idleMs } = this.#options;
    if (idleMs === null) return;
    const waitMs = Math.max(1, this.#lastByteMs + idleMs - clock.nowMs());
    this.#idle = clock.after(waitMs, () => {
      if (clock.nowMs() - this.#lastByteMs >= idleMs) this.#expire('idle-timeout', 'bytes', idleMs);
      else this.#armIdle();
    });
  }

  #expire(code: string, what: string, afterMs: number): void {
    if (this.#isOver) return;
    this.stop();
    this.isExpired = true;
    const error = new HeddleError(code, `await ${what}: expected within ${afterMs} ms`, { source: 'upstream' });
    this.request?.reset(error);
    this.#response.fail(error);
  }
}

class TimedRequest implements RequestStream {
  readonly #timed: TimedExchange;
  readonly #request: RequestStream;

  constructor(timed: TimedExchange, request: RequestStream) {
    this.#timed = timed;
    this.#request = request;
  }

  data(bytes: Uint8Array): boolean {
    if (this.#timed.isExpired) return true;
    this.#timed.onByte();
    return this.#request.data(bytes);
  }

  end(trailers: Headers | null): void {
    if (this.#timed.isExpired) return;
    this.#timed.onByte();
    this.#timed.onRequestEnd();
    this.#request.end(trailers);
  }

  reset(error: HeddleError): void {
    if (this.#timed.isExpired) return;
    this.#timed.stop();
    this.#request.reset(error);
  }

  resumeResponse(): void {
    if (!this.#timed.isExpired) this.#request.resumeResponse();
  }
}
