// One request and its response on the client's side of an HTTP/1.1 connection: encodes the request as the caller gives
// it, and knows when both are over.

import { HeddleError } from '#lib/errors.ts';
import type { Exchange, Headers, RequestHead, RequestStream, ResponseStream } from '../http.ts';
import { Framing, requestFraming } from '../wire/http1/encoder.ts';
import { appendChunk, appendLastChunk } from './http1-chunks.ts';
import type { Http1Client, Http1ClientOptions } from './http1-client.ts';

/** Methods that may be sent twice (RFC 9110 section 9.2.2). */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE']);

export class ClientExchange implements RequestStream {
  readonly response: ResponseStream;
  readonly isUpgrade: boolean;
  isRequestDone: boolean;
  isOver = false;
  readonly #connection: Http1Client;
  readonly #framing: Framing;
  /** Bytes that Content-Length still announces. */
  #left: number;
  #hasTunnelEnd = false;
  #hasTunnelResponseEnd = false;
  readonly #request: RequestHead;
  readonly #context: Exchange;
  /** Where the request was sent again. */
  #successor: RequestStream | null = null;

  constructor(connection: Http1Client, request: RequestHead, context: Exchange, response: ResponseStream) {
    this.#connection = connection;
    this.#request = request;
    this.#context = context;
    this.response = response;
    this.isUpgrade = request.upgrade !== null || request.method === 'CONNECT';
    // What asks for an upgrade has no body, so it is complete with its head.
    this.isRequestDone = this.isUpgrade;
    this.#framing = requestFraming(request);
    this.#left = typeof request.bodyBytes === 'number' ? request.bodyBytes : 0;
  }

  /** Nothing but a head can have been sent, and it may be sent again. */
  get isReplayable(): boolean {
    const { bodyBytes, method } = this.#request;
    return !this.isUpgrade && (bodyBytes === null || bodyBytes === 0) && IDEMPOTENT.has(method);
  }

  /** Sends the request again; the caller keeps this stream and notices nothing. */
  replay(send: NonNullable<Http1ClientOptions['replay']>): void {
    this.isOver = true;
    this.#successor = send(this.#request, this.#context, this.response);
    if (this.isRequestDone) this.#successor.end(null);
  }

  data(bytes: Uint8Array): boolean {
    if (this.isOver || bytes.length === 0) return true;
    const { output } = this.#connection;
    if (this.isUpgrade) output.append(bytes);
    else if (this.#framing === Framing.chunked) appendChunk(output, bytes);
    else if (bytes.length > this.#left) {
      this.#mismatch();
      return true;
    } else {
      this.#left -= bytes.length;
      output.append(bytes);
    }
    output.flushSoon();
    return !output.isBlocked;
  }

  end(trailers: Headers | null): void {
    if (this.isOver) {
      this.#successor?.end(trailers);
      return;
    }
    const { output } = this.#connection;
    if (this.isUpgrade) {
      this.#hasTunnelEnd = true;
      this.isOver = this.#hasTunnelResponseEnd;
      output.flush();
      this.#connection.duplex.end();
      this.#endWhenBoth();
      return;
    }
    if (this.#left > 0) {
      this.#mismatch();
      return;
    }
    if (this.#framing === Framing.chunked) appendLastChunk(output, trailers);
    this.isRequestDone = true;
    output.flushSoon();
  }

  reset(error: HeddleError): void {
    if (this.isOver) {
      this.#successor?.reset(error);
      return;
    }
    this.isOver = true;
    this.#connection.abandoned(this, error);
  }

  resumeResponse(): void {
    if (!this.isOver) this.#connection.duplex.resume();
    else this.#successor?.resumeResponse();
  }

  /** The server half-closed the tunnel. */
  endTunnel(): void {
    if (this.#hasTunnelResponseEnd) return;
    this.#hasTunnelResponseEnd = true;
    // The client's direction may go on.
    this.isOver = this.#hasTunnelEnd;
    this.response.end(null);
    this.#endWhenBoth();
  }

  fail(error: HeddleError): void {
    if (this.isOver) return;
    this.isOver = true;
    // A tunnel that the server half-closed has had its last call.
    if (!this.#hasTunnelResponseEnd) this.response.fail(error);
  }

  #endWhenBoth(): void {
    if (this.#hasTunnelEnd && this.#hasTunnelResponseEnd) this.#connection.tunnelEnded(this);
  }

  /** The caller gave more or less than it announced: only a cut keeps the server from misreading it. */
  #mismatch(): void {
    const error = new HeddleError('request-length-wrong', 'send a request: expected the announced length');
    this.#connection.cut(error);
  }
}
