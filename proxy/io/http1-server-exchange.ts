// One request and its response on the server's side of an HTTP/1.1 connection: encodes the response as the service
// gives it, and knows when both are over.

import { HeddleError } from '#lib/errors.ts';
import type { Exchange, RequestHead, RequestStream, ResponseHead, ResponseStream } from '../http.ts';
import { HeaderList } from '../wire/headers.ts';
import { encodeResponseHead, Framing, responseFraming, responseHeadBytesMax } from '../wire/http1/encoder.ts';
import { appendChunk, appendLastChunk } from './http1-chunks.ts';
import type { Http1Server } from './http1-server.ts';
import type { Output } from './outgoing.ts';

export class ServerExchange implements Exchange, ResponseStream {
  readonly startedMs: number;
  /** Null only while the service is being called. */
  request: RequestStream | null = null;
  /** A final response head was sent. */
  hasHead = false;
  /** The response accepted an upgrade: bytes pass as they are. */
  isTunnel = false;
  readonly #connection: Http1Server;
  readonly #method: string;
  readonly #version: 'HTTP/1.0' | 'HTTP/1.1';
  readonly #isUpgrade: boolean;
  #framing: Framing = Framing.plain;
  /** Bytes that Content-Length still announces. */
  #left = 0;
  /** HEAD, 204 and 304 have none, whatever their fields say (RFC 9112 section 6.3). */
  #hasBody = false;
  #isLast = false;
  #isRequestDone = false;
  #isOver = false;
  #hasTunnelEnded = false;
  #hasTunnelResponseEnded = false;

  constructor(connection: Http1Server, head: RequestHead, startedMs: number) {
    this.#connection = connection;
    this.#method = head.method;
    this.#version = head.version === 'HTTP/1.0' ? 'HTTP/1.0' : 'HTTP/1.1';
    this.#isUpgrade = head.upgrade !== null;
    this.startedMs = startedMs;
  }

  get clientAddress(): string {
    return this.#connection.duplex.remoteAddress;
  }

  get clientPort(): number {
    return this.#connection.duplex.remotePort;
  }

  get clientIdentity(): string | null {
    return this.#connection.clientIdentity;
  }

  /** The request is complete; one that asks for an upgrade stays open. */
  requestEnded(trailers: HeaderList | null): void {
    if (this.#isRequestDone) return;
    this.#isRequestDone = true;
    if (!this.#isUpgrade && !this.#isOver) this.request?.end(trailers);
  }

  /** The client half-closed the tunnel. */
  endTunnel(): void {
    if (this.#hasTunnelEnded || this.#isOver) return;
    this.#hasTunnelEnded = true;
    this.request?.end(null);
    this.#tunnelHalfEnded();
  }

  /** The client is gone: the service is told, and nothing it still says counts. */
  abort(error: HeddleError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.request?.reset(error);
  }

  informational(head: ResponseHead): void {
    // HTTP/1.0 knows no 1xx (RFC 9110 section 15.2).
    if (this.#isOver || this.hasHead || this.#version === 'HTTP/1.0') return;
    this.#encodeHead(head);
    this.#output.flushSoon();
  }

  head(head: ResponseHead): void {
    if (this.#isOver || this.hasHead) return;
    this.hasHead = true;
    this.isTunnel = this.#isUpgrade && (head.status === 101 || (this.#method === 'CONNECT' && head.status < 300));
    this.#hasBody = !this.isTunnel && this.#method !== 'HEAD' && head.status !== 204 && head.status !== 304;
    this.#framing = this.#hasBody ? responseFraming(head, this.#version) : Framing.plain;
    this.#left = this.#hasBody && typeof head.bodyBytes === 'number' ? head.bodyBytes : 0;
    // A response before the request's end leaves bytes to come that nobody reads: the client is told to stop.
    this.#isLast =
      !this.isTunnel &&
      (head.closesConnection === true ||
        this.#connection.isDraining ||
        !this.#connection.decoder.isPersistent ||
        !this.#connection.decoder.isDone ||
        this.#framing === Framing.untilEnd);
    this.#encodeHead(head);
    this.#output.flushSoon();
    if (this.isTunnel) this.#connection.tunnelOpened(this);
  }

  data(bytes: Uint8Array): boolean {
    if (this.#isOver || bytes.length === 0) return true;
    if (!this.#hasBody && !this.isTunnel) return true;
    if (this.isTunnel || this.#framing === Framing.untilEnd) this.#output.append(bytes);
    else if (this.#framing === Framing.chunked) appendChunk(this.#output, bytes);
    else if (bytes.length > this.#left) this.#mismatch();
    else {
      this.#left -= bytes.length;
      this.#output.append(bytes);
    }
    this.#output.flushSoon();
    return !this.#output.isBlocked;
  }

  end(trailers: HeaderList | null): void {
    if (this.#isOver) return;
    if (this.isTunnel) {
      this.#hasTunnelResponseEnded = true;
      this.#output.flush();
      this.#connection.duplex.end();
      this.#tunnelHalfEnded();
      return;
    }
    if (this.#left > 0 || !this.hasHead) {
      this.#mismatch();
      return;
    }
    if (this.#framing === Framing.chunked) appendLastChunk(this.#output, trailers);
    this.#isOver = true;
    this.#output.flushSoon();
    this.#connection.exchangeEnded(this, this.#isLast);
  }

  fail(error: HeddleError): void {
    if (this.#isOver) return;
    if (this.hasHead) {
      this.#isOver = true;
      this.#connection.cut(error);
      return;
    }
    // The layers answer failures themselves; what still comes here has no better answer.
    const headers = new HeaderList();
    this.head({ status: 502, reason: 'Bad Gateway', version: 'HTTP/1.1', headers, bodyBytes: 0 });
    this.end(null);
  }

  resumeRequest(): void {
    if (!this.#isOver) this.#connection.resumeRequest(this);
  }

  get #output(): Output {
    return this.#connection.output;
  }

  #tunnelHalfEnded(): void {
    if (this.#hasTunnelEnded && this.#hasTunnelResponseEnded) {
      this.#isOver = true;
      this.#connection.exchangeEnded(this, true);
    } else this.#connection.tunnelHalfEnded();
  }

  #encodeHead(head: ResponseHead): void {
    const output = this.#output;
    const at = output.reserve(responseHeadBytesMax(head));
    const encoding = {
      // A body that another protocol left out without saying a length has none.
      bodyBytes: this.#hasBody ? (head.bodyBytes ?? 0) : null,
      framing: this.#framing,
      isLast: this.#isLast,
      isHttp10: this.#version === 'HTTP/1.0',
    };
    output.commit(encodeResponseHead(head, encoding, output.memory, at));
  }

  /** The service gave more or less than it announced: only a cut keeps the client from misreading it. */
  #mismatch(): void {
    this.#isOver = true;
    this.request?.reset(new HeddleError('response-length-wrong', 'write a response: expected the announced length'));
    this.#connection.cut(new HeddleError('response-length-wrong', 'write a response: expected the announced length'));
  }
}
