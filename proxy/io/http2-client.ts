// The client's side of an HTTP/2 connection: many exchanges at a time over one Duplex.

import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Exchange, Headers, RequestHead, RequestStream, ResponseStream } from '../http.ts';
import { Http2Connection } from '../wire/http2/connection.ts';
import { ErrorCode } from '../wire/http2/constants.ts';
import { HTTP2_DEFAULTS, type Http2Options } from '../wire/http2/options.ts';
import type { Http2Stream } from '../wire/http2/stream.ts';
import type { HttpClientConnection, HttpClientState } from './http-connection.ts';
import { StreamResetError } from './http2-reset.ts';
import { Http2Transport, type KeepAlive } from './http2-transport.ts';

export interface Http2ClientOptions {
  clock: Clock;
  keepAlive?: KeepAlive | null;
  limits?: Partial<Http2Options>;
  /** A stream closed: the connection may take an exchange again. */
  onIdle?(): void;
  /** The connection takes no further exchange; those under way may still finish. Called once. */
  onClosed?(): void;
  /** The stream itself is gone, in order (null) or not. Called once, after `onClosed`. */
  onGone?(error: HeddleError | null): void;
}

/** Speaks HTTP/2 with prior knowledge on the stream from now on: takes its listener and resumes it. */
export function connectHttp2(duplex: Duplex, options: Http2ClientOptions): Http2ClientConnection {
  const client = new Http2Client(duplex, options);
  client.start();
  return client;
}

export interface Http2ClientConnection extends HttpClientConnection {
  /** The peer's SETTINGS have arrived; before that the connection is `busy`. */
  readonly isEstablished: boolean;
  readonly activeExchanges: number;
  /** Takes no further exchange and closes when those under way have ended. Idempotent. */
  drain(): void;
}

class Http2Client implements Http2ClientConnection {
  readonly #connection: Http2Connection<ResponseStream>;
  readonly #transport: Http2Transport<ResponseStream>;
  readonly #options: Http2ClientOptions;
  #isClosed = false;
  #isDraining = false;

  constructor(duplex: Duplex, options: Http2ClientOptions) {
    this.#options = options;
    this.#connection = new Http2Connection<ResponseStream>(
      { ...HTTP2_DEFAULTS, ...options.limits, role: 'client' },
      {
        onRequest: () => {},
        onInformational: (stream, head) => stream.user?.informational(head),
        onResponse: (stream, head, endStream) => {
          stream.user?.head(head);
          if (endStream) this.#onEnd(stream, null);
        },
        onData: (stream, bytes, start, end) => stream.user?.data(bytes.subarray(start, end)) ?? true,
        onEnd: (stream, trailers) => this.#onEnd(stream, trailers),
        onReset: (stream, code, isRemote) => this.#onReset(stream, code, isRemote),
        onDrain: (stream) => stream.user?.resumeRequest(),
        onGoaway: () => this.#closed(),
        onPong: () => this.#transport.pong(),
        onStreamClosed: () => this.#onStreamClosed(),
      },
    );
    this.#transport = new Http2Transport(this.#connection, {
      duplex,
      clock: options.clock,
      keepAlive: options.keepAlive,
      onClose: (error) => {
        this.#closed();
        options.onGone?.(error);
      },
    });
  }

  start(): void {
    this.#transport.start();
  }

  get state(): HttpClientState {
    if (this.#isClosed || this.#isDraining || this.#connection.fault !== null) return 'closed';
    return this.#connection.canOpen ? 'idle' : 'busy';
  }

  get isEstablished(): boolean {
    return this.#connection.isEstablished;
  }

  get activeExchanges(): number {
    return this.#connection.openStreams;
  }

  call(head: RequestHead, _exchange: Exchange, response: ResponseStream): RequestStream {
    if (this.state !== 'idle') {
      const error = new HeddleError('connection-busy', 'the connection takes no further stream', { retry: 'yes' });
      queueMicrotask(() => response.fail(error));
      return IGNORED;
    }
    const endStream = head.bodyBytes === null;
    const stream = this.#connection.openStream(head, endStream, response);
    this.#transport.flushSoon();
    return new ClientRequest(this.#connection, this.#transport, stream);
  }

  drain(): void {
    this.#isDraining = true;
    this.#closed();
    this.#onStreamClosed();
  }

  close(error?: HeddleError): void {
    this.#transport.close(error);
  }

  #onEnd(stream: Http2Stream<ResponseStream>, trailers: Headers | null): void {
    stream.user?.end(trailers);
    stream.user = null;
  }

  #onReset(stream: Http2Stream<ResponseStream>, code: number, isRemote: boolean): void {
    const response = stream.user;
    stream.user = null;
    if (response === null) return;
    const fault = this.#connection.fault;
    if (fault !== null && fault.code === ErrorCode.NO_ERROR) {
      response.fail(
        new HeddleError('connection-closed', 'the connection closed before the response', { source: 'upstream' }),
      );
    } else {
      response.fail(new StreamResetError(code, isRemote));
    }
  }

  #onStreamClosed(): void {
    if (this.#isDraining && this.#connection.openStreams === 0) {
      this.#connection.abort(ErrorCode.NO_ERROR, '');
      this.#transport.flushSoon();
    } else if (this.state === 'idle') {
      this.#options.onIdle?.();
    }
  }

  #closed(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#options.onClosed?.();
  }
}

/** The request half of an exchange that failed before it began. */
const IGNORED: RequestStream = { data: () => true, end: () => {}, reset: () => {}, resumeResponse: () => {} };

class ClientRequest implements RequestStream {
  readonly #connection: Http2Connection<ResponseStream>;
  readonly #transport: Http2Transport<ResponseStream>;
  readonly #stream: Http2Stream<ResponseStream>;

  constructor(
    connection: Http2Connection<ResponseStream>,
    transport: Http2Transport<ResponseStream>,
    stream: Http2Stream<ResponseStream>,
  ) {
    this.#connection = connection;
    this.#transport = transport;
    this.#stream = stream;
  }

  data(bytes: Uint8Array): boolean {
    const goesOn = this.#connection.sendData(this.#stream, bytes);
    this.#transport.flushSoon();
    return goesOn;
  }

  end(trailers: Headers | null): void {
    this.#connection.end(this.#stream, trailers);
    this.#transport.flushSoon();
  }

  reset(_error: HeddleError): void {
    this.#stream.user = null;
    this.#connection.resetStream(this.#stream, ErrorCode.CANCEL);
    this.#transport.flushSoon();
  }

  resumeResponse(): void {
    this.#connection.resumeStream(this.#stream);
    this.#transport.flushSoon();
  }
}
