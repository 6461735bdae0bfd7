// The client's side of an HTTP/1.1 connection (RFC 9112): one exchange at a time over a Duplex. The head and whatever
// the caller gives in the same turn leave in one write.

import type { Duplex, DuplexListener } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Exchange, RequestHead, RequestStream, ResponseHead, ResponseStream } from '../http.ts';
import { encodeRequestHead, requestFault, requestHeadBytesMax } from '../wire/http1/encoder.ts';
import { Http1Error } from '../wire/http1/error.ts';
import type { Http1Limits } from '../wire/http1/limits.ts';
import { ResponseDecoder, type ResponseSink } from '../wire/http1/response-decoder.ts';
import type { HttpClientConnection, HttpClientState } from './http-connection.ts';
import { ClientExchange } from './http1-client-exchange.ts';
import { Output } from './outgoing.ts';

export interface Http1ClientOptions {
  limits?: Http1Limits;
  /**
   * Sends a request again, elsewhere. Called when the server closed an idle connection in the very moment an idempotent
   * request without a body was sent on it, and no byte of a response came (RFC 9112 section 9.3.1, RFC 9110 section
   * 9.2.2). Absent: the exchange fails with retry `if-reused`.
   */
  replay?(request: RequestHead, exchange: Exchange, response: ResponseStream): RequestStream;
  /** The exchange ended and the connection can take another. */
  onIdle?(): void;
  /** The connection takes no further exchange. Called once; `onGone` may follow much later. */
  onClosed?(): void;
  /** The stream is gone. Null: in order. */
  onGone?(error: HeddleError | null): void;
}

/**
 * Speaks HTTP/1.1 on the stream from now on: takes its listener and resumes it. An exchange that fails on a connection
 * that served others before, and of whose response no byte came, fails with retry `if-reused`.
 */
export function connectHttp1(duplex: Duplex, options: Http1ClientOptions = {}): Http1Client {
  return new Http1Client(duplex, options);
}

export class Http1Client implements HttpClientConnection, DuplexListener, ResponseSink {
  /** Exchanges that were begun on this connection. */
  exchanges = 0;
  readonly duplex: Duplex;
  readonly output: Output;
  readonly #decoder: ResponseDecoder;
  readonly #options: Http1ClientOptions;
  #state: HttpClientState = 'idle';
  #exchange: ClientExchange | null = null;
  #hasResponseBytes = false;

  constructor(duplex: Duplex, options: Http1ClientOptions) {
    this.duplex = duplex;
    this.output = new Output(duplex);
    this.#decoder = new ResponseDecoder(options.limits);
    this.#options = options;
    duplex.listener = this;
    duplex.resume();
  }

  get state(): HttpClientState {
    return this.#state;
  }

  call(request: RequestHead, context: Exchange, response: ResponseStream): RequestStream {
    const fault = this.#state === 'idle' ? requestFault(request) : `the connection is ${this.#state}`;
    if (fault !== null) {
      const error = new HeddleError('request-not-sent', `send a request: ${fault}`, { source: 'internal' });
      queueMicrotask(() => response.fail(error));
      return DEAD_REQUEST;
    }
    this.#state = 'busy';
    this.exchanges++;
    this.#hasResponseBytes = false;
    const exchange = new ClientExchange(this, request, context, response);
    this.#exchange = exchange;
    this.#decoder.expect(request.method, exchange.isUpgrade && request.method !== 'CONNECT');
    const at = this.output.reserve(requestHeadBytesMax(request));
    this.output.commit(encodeRequestHead(request, this.output.memory, at));
    // A request without a body ends in this turn, and that flushes.
    if (request.bodyBytes !== null || exchange.isUpgrade) this.output.flushSoon();
    return exchange;
  }

  close(error: HeddleError = new HeddleError('connection-closed', 'closed by its owner')): void {
    this.cut(error);
  }

