// Field lines of a head or of trailers (RFC 9112 section 5), read strictly: whatever two parsers could read differently
// is refused. Fields that belong to the connection are taken out here and never reach the layers.

import { AUTHORITY, COLON, CR, FIELD_VALUE, HTAB, LF, latin1, SPACE, TOKEN_LOWER } from './characters.ts';
import { Http1Error } from './error.ts';
import { FieldKind, hashStep, internFieldName } from './field-names.ts';

/** The line goes on behind the bytes that are there. */
export const INCOMPLETE = -1;

const COMMA = 0x2c;
/** 2^53 has 16 digits; longer numbers could not be counted down exactly. */
const LENGTH_DIGITS_MAX = 16;

/**
 * Fields that a Connection header cannot take out: naming them would change the message for those behind
 * (RFC 9110 section 7.6.1).
 */
const END_TO_END = new Set(
  `host content-length content-type content-encoding content-range authorization cookie set-cookie cache-control expect
  date location range trailer forwarded x-forwarded-for x-forwarded-host x-forwarded-proto`.split(/\s+/),
);

/** Gathers the fields of one head. Offsets are relative to the head's first byte. */
export class FieldReader {
  names: string[] = [];
  /** As HeaderList.fromText wants them. */
  spans: number[] = [];
  hostCount = 0;
  hostStart = 0;
  hostEnd = 0;
  /** -1: no Content-Length. */
  contentLength = -1;
  hasTransferEncoding = false;
  connectionClose = false;
  connectionKeepAlive = false;
  connectionUpgrade = false;
  acceptsTrailers = false;
  /** -1: no Upgrade. */
  upgradeStart = -1;
  upgradeEnd = 0;
  /** What Connection names besides the options known here. */
  nominated: string[] | null = null;
  #count = 0;
  readonly #fieldsMax: number;
  #isTrailers = false;

  constructor(fieldsMax: number) {
    this.#fieldsMax = fieldsMax;
  }

  /** Starts over. The arrays were given away or are empty. */
  reset(isTrailers: boolean): void {
    this.names = [];
    this.spans = [];
    this.hostCount = 0;
    this.contentLength = -1;
    this.hasTransferEncoding = false;
    this.connectionClose = false;
    this.connectionKeepAlive = false;
    this.connectionUpgrade = false;
    this.acceptsTrailers = false;
    this.upgradeStart = -1;
    this.nominated = null;
    this.#count = 0;
    this.#isTrailers = isTrailers;
  }

  /**
   * Reads the field line at `at` of a head that begins at `origin`. Returns the offset behind its CRLF, or INCOMPLETE.
   * Throws Http1Error.
   */
  line(bytes: Uint8Array, at: number, end: number, origin: number): number {
    let colon = at;
    let hash = 0;
    for (; colon < end; colon++) {
      const code = TOKEN_LOWER[bytes[colon]!]!;
      if (code === 0) break;
      hash = hashStep(hash, code);
    }
    if (colon === end) return INCOMPLETE;
    if (bytes[colon] !== COLON || colon === at) throw nameError(bytes[colon]!, colon === at);
    let start = colon + 1;
    while (start < end && isBlank(bytes[start]!)) start++;
    let stop = start;
    while (stop < end && FIELD_VALUE[bytes[stop]!] === 1) stop++;
    if (stop === end) return INCOMPLETE;
    if (bytes[stop] !== CR) throw valueError(bytes[stop]!);
    if (stop + 1 === end) return INCOMPLETE;
    if (bytes[stop + 1] !== LF) throw valueError(CR);
    const next = stop + 2;
    while (stop > start && isBlank(bytes[stop - 1]!)) stop--;
    if (++this.#count > this.#fieldsMax) {
      throw new Http1Error('too-many-fields', `read fields: expected at most ${this.#fieldsMax}`, 431);
    }
    const { name, kind } = internFieldName(bytes, at, colon, hash);
    if (kind === FieldKind.plain || this.#keeps(kind, bytes, start, stop, origin)) {
      this.names.push(name);
      this.spans.push(at - origin, start - origin, stop - origin);
    }
    return next;
  }

  /** Takes out the fields that Connection names. Call once, when the head is complete. */
  removeNominated(): void {
    if (this.nominated === null) return;
    for (const name of this.nominated) {
      if (END_TO_END.has(name) || name.startsWith('l5d-')) continue;
      for (let index = this.names.indexOf(name); index !== -1; index = this.names.indexOf(name, index)) {
        this.names.splice(index, 1);
        this.spans.splice(index * 3, 3);
      }
    }
  }

