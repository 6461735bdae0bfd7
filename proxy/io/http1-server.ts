// The server's side of an HTTP/1.1 connection (RFC 9112): drives the codec over a Duplex and calls a service for each
// request. One exchange at a time; a pipelined request waits, with its reader paused, until the one before is answered.

import type { Clock } from '#lib/clock.ts';
import type { Duplex, DuplexListener } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import type { HttpService, RequestHead } from '../http.ts';
import { Http1Error } from '../wire/http1/error.ts';
import type { Http1Limits } from '../wire/http1/limits.ts';
import { RequestDecoder, type RequestSink } from '../wire/http1/request-decoder.ts';
import { Deadline } from './deadline.ts';
import type { HttpServerConnection } from './http-connection.ts';
import {
  DRAIN_IDLE_TIMEOUT_MS,
  HEADER_TIMEOUT_MS,
  LINGER_BYTES_MAX,
  LINGER_TIMEOUT_MS,
  SERVER_IDLE_TIMEOUT_MS,
  WRITE_STALL_TIMEOUT_MS,
} from './http1-limits.ts';
import { ServerExchange } from './http1-server-exchange.ts';
import { Output } from './outgoing.ts';
import { HALF_CLOSED_TIMEOUT_MS } from './pump.ts';

export interface Http1ServerOptions {
  service: HttpService;
  clock: Clock;
  /** The peer's mesh identity, or null. */
  clientIdentity: string | null;
  /** What was read from the stream before, such as for detection. */
  received?: Uint8Array;
  /** From the first byte of a request head to its end; a new connection's first byte included. */
  headerTimeoutMs?: number;
  /** Between the end of an exchange and the next request's first byte; 0: never. */
  idleTimeoutMs?: number;
  limits?: Http1Limits;
  /** The request was refused by the codec, or did not come in time, and was answered with `status`. */
  onBadRequest?(status: number, error: Error): void;
  /** The connection is gone. Null: in order. */
  onClose?(error: HeddleError | null): void;
}

/** Serves HTTP/1.1 on the stream from now on: takes its listener and resumes it. */
export function serveHttp1(duplex: Duplex, options: Http1ServerOptions): HttpServerConnection {
  return new Http1Server(duplex, options);
}

const REASONS: Record<number, string> = {
  400: 'Bad Request',
  408: 'Request Timeout',
  414: 'URI Too Long',
  431: 'Request Header Fields Too Large',
};

/** `closing`: the last response is out, what the client still sends is dropped. */
type State = 'idle' | 'exchange' | 'closing' | 'closed';

export class Http1Server implements HttpServerConnection, DuplexListener, RequestSink {
  readonly duplex: Duplex;
  readonly output: Output;
  readonly clientIdentity: string | null;
  readonly decoder: RequestDecoder;
  isDraining = false;
  readonly #options: Http1ServerOptions;
  readonly #deadline: Deadline;
  readonly #idleTimeoutMs: number;
  readonly #headerTimeoutMs: number;
  #state: State = 'idle';
  #exchange: ServerExchange | null = null;
  /** Bytes of the next request, read while the one before is under way. */
  #pipelined: Buffer | null = null;
  #hasClientEnded = false;
  /** A part of a head has arrived and its time runs. */
  #isHeadBegun = false;
  #lingerBytes = 0;
  #lingerQueued = 0;

  constructor(duplex: Duplex, options: Http1ServerOptions) {
    this.duplex = duplex;
    this.output = new Output(duplex);
    this.clientIdentity = options.clientIdentity;
    this.decoder = new RequestDecoder(options.limits);
    this.#options = options;
    this.#deadline = new Deadline(options.clock, () => this.#onDeadline());
    this.#idleTimeoutMs = options.idleTimeoutMs ?? SERVER_IDLE_TIMEOUT_MS;
    this.#headerTimeoutMs = options.headerTimeoutMs ?? HEADER_TIMEOUT_MS;
    duplex.listener = this;
    this.#deadlineIn(this.#headerTimeoutMs);
    duplex.resume();
    const { received } = options;
    if (received !== undefined && received.length > 0) this.onData(Buffer.from(received), 0, received.length);
  }

  get activeExchanges(): number {
    return this.#exchange === null ? 0 : 1;
  }

  get isIdle(): boolean {
    return this.#state === 'idle' && this.decoder.isIdle;
  }

