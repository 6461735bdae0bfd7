// Header fields of a block to the heads all layers share, and back: the rules of RFC 9113 section 8.

import type { ByteWriter } from '#lib/byte-writer.ts';
import type { Headers, RequestHead, ResponseHead } from '../../http.ts';
import { HeaderList } from '../headers.ts';
import type { HeaderSink } from '../hpack/decoder.ts';
import { HpackEncoder } from '../hpack/encoder.ts';
import { AUTHORITY, REQUEST_TARGET, TOKEN_LOWER } from '../http1/characters.ts';

/**
 * Fields whose repetition two readers could settle differently (RFC 9110 section 8.6, RFC 9112 section 3.2): what the
 * next server reads must be what was judged here.
 */
const SINGLE_FIELDS = new Set(['content-length', 'host']);

/** Fields that belong to an HTTP/1 connection and must not appear in HTTP/2, section 8.2.2. */
const CONNECTION_FIELDS = new Set(['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade']);

/** tchar of RFC 9110 section 5.6.2 without upper case, section 8.2.1. */
const NAME_OCTETS = new Uint8Array(256);
for (const octet of new TextEncoder().encode("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"))
  NAME_OCTETS[octet] = 1;

export type BlockKind = 'request' | 'response' | 'trailers';

type PseudoName = ':method' | ':scheme' | ':authority' | ':path' | ':protocol' | ':status';
const PSEUDO: Record<BlockKind, readonly string[]> = {
  request: [':method', ':scheme', ':authority', ':path', ':protocol'],
  response: [':status'],
  trailers: [],
};

/** Gathers one block. It never throws: the compression state must see the whole block, whatever is wrong with it. */
export class FieldCollector implements HeaderSink {
  readonly #kind: BlockKind;
  readonly #listBytesMax: number;
  readonly #countMax: number;
  #bytes = 0;
  #cookieAt: string | null = null;
  #pseudo: Partial<Record<PseudoName, string>> = {};
  #pseudoOver = false;
  headers = new HeaderList();
  /** Why the message is malformed (section 8.1.1), or null. */
  fault: string | null = null;
  /** The list is above SETTINGS_MAX_HEADER_LIST_SIZE; `headers` holds what came before. */
  isTooLarge = false;

  constructor(kind: BlockKind, listBytesMax: number, countMax: number) {
    this.#kind = kind;
    this.#listBytesMax = listBytesMax;
    this.#countMax = countMax;
  }

  field(name: string, value: string): void {
    if (this.isTooLarge || this.fault !== null) return;
    this.#bytes += name.length + value.length + 32;
    if (this.#bytes > this.#listBytesMax || this.headers.length >= this.#countMax) {
      this.isTooLarge = true;
      return;
    }
    if (!isFieldValue(value)) {
      this.fault = `value of ${name} has an octet that is not allowed`;
    } else if (name.charCodeAt(0) === 0x3a) {
      this.#addPseudo(name, value);
    } else {
      this.#addRegular(name, value);
    }
  }

  #addPseudo(name: string, value: string): void {
    const known = PSEUDO[this.#kind].includes(name);
    if (!known) this.fault = `${name} does not belong in ${this.#kind}`;
    else if (this.#pseudoOver) this.fault = `${name} comes behind a regular field`;
    else if (this.#pseudo[name as PseudoName] !== undefined) this.fault = `${name} comes twice`;
    else this.#pseudo[name as PseudoName] = value;
  }

  #addRegular(name: string, value: string): void {
    this.#pseudoOver = true;
    if (!isFieldName(name)) this.fault = 'a field name has an octet that is not allowed';
    else if (CONNECTION_FIELDS.has(name)) this.fault = `${name} does not belong in HTTP/2`;
    else if (name === 'te' && value.toLowerCase() !== 'trailers') this.fault = 'te is not "trailers"';
    else if (name === 'cookie') this.#addCookie(value);
    else if (SINGLE_FIELDS.has(name) && this.headers.has(name)) this.fault = `${name} comes twice`;
    else this.headers.add(name, value);
  }

  /** Section 8.2.3: crumbs are one field for everybody else. */
  #addCookie(value: string): void {
    this.#cookieAt = this.#cookieAt === null ? value : `${this.#cookieAt}; ${value}`;
    this.headers.set('cookie', this.#cookieAt);
  }

  /** Null when malformed; `fault` says why. */
  requestHead(endStream: boolean): RequestHead | null {
    const method = this.#pseudo[':method'];
    const protocol = this.#pseudo[':protocol'] ?? null;
    const authority = this.#pseudo[':authority'] ?? this.headers.get('host') ?? '';
    const scheme = this.#pseudo[':scheme'];
    const path = this.#pseudo[':path'];
    if (this.fault === null) this.fault = this.#requestFault(method, scheme, path, protocol, authority);
    const bodyBytes = this.#bodyBytes(endStream);
    if (this.fault !== null) return null;
    return {
      method: method!,
      scheme: scheme ?? 'http',
      authority,
      path: path ?? '',
      version: 'HTTP/2',
      headers: this.headers,
      bodyBytes,
      upgrade: protocol,
    };
  }

  /**
   * Section 8.3.1, section 8.5 for CONNECT, RFC 8441 section 4 for extended CONNECT. Characters are judged as in HTTP/1:
   * the request may leave as such, where a blank ends a part of the request line.
   */
  #requestFault(
    method: string | undefined,
    scheme: string | undefined,
    path: string | undefined,
    protocol: string | null,
    authority: string,
  ): string | null {
    if (method === undefined || method === '') return ':method is missing';
    if (!hasOnly(method, TOKEN_LOWER)) return ':method is no token';
    if (!hasOnly(authority, AUTHORITY)) return 'the authority has a character that is not allowed';
    const host = this.headers.get('host');
    if (host !== undefined && host.toLowerCase() !== authority.toLowerCase()) return 'host differs from :authority';
    if (method === 'CONNECT' && protocol === null) {
      if (scheme !== undefined || path !== undefined) return 'CONNECT has :scheme or :path';
      return authority === '' ? 'CONNECT has no :authority' : null;
    }
    if (protocol !== null && method !== 'CONNECT') return ':protocol without CONNECT';
    if (scheme === undefined || scheme === '') return ':scheme is missing';
    if (path === undefined || path === '') return ':path is missing or empty';
    if (!hasOnly(path, REQUEST_TARGET)) return ':path has a character that is not allowed';
    if (!path.startsWith('/') && !(path === '*' && method === 'OPTIONS')) return ':path does not begin with "/"';
    return null;
  }