  /** Notes what the field says about framing and connection. True: it is passed on. */
  #keeps(kind: FieldKind, bytes: Uint8Array, start: number, end: number, origin: number): boolean {
    if (this.#isTrailers) return false;
    switch (kind) {
      case FieldKind.host:
        this.#host(bytes, start, end, origin);
        return true;
      case FieldKind.contentLength:
        if (this.contentLength !== -1) {
          throw new Http1Error('content-length-repeated', 'read Content-Length: expected one field');
        }
        this.contentLength = readLength(bytes, start, end);
        return true;
      case FieldKind.transferEncoding:
        if (this.hasTransferEncoding || !equalsLower(bytes, start, end, 'chunked')) {
          throw new Http1Error('transfer-encoding-unknown', 'read Transfer-Encoding: expected "chunked" alone');
        }
        this.hasTransferEncoding = true;
        return false;
      case FieldKind.connection:
        this.#connection(bytes, start, end);
        return false;
      case FieldKind.te:
        this.acceptsTrailers ||= hasToken(bytes, start, end, 'trailers');
        return false;
      case FieldKind.upgrade:
        if (this.upgradeStart === -1) {
          this.upgradeStart = start - origin;
          this.upgradeEnd = end - origin;
        } else {
          this.upgradeEnd = this.upgradeStart;
        }
        return false;
      case FieldKind.notInTrailers:
        return true;
      default:
        return false;
    }
  }

  #host(bytes: Uint8Array, start: number, end: number, origin: number): void {
    if (++this.hostCount > 1) throw new Http1Error('host-repeated', 'read Host: expected one field');
    for (let at = start; at < end; at++) {
      if (AUTHORITY[bytes[at]!] === 0) throw new Http1Error('host-invalid', 'read Host: expected a host and port');
    }
    this.hostStart = start - origin;
    this.hostEnd = end - origin;
  }

  /** RFC 9110 section 7.6.1. */
  #connection(bytes: Uint8Array, start: number, end: number): void {
    for (let at = start; at < end; ) {
      let hash = 0;
      let stop = at;
      while (stop < end && TOKEN_LOWER[bytes[stop]!] !== 0) hash = hashStep(hash, TOKEN_LOWER[bytes[stop++]!]!);
      if (stop > at) this.#option(internFieldName(bytes, at, stop, hash).name);
      else if (bytes[at] !== COMMA && !isBlank(bytes[at]!)) {
        throw new Http1Error('connection-invalid', 'read Connection: expected a list of tokens');
      }
      at = stop > at ? stop : at + 1;
    }
  }

  #option(option: string): void {
    switch (option) {
      case 'close':
        this.connectionClose = true;
        return;
      case 'keep-alive':
        this.connectionKeepAlive = true;
        return;
      case 'upgrade':
        this.connectionUpgrade = true;
        return;
      case 'te':
        return;
      default:
        this.nominated ??= [];
        this.nominated.push(option);
    }
  }
}

function isBlank(code: number): boolean {
  return code === SPACE || code === HTAB;
}

/** Content-Length is digits alone (RFC 9110 section 8.6); signs, lists and blanks inside are refused. */
function readLength(bytes: Uint8Array, start: number, end: number): number {
  let length = 0;
  for (let at = start; at < end; at++) {
    const digit = bytes[at]! - 0x30;
    if (digit < 0 || digit > 9) throw lengthError();
    length = length * 10 + digit;
  }
  if (end === start || end - start > LENGTH_DIGITS_MAX || length > Number.MAX_SAFE_INTEGER) throw lengthError();
  return length;
}

function lengthError(): Http1Error {
  return new Http1Error('content-length-invalid', 'read Content-Length: expected one decimal number');
}

/** Compares with `text`, which is in lower case. */
export function equalsLower(bytes: Uint8Array, start: number, end: number, text: string): boolean {
  if (end - start !== text.length) return false;
  for (let index = 0; index < text.length; index++) {
    if (TOKEN_LOWER[bytes[start + index]!] !== text.charCodeAt(index)) return false;
  }
  return true;
}

/** True when a comma-separated list has `token`, parameters aside. */
function hasToken(bytes: Uint8Array, start: number, end: number, token: string): boolean {
  return latin1(bytes, start, end)
    .toLowerCase()
    .split(',')
    .some((part) => part.split(';')[0]!.trim() === token);
}

function nameError(code: number, isFirst: boolean): Http1Error {
  if (isFirst && isBlank(code)) {
    return new Http1Error('line-folding', 'read a field: expected a name, got a folded line');
  }
  if (code === LF) return new Http1Error('bare-lf', 'read a field name: expected a colon, got a bare line feed');
  return new Http1Error('field-name-invalid', 'read a field name: expected token characters and a colon');
}

function valueError(code: number): Http1Error {
  if (code === LF) return new Http1Error('bare-lf', 'read a field value: expected CRLF, got a bare line feed');
  if (code === CR) return new Http1Error('bare-cr', 'read a field value: expected CRLF, got a bare carriage return');
  return new Http1Error('field-value-invalid', 'read a field value: expected no control characters');
}