  drain(): void {
    if (this.isDraining) return;
    this.isDraining = true;
    // A request may be on its way already, and HTTP/1 has no way to say that it was not taken: it is answered, with
    // `Connection: close`, and only a connection that stays silent is closed.
    if (this.isIdle) this.#deadlineIn(DRAIN_IDLE_TIMEOUT_MS);
  }

  close(error: HeddleError = new HeddleError('connection-closed', 'closed by its owner')): void {
    this.cut(error);
  }

  // The stream's calls.

  onData(buffer: Buffer, start: number, end: number): void {
    for (let at = start; at < end; ) {
      if (this.#state === 'closed') return;
      if (this.#state === 'closing') {
        this.#linger(end - at);
        return;
      }
      if (this.#exchange?.isTunnel) {
        if (this.#exchange.request!.data(buffer.subarray(at, end)) === false) this.duplex.pause();
        return;
      }
      if (this.decoder.isDone) {
        this.#keepPipelined(buffer, at, end);
        return;
      }
      at = this.#decode(buffer, at, end);
    }
  }

  onEnd(): void {
    this.#hasClientEnded = true;
    if (this.#state === 'closed') return;
    const exchange = this.#exchange;
    if (exchange?.isTunnel) exchange.endTunnel();
    else if (exchange === null) this.#finish();
    // A client that still waits for an answer says so by asking to close behind it; any other FIN is a client that
    // gave up, as Linkerd takes it too.
    else if (this.decoder.isPersistent || !this.decoder.isDone) {
      this.cut(new HeddleError('client-aborted', 'read a request: the client closed', { source: 'downstream' }));
    }
  }

  onDrain(): void {
    this.output.isBlocked = false;
    if (this.#state === 'idle') this.#goOn();
    else this.#exchange?.request?.resumeResponse();
  }

  onClose(error: HeddleError | null): void {
    this.#state = 'closed';
    this.#deadline.dispose();
    this.output.discard();
    const exchange = this.#exchange;
    this.#exchange = null;
    exchange?.abort(error ?? new HeddleError('client-aborted', 'the client closed', { source: 'downstream' }));
    this.#options.onClose?.(error);
  }

  // The decoder's calls.

  head(head: RequestHead): void {
    this.#state = 'exchange';
    this.#deadline.clear();
    const exchange = new ServerExchange(this, head, this.#options.clock.nowMs());
    this.#exchange = exchange;
    exchange.request = this.#options.service.call(head, exchange, exchange);
  }

  data(bytes: Uint8Array, start: number, end: number): void {
    const request = this.#exchange?.request;
    if (request?.data(bytes.subarray(start, end)) === false) this.duplex.pause();
  }

  // The exchange's calls.

  /** The response is complete. */
  exchangeEnded(exchange: ServerExchange, isLast: boolean): void {
    if (this.#exchange !== exchange) return;
    this.#exchange = null;
    if (isLast || this.isDraining || this.#hasClientEnded || !this.decoder.isDone) {
      this.#finish();
      return;
    }
    this.#state = 'idle';
    this.decoder.next();
    // A client that does not read its answers gets no more of them.
    if (this.output.isBlocked) this.duplex.pause();
    else this.#goOn();
  }

  /** The other direction of the tunnel has its time too. */
  tunnelHalfEnded(): void {
    this.#deadlineIn(HALF_CLOSED_TIMEOUT_MS);
  }

  /** The service can take request bytes again. */
  resumeRequest(exchange: ServerExchange): void {
    if (this.#exchange === exchange && (exchange.isTunnel || !this.decoder.isDone)) this.duplex.resume();
  }

  #goOn(): void {
    if (this.#pipelined !== null) {
      queueMicrotask(() => this.#decodePipelined());
      return;
    }
    this.duplex.resume();
    if (this.#idleTimeoutMs > 0 && this.decoder.isIdle) this.#deadlineIn(this.#idleTimeoutMs);
  }

  /** The tunnel's bytes go on where the request head ended. */
  tunnelOpened(exchange: ServerExchange): void {
    queueMicrotask(() => {
      const early = this.#pipelined;
      this.#pipelined = null;
      if (this.#exchange !== exchange) return;
      if (early !== null && exchange.request?.data(early) === false) this.duplex.pause();
      else this.duplex.resume();
      if (this.#hasClientEnded) exchange.endTunnel();
    });
  }

  /** Cuts the connection; the client sees a reset. */
  cut(error: HeddleError): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#deadline.dispose();
    this.output.discard();
    const exchange = this.#exchange;
    this.#exchange = null;
    exchange?.abort(error);
    this.duplex.reset(error);
  }

  /** Decodes up to the end of one request and returns the offset behind what was used. */
  #decode(buffer: Buffer, start: number, end: number): number {
    let at: number;
    try {
      at = this.decoder.push(buffer, start, end, this);
    } catch (error) {
      if (!(error instanceof Http1Error)) throw error;
      this.#refuse(error);
      return end;
    }
    if (this.#state === 'exchange') {
      this.#isHeadBegun = false;
      if (this.decoder.isDone) this.#exchange?.requestEnded(this.decoder.trailers);
    } else if (this.#state === 'idle' && !this.#isHeadBegun && !this.decoder.isIdle) {
      this.#isHeadBegun = true;
      this.#deadlineIn(this.#headerTimeoutMs);
    }
    return at;
  }

  /** The reader stops, so that at most one read's worth waits. */
  #keepPipelined(buffer: Buffer, start: number, end: number): void {
    const more = buffer.subarray(start, end);
    this.#pipelined = this.#pipelined === null ? Buffer.from(more) : Buffer.concat([this.#pipelined, more]);
    this.duplex.pause();
  }

  #decodePipelined(): void {
    const bytes = this.#pipelined;
    this.#pipelined = null;
    if (bytes === null || this.#state !== 'idle') return;
    // Reading goes on first, so that whatever the bytes lead to can stop it again.
    this.duplex.resume();
    this.onData(bytes, 0, bytes.length);
  }

  /** Answers what the codec refused, and closes: where the message ends is not known. */
  #refuse(error: Http1Error): void {
    const exchange = this.#exchange;
    this.#options.onBadRequest?.(error.status, error);
    const reason = new HeddleError('request-invalid', `read a request: ${error.message}`, {
      source: 'downstream',
      cause: error,
    });
    if (exchange?.hasHead) {
      this.cut(reason);
      return;
    }
    this.#exchange = null;
    exchange?.abort(reason);
    this.#answer(error.status);
  }

  #answer(status: number): void {
    const text = `HTTP/1.1 ${status} ${REASONS[status]}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`;
    const at = this.output.reserve(text.length);
    this.output.commit(at + this.output.memory.write(text, at, 'latin1'));
    this.#finish();
  }

  /** Sends what is left, then FIN, and waits a little for the client's. */
  #finish(): void {
    if (this.#state === 'closing' || this.#state === 'closed') return;
    this.#state = 'closing';
    this.output.flush();
    this.#pipelined = null;
    this.#deadlineIn(LINGER_TIMEOUT_MS);
    this.duplex.end();
    this.duplex.resume();
  }

  /** Unread bytes at close would make the kernel reset the connection, and the client lose the response. */
  #linger(bytes: number): void {
    this.#lingerBytes += bytes;
    if (this.#lingerBytes <= LINGER_BYTES_MAX) return;
    this.duplex.pause();
    this.#stopLingering();
  }

  #onDeadline(): void {
    if (this.#state === 'closing') this.#stopLingering();
    else if (this.#state !== 'idle') this.cut(new HeddleError('idle-timeout', 'pass a tunnel: expected its other end'));
    else if (this.decoder.isIdle) this.#finish();
    else {
      this.#options.onBadRequest?.(408, new HeddleError('header-timeout', 'read a head: expected it in time'));
      this.#answer(408);
    }
  }

  /** The client neither closes nor stops sending, or does not read. */
  #stopLingering(): void {
    const { bytesQueued } = this.duplex;
    if (bytesQueued === 0) this.duplex.abandon();
    else if (bytesQueued === this.#lingerQueued) {
      this.cut(
        new HeddleError('write-timeout', 'write a response: expected the client to read', { source: 'downstream' }),
      );
    } else {
      this.#lingerQueued = bytesQueued;
      this.#deadlineIn(WRITE_STALL_TIMEOUT_MS);
    }
  }

  #deadlineIn(durationMs: number): void {
    this.#deadline.set(this.#options.clock.nowMs() + durationMs);
  }
}