  /** Takes no further exchange and closes in order: at once when idle. */
  finish(): void {
    if (this.#state === 'idle') this.#end();
  }

  // The stream's calls.

  onData(buffer: Buffer, start: number, end: number): void {
    const exchange = this.#exchange;
    if (exchange === null) {
      // Nothing was asked: whatever this answers must not be taken for the answer to the next request.
      this.cut(upstreamError('response-unasked', 'read a response: expected none'));
      return;
    }
    this.#hasResponseBytes = true;
    if (this.#decoder.isTunnel) {
      this.data(buffer, start, end);
      return;
    }
    let at: number;
    try {
      at = this.#decoder.push(buffer, start, end, this);
    } catch (error) {
      if (!(error instanceof Http1Error)) throw error;
      this.cut(upstreamError('response-invalid', `read a response: ${error.message}`, 'no', error));
      return;
    }
    if (this.#exchange !== exchange) return;
    if (this.#decoder.isTunnel && at < end) this.data(buffer, at, end);
    else if (this.#decoder.isDone) this.#responseEnded(at === end);
  }

  onEnd(): void {
    const exchange = this.#exchange;
    if (exchange === null) {
      this.#end();
      return;
    }
    if (this.#decoder.isTunnel) {
      exchange.endTunnel();
      return;
    }
    try {
      this.#decoder.finish();
    } catch (error) {
      if (!(error instanceof Http1Error)) throw error;
      this.cut(this.#goneError('the server closed', error));
      return;
    }
    this.#responseEnded(false);
  }

  onDrain(): void {
    this.output.isBlocked = false;
    this.#exchange?.response.resumeRequest();
  }

  onClose(error: HeddleError | null): void {
    this.#close(this.#goneError('the connection broke', error ?? undefined));
    this.#options.onGone?.(error);
  }

  // The decoder's calls.

  informational(head: ResponseHead): void {
    this.#exchange?.response.informational(head);
  }

  head(head: ResponseHead): void {
    this.#exchange?.response.head(head);
  }

  data(bytes: Uint8Array, start: number, end: number): void {
    if (this.#exchange?.response.data(bytes.subarray(start, end)) === false) this.duplex.pause();
  }

  // The exchange's calls.

  /** Cuts the connection; the exchange under way fails, unless it was its own wish. */
  cut(error: HeddleError): void {
    this.#close(error);
    this.duplex.reset(error);
  }

  /** The caller gave up. */
  abandoned(exchange: ClientExchange, error: HeddleError): void {
    if (this.#exchange !== exchange) return;
    this.#exchange = null;
    this.cut(error);
  }

  /** Both directions of the tunnel have ended. */
  tunnelEnded(exchange: ClientExchange): void {
    if (this.#exchange !== exchange) return;
    this.#exchange = null;
    this.#end();
  }

  /** The response is whole. `isClean`: nothing came behind it. */
  #responseEnded(isClean: boolean): void {
    const exchange = this.#exchange!;
    this.#exchange = null;
    exchange.isOver = true;
    const { trailers } = this.#decoder;
    if (isClean && exchange.isRequestDone && this.#decoder.isPersistent) {
      // The response may have been paused; the next one is not.
      this.duplex.resume();
      this.#state = 'idle';
      this.#options.onIdle?.();
    } else if (exchange.isRequestDone) this.#end();
    // The rest of the request has nowhere to go, and the server waits for it.
    else this.cut(upstreamError('request-unfinished', 'the server answered before the request ended'));
    exchange.response.end(trailers);
  }

  #end(): void {
    this.#close(upstreamError('connection-closed', 'the connection ended'));
    this.output.flush();
    this.duplex.abandon();
  }

  #close(error: HeddleError): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    const exchange = this.#exchange;
    this.#exchange = null;
    this.#options.onClosed?.();
    if (exchange === null) return;
    this.output.discard();
    const { replay } = this.#options;
    if (error.retry === 'if-reused' && replay && exchange.isReplayable) exchange.replay(replay);
    else exchange.fail(error);
  }

  #goneError(reason: string, cause: Error | undefined): HeddleError {
    const isStale = this.exchanges > 1 && !this.#hasResponseBytes;
    return upstreamError('upstream-closed', `read a response: ${reason}`, isStale ? 'if-reused' : 'no', cause);
  }
}

/** What a call that cannot be made returns: its failure is on the way. */
const DEAD_REQUEST: RequestStream = { data: () => true, end() {}, reset() {}, resumeResponse() {} };

function upstreamError(
  code: string,
  message: string,
  retry: 'no' | 'yes' | 'if-reused' = 'no',
  cause?: unknown,
): HeddleError {
  return new HeddleError(code, message, { source: 'upstream', retry, cause });
}