  /** Null when malformed; `fault` says why. */
  responseHead(endStream: boolean): ResponseHead | null {
    const status = this.#pseudo[':status'];
    if (this.fault === null && (status === undefined || !/^[1-9]\d\d$/.test(status))) {
      this.fault = ':status is missing or not three digits';
    }
    const bodyBytes = this.#bodyBytes(endStream);
    if (this.fault !== null) return null;
    return { status: Number(status), reason: '', version: 'HTTP/2', headers: this.headers, bodyBytes };
  }

  #bodyBytes(endStream: boolean): number | null | 'unknown' {
    const length = this.headers.get('content-length');
    if (length === undefined) return endStream ? null : 'unknown';
    if (!/^\d{1,15}$/.test(length)) {
      this.fault ??= 'content-length is not a number';
      return null;
    }
    return endStream ? null : Number(length);
  }
}

function isFieldName(name: string): boolean {
  for (let at = 0; at < name.length; at++) {
    if (NAME_OCTETS[name.charCodeAt(at)] !== 1) return false;
  }
  return name.length > 0;
}

/** Section 8.2.1: no NUL, CR, LF anywhere, no white space at either end. */
function isFieldValue(value: string): boolean {
  const last = value.length - 1;
  if (last < 0) return true;
  if (isBlank(value.charCodeAt(0)) || isBlank(value.charCodeAt(last))) return false;
  for (let at = 0; at <= last; at++) {
    const octet = value.charCodeAt(at);
    if (octet === 0 || octet === 0x0a || octet === 0x0d) return false;
  }
  return true;
}

/** Every character has its place in the table. */
function hasOnly(text: string, allowed: Uint8Array): boolean {
  for (let at = 0; at < text.length; at++) {
    if (!allowed[text.charCodeAt(at)]) return false;
  }
  return true;
}

function isBlank(octet: number): boolean {
  return octet === 0x20 || octet === 0x09;
}

/** Appends the block of a request head to `out`. */
export function encodeRequest(out: ByteWriter, encoder: HpackEncoder, head: RequestHead): void {
  begin(out, encoder);
  put(out, encoder, ':method', head.method);
  const isPlainConnect = head.method === 'CONNECT' && head.upgrade === null;
  if (!isPlainConnect) put(out, encoder, ':scheme', head.scheme);
  if (head.authority !== '') put(out, encoder, ':authority', head.authority);
  if (!isPlainConnect) put(out, encoder, ':path', head.path);
  if (head.method === 'CONNECT' && head.upgrade !== null) put(out, encoder, ':protocol', head.upgrade);
  putHeaders(out, encoder, head.headers);
}

/** Appends the block of a response head to `out`. */
export function encodeResponse(out: ByteWriter, encoder: HpackEncoder, head: ResponseHead): void {
  begin(out, encoder);
  put(out, encoder, ':status', String(head.status));
  putHeaders(out, encoder, head.headers);
}

/** Appends the block of trailers to `out`. */
export function encodeTrailers(out: ByteWriter, encoder: HpackEncoder, trailers: Headers): void {
  begin(out, encoder);
  putHeaders(out, encoder, trailers);
}

function begin(out: ByteWriter, encoder: HpackEncoder): void {
  const at = out.reserve(HpackEncoder.beginBytesMax);
  out.length = encoder.begin(out.bytes, at);
}

function put(out: ByteWriter, encoder: HpackEncoder, name: string, value: string): void {
  const at = out.reserve(HpackEncoder.fieldBytesMax(name, value));
  out.length = encoder.field(out.bytes, at, name, value);
}

/** Fields of an HTTP/1 connection stay behind: its own side has read them already. */
function putHeaders(out: ByteWriter, encoder: HpackEncoder, headers: Headers): void {
  for (let at = 0; at < headers.length; at++) {
    const name = headers.name(at);
    if (CONNECTION_FIELDS.has(name)) continue;
    const value = headers.value(at);
    if (name === 'te' && value.toLowerCase() !== 'trailers') continue;
    put(out, encoder, name, value);
  }
}
