// Requests from bytes (RFC 9112), the server's half of the codec. What could be read in two ways is refused before
// anything of the message is passed on.

import type { RequestHead } from '../../http.ts';
import { HeaderList } from '../headers.ts';
import { BodyReader, type BodySink } from './body-reader.ts';
import { AUTHORITY, ownCopy } from './characters.ts';
import { Http1Error } from './error.ts';
import { HeadReader } from './head-reader.ts';
import { HTTP1_LIMITS, type Http1Limits } from './limits.ts';
import { RequestLine } from './start-line.ts';

export interface RequestSink extends BodySink {
  head(head: RequestHead): void;
}

/** Push decoder. One request at a time: after `isDone`, `next` makes it ready for the one that follows. */
export class RequestDecoder {
  /** Whether the client lets the connection live on after this request (RFC 9112 section 9.3). */
  isPersistent = true;
  isDone = false;
  /** The current request's trailers; null where there are none. */
  get trailers(): HeaderList | null {
    return this.#body.trailers;
  }
  readonly #line: RequestLine;
  readonly #head: HeadReader;
  readonly #body: BodyReader;
  #isInBody = false;
  /** The last authority: most requests of a connection have the same. */
  #authority = '';

  constructor(limits: Http1Limits = HTTP1_LIMITS) {
    this.#line = new RequestLine(limits.targetBytesMax);
    this.#head = new HeadReader(this.#line, {
      bytesMax: limits.headBytesMax,
      fieldsMax: limits.fieldsMax,
      maySkipBlank: true,
    });
    this.#body = new BodyReader(limits);
  }

  /** True between requests: nothing of a head has arrived. */
  get isIdle(): boolean {
    return !this.#isInBody && !this.isDone && !this.#head.isStarted;
  }

  /**
   * Decodes `bytes[start..end)` up to the end of the current request and returns the offset behind what was used. Calls
   * `sink.head` once, `sink.data` for body bytes. Throws Http1Error; the decoder is then of no further use.
   */
  push(bytes: Uint8Array, start: number, end: number, sink: RequestSink): number {
    let at = start;
    if (!this.#isInBody && !this.isDone) {
      at = this.#head.push(bytes, at, end);
      if (!this.#head.isComplete) return at;
      const head = this.#build();
      this.#isInBody = true;
      sink.head(head);
    }
    if (this.#isInBody) {
      at = this.#body.push(bytes, at, end, sink);
      if (this.#body.isDone) {
        this.#isInBody = false;
        this.isDone = true;
      }
    }
    return at;
  }

  /** Makes ready for the next request. */
  next(): void {
    this.isDone = false;
    this.#head.reset(true);
  }

  /** The client sent FIN. Throws Http1Error in the middle of a message. */
  finish(): void {
    if (this.#head.isStarted) throw new Http1Error('head-incomplete', 'read a head: expected more bytes');
    if (this.#isInBody) this.#body.finish();
  }

  #build(): RequestHead {
    const { fields, text } = this.#head;
    const { method, minorVersion } = this.#line;
    if (fields.hostCount === 0 && minorVersion === 1) {
      throw new Http1Error('host-missing', 'read Host: expected one field');
    }
    const host = fields.hostCount === 0 ? null : text.substring(fields.hostStart, fields.hostEnd);
    const target = splitTarget(method, text.substring(this.#line.targetStart, this.#line.targetEnd));
    if (target.authority !== null && host !== null && !isSameAuthority(target, host)) {
      throw new Http1Error('host-differs', 'read Host: expected the authority of the request target');
    }
    const bodyBytes = this.#startBody(minorVersion, method);
    this.isPersistent =
      minorVersion === 1 ? !fields.connectionClose : fields.connectionKeepAlive && !fields.connectionClose;
    const headers = HeaderList.fromText(text, fields.names, fields.spans);
    if (fields.acceptsTrailers) headers.add('te', 'trailers');
    return {
      method,
      scheme: target.scheme,
      authority: this.#own(target.authority ?? host ?? ''),
      path: target.path,
      version: minorVersion === 1 ? 'HTTP/1.1' : 'HTTP/1.0',
      headers,
      bodyBytes,
      upgrade: this.#upgrade(method, minorVersion, bodyBytes),
      isAbsoluteForm: target.isAbsoluteForm,
    };
  }

  /** Authorities live on in caches and labels, and must not keep the text of a whole head alive there. */
  #own(authority: string): string {
    if (authority !== this.#authority) this.#authority = ownCopy(authority);
    return this.#authority;
  }

  /** Framing of requests, RFC 9112 section 6.3, with every doubtful combination refused. */
  #startBody(minorVersion: number, method: string): number | null | 'unknown' {
    const { contentLength, hasTransferEncoding } = this.#head.fields;
    if (hasTransferEncoding) {
      if (minorVersion === 0) {
        throw new Http1Error('transfer-encoding-in-1.0', 'read Transfer-Encoding: expected none in HTTP/1.0');
      }
      if (contentLength !== -1) {
        throw new Http1Error('both-lengths', 'read a head: expected Content-Length or Transfer-Encoding, got both');
      }
    }
    if (method === 'CONNECT' && (hasTransferEncoding || contentLength > 0)) {
      throw new Http1Error('connect-with-body', 'read a CONNECT request: expected no body');
    }
    if (hasTransferEncoding) {
      this.#body.startChunked();
      return 'unknown';
    }
    this.#body.startCounted(Math.max(contentLength, 0));
    return contentLength === -1 ? null : contentLength;
  }

  /**
   * The protocol that the client asks for. Not honoured with a body, and never for h2c: HTTP/2 inside an opaque tunnel
   * would pass every layer here unseen, and RFC 9113 section 3.1 has withdrawn it.
   */
  #upgrade(method: string, minorVersion: number, bodyBytes: number | null | 'unknown'): string | null {
    const { fields, text } = this.#head;
    if (method === 'CONNECT') return 'connect';
    if (fields.upgradeStart === -1 || !fields.connectionUpgrade || minorVersion === 0) return null;
    if (bodyBytes !== null && bodyBytes !== 0) return null;
    const value = text.substring(fields.upgradeStart, fields.upgradeEnd);
    return value === '' || /\bh2c\b/i.test(value) ? null : value;
  }
}

interface Target {
  scheme: string;
  /** Null in origin-form and asterisk-form. */
  authority: string | null;
  path: string;
  isAbsoluteForm: boolean;
}

/** The four forms of RFC 9112 section 3.2. */
function splitTarget(method: string, target: string): Target {
  if (method === 'CONNECT') {
    if (!/:\d{1,5}$/.test(target) || !isAuthority(target)) throw targetError('host and port for CONNECT');
    return { scheme: 'http', authority: target, path: '', isAbsoluteForm: false };
  }
  if (target.charCodeAt(0) === 0x2f) return { scheme: 'http', authority: null, path: target, isAbsoluteForm: false };
  if (target === '*') {
    if (method !== 'OPTIONS') throw targetError('"*" with OPTIONS only');
    return { scheme: 'http', authority: null, path: '*', isAbsoluteForm: false };
  }
  const match = /^(https?):\/\/([^/?]+)(.*)$/i.exec(target);
  if (match === null || !isAuthority(match[2]!)) throw targetError('a path, "*", or an http URI');
  const rest = match[3]!;
  const path = rest === '' ? (method === 'OPTIONS' ? '*' : '/') : rest.startsWith('?') ? `/${rest}` : rest;
  return { scheme: match[1]!.toLowerCase(), authority: match[2]!, path, isAbsoluteForm: true };
}

function isAuthority(text: string): boolean {
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code > 255 || AUTHORITY[code] === 0) return false;
  }
  return text.length > 0;
}

/** Case aside, and the scheme's own port aside, both name the same server. */
function isSameAuthority(target: Target, host: string): boolean {
  const port = target.scheme === 'https' ? ':443' : ':80';
  const strip = (text: string): string => (text.endsWith(port) ? text.slice(0, -port.length) : text).toLowerCase();
  return strip(target.authority!) === strip(host);
}

function targetError(expected: string): Http1Error {
  return new Http1Error('target-invalid', `read a request target: expected ${expected}`);
}
