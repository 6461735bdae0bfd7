// Responses from bytes (RFC 9112), the client's half of the codec.

import type { ResponseHead } from '../../http.ts';
import { HeaderList } from '../headers.ts';
import { BodyReader, type BodySink } from './body-reader.ts';
import { Http1Error } from './error.ts';
import { HeadReader } from './head-reader.ts';
import { HTTP1_LIMITS, type Http1Limits } from './limits.ts';
import { StatusLine } from './start-line.ts';

export interface ResponseSink extends BodySink {
  /** A 1xx response other than 101. */
  informational(head: ResponseHead): void;
  head(head: ResponseHead): void;
}

/** 1xx responses before a final one; RFC 9110 section 15.2 sets no limit. */
const INFORMATIONAL_MAX = 16;

/** Push decoder. `expect` before each exchange, then `push` until `isDone` or `isTunnel`. */
export class ResponseDecoder {
  /** Whether the server lets the connection live on after this response (RFC 9112 section 9.3). */
  isPersistent = true;
  isDone = false;
  /** The response accepted an upgrade or a CONNECT: what follows is no HTTP. */
  isTunnel = false;
  get trailers(): HeaderList | null {
    return this.#body.trailers;
  }
  readonly #line = new StatusLine();
  readonly #head: HeadReader;
  readonly #body: BodyReader;
  #isInBody = false;
  #method = '';
  #mayUpgrade = false;
  #informationals = 0;

  constructor(limits: Http1Limits = HTTP1_LIMITS) {
    this.#head = new HeadReader(this.#line, { bytesMax: limits.headBytesMax, fieldsMax: limits.fieldsMax });
    this.#body = new BodyReader(limits);
  }

  /** Makes ready for the response to a request with this method, which asked for an upgrade or not. */
  expect(method: string, mayUpgrade: boolean): void {
    this.#method = method;
    this.#mayUpgrade = mayUpgrade;
    this.#informationals = 0;
    this.isDone = false;
    this.#head.reset(false);
  }

  /**
   * Decodes `bytes[start..end)` up to the end of the response and returns the offset behind what was used. Throws
   * Http1Error; the decoder is then of no further use.
   */
  push(bytes: Uint8Array, start: number, end: number, sink: ResponseSink): number {
    let at = start;
    while (at < end && !this.#isInBody && !this.isDone && !this.isTunnel) {
      at = this.#head.push(bytes, at, end);
      if (this.#head.isComplete) this.#headComplete(sink);
    }
    if (this.#isInBody) {
      at = this.#body.push(bytes, at, end, sink);
      if (this.#body.isDone) this.#finishBody();
    }
    return at;
  }

  /** The server sent FIN. Throws Http1Error unless that ends the response in order. */
  finish(): void {
    if (!this.#isInBody) throw new Http1Error('head-incomplete', 'read a response: expected a head');
    this.#body.finish();
    this.#finishBody();
  }

  #headComplete(sink: ResponseSink): void {
    const { status, minorVersion } = this.#line;
    const { fields, text } = this.#head;
    if (status < 200 && status !== 101) {
      if (++this.#informationals > INFORMATIONAL_MAX) {
        throw new Http1Error('too-many-informational', `read responses: expected at most ${INFORMATIONAL_MAX} 1xx`);
      }
      const head = this.#build(null);
      this.#head.reset(false);
      sink.informational(head);
      return;
    }
    if (status === 101 && !this.#mayUpgrade) {
      throw new Http1Error('unasked-upgrade', 'read a response: expected no 101, the request had no Upgrade');
    }
    this.isPersistent =
      minorVersion === 1 ? !fields.connectionClose : fields.connectionKeepAlive && !fields.connectionClose;
    const bodyBytes = this.#startBody();
    const head = this.#build(bodyBytes);
    if ((status === 101 || status === 426) && fields.upgradeStart !== -1) {
      head.headers.add('upgrade', text.substring(fields.upgradeStart, fields.upgradeEnd));
    }
    this.#isInBody = !this.isTunnel;
    sink.head(head);
  }

  /** Framing of responses, RFC 9112 section 6.3. */
  #startBody(): number | null | 'unknown' {
    const { contentLength, hasTransferEncoding } = this.#head.fields;
    const { status, minorVersion } = this.#line;
    this.isTunnel = status === 101 || (this.#method === 'CONNECT' && status < 300);
    if (hasTransferEncoding && contentLength !== -1) {
      throw new Http1Error('both-lengths', 'read a head: expected Content-Length or Transfer-Encoding, got both');
    }
    if (hasTransferEncoding && minorVersion === 0) {
      throw new Http1Error('transfer-encoding-in-1.0', 'read Transfer-Encoding: expected none in HTTP/1.0');
    }
    if (this.#method === 'HEAD' || status === 204 || status === 304 || this.isTunnel) {
      this.#body.startCounted(0);
      return null;
    }
    if (hasTransferEncoding) this.#body.startChunked();
    else if (contentLength !== -1) this.#body.startCounted(contentLength);
    else {
      this.#body.startUntilEnd();
      this.isPersistent = false;
    }
    return contentLength === -1 ? 'unknown' : contentLength;
  }

  #build(bodyBytes: number | null | 'unknown'): ResponseHead {
    const { fields, text } = this.#head;
    const { status, reasonStart, reasonEnd, minorVersion } = this.#line;
    return {
      status,
      reason: text.substring(reasonStart, reasonEnd),
      version: minorVersion === 1 ? 'HTTP/1.1' : 'HTTP/1.0',
      headers: HeaderList.fromText(text, fields.names, fields.spans),
      bodyBytes,
    };
  }

  #finishBody(): void {
    this.#isInBody = false;
    this.isDone = true;
  }
}
