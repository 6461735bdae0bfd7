// The server's side of an HTTP/2 connection: calls a service for each stream.

import type { Clock, Timer } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import type { HeddleError } from '#lib/errors.ts';
import type { Headers, HttpService, RequestHead, RequestStream, ResponseHead, ResponseStream } from '../http.ts';
import { Http2Connection } from '../wire/http2/connection.ts';
import { ErrorCode } from '../wire/http2/constants.ts';
import type { Http2Error } from '../wire/http2/error.ts';
import { HTTP2_DEFAULTS, type Http2Options } from '../wire/http2/options.ts';
import type { Http2Stream } from '../wire/http2/stream.ts';
import type { HttpServerConnection } from './http-connection.ts';
import { resetCodeFor, StreamResetError } from './http2-reset.ts';
import { Http2Transport } from './http2-transport.ts';

export interface Http2ServerOptions {
  service: HttpService;
  clock: Clock;
  /** The peer's mesh identity, or null. */
  clientIdentity: string | null;
  /** What was read from the stream before, such as for detection. */
  received?: Uint8Array;
  /** Without a stream for this long the connection is told to go; 0: never. */
  idleTimeoutMs?: number;
  limits?: Partial<Http2Options>;
  /** The peer broke the protocol and was sent away. */
  onFault?(error: Http2Error): void;
  /** The connection is gone. Null: in order. */
  onClose?(error: HeddleError | null): void;
}

type Connection = Http2Connection<ServerExchange>;

/** Serves HTTP/2 on the stream from now on: takes its listener and resumes it. */
export function serveHttp2(duplex: Duplex, options: Http2ServerOptions): HttpServerConnection {
  const server = new Http2Server(duplex, options);
  server.start();
  return server;
}

class Http2Server implements HttpServerConnection {
  readonly #connection: Connection;
  readonly #transport: Http2Transport<ServerExchange>;
  readonly #duplex: Duplex;
  readonly #options: Http2ServerOptions;
  #idleTimer: Timer | null = null;
  #faultTold = false;

  constructor(duplex: Duplex, options: Http2ServerOptions) {
    this.#duplex = duplex;
    this.#options = options;
    this.#connection = new Http2Connection<ServerExchange>(
      { ...HTTP2_DEFAULTS, ...options.limits, role: 'server' },
      {
        onRequest: (stream, head, endStream) => this.#onRequest(stream, head, endStream),
        onData: (stream, bytes, start, end) => stream.user?.request?.data(bytes.subarray(start, end)) ?? true,
        onEnd: (stream, trailers) => stream.user?.request?.end(trailers),
        onReset: (stream, code, isRemote) => stream.user?.request?.reset(new StreamResetError(code, isRemote)),
        onDrain: (stream) => stream.user?.request?.resumeResponse(),
        onInformational: () => {},
        onResponse: () => {},
        onGoaway: () => {},
        onPong: () => this.#transport.pong(),
        onStreamClosed: () => this.#watchIdle(),
      },
    );
    this.#transport = new Http2Transport(this.#connection, {
      duplex,
      clock: options.clock,
      received: options.received,
      onClose: (error) => this.#onClose(error),
    });
  }

  start(): void {
    this.#transport.start();
    this.#watchIdle();
  }

  get activeExchanges(): number {
    return this.#connection.openStreams;
  }

  get isIdle(): boolean {
    return this.#connection.openStreams === 0 && !this.#connection.hasOpenBlock;
  }

  drain(): void {
    this.#connection.drain();
    this.#transport.flushSoon();
  }

  close(error?: HeddleError): void {
    this.#transport.close(error);
  }

  #onRequest(stream: Http2Stream<ServerExchange>, head: RequestHead, endStream: boolean): void {
    const { service, clock, clientIdentity } = this.#options;
    const exchange = new ServerExchange(this.#connection, this.#transport, stream, head.method === 'HEAD');
    stream.user = exchange;
    this.#idleTimer?.cancel();
    this.#idleTimer = null;
    const request = service.call(
      head,
      {
        clientAddress: this.#duplex.remoteAddress,
        clientPort: this.#duplex.remotePort,
        clientIdentity,
        startedMs: clock.nowMs(),
      },
      exchange,
    );
    exchange.request = request;
    if (endStream) request.end(null);
  }

  #watchIdle(): void {
    const { idleTimeoutMs, clock } = this.#options;
    if (!idleTimeoutMs || this.#connection.openStreams > 0 || this.#idleTimer !== null) return;
    this.#idleTimer = clock.after(idleTimeoutMs, () => this.drain());
  }

  #onClose(error: HeddleError | null): void {
    this.#idleTimer?.cancel();
    const fault = this.#connection.fault;
    if (fault !== null && fault.code !== ErrorCode.NO_ERROR && !this.#faultTold) {
      this.#faultTold = true;
      this.#options.onFault?.(fault);
    }
    this.#options.onClose?.(error);
  }
}

/** One stream's exchange; also the response half that the service drives. */
class ServerExchange implements ResponseStream {
  readonly #connection: Connection;
  readonly #transport: Http2Transport<ServerExchange>;
  readonly #stream: Http2Stream<ServerExchange>;
  readonly #isHeadMethod: boolean;
  request: RequestStream | null = null;

  constructor(
    connection: Connection,
    transport: Http2Transport<ServerExchange>,
    stream: Http2Stream<ServerExchange>,
    isHeadMethod: boolean,
  ) {
    this.#connection = connection;
    this.#transport = transport;
    this.#stream = stream;
    this.#isHeadMethod = isHeadMethod;
  }

  informational(head: ResponseHead): void {
    this.#connection.sendInformational(this.#stream, head);
    this.#transport.flushSoon();
  }

  head(head: ResponseHead): void {
    const isBodyless = this.#isHeadMethod || head.bodyBytes === null;
    this.#connection.sendResponse(this.#stream, head, isBodyless);
    this.#transport.flushSoon();
  }

  data(bytes: Uint8Array): boolean {
    const goesOn = this.#connection.sendData(this.#stream, bytes);
    this.#transport.flushSoon();
    return goesOn;
  }

  end(trailers: Headers | null): void {
    this.#connection.end(this.#stream, trailers);
    // RFC 9113 section 8.1: a response that is complete before its request stops the request without an error.
    if (!this.#stream.isRemoteEnded && this.#stream.isLocalEnded) {
      this.#connection.resetStream(this.#stream, ErrorCode.NO_ERROR);
    }
    this.#transport.flushSoon();
  }

  fail(error: HeddleError): void {
    this.#connection.resetStream(this.#stream, resetCodeFor(error));
    this.#transport.flushSoon();
  }

  resumeRequest(): void {
    this.#connection.resumeStream(this.#stream);
    this.#transport.flushSoon();
  }
}
