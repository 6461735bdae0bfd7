// Request line (RFC 9112 section 3) and status line (section 4), read strictly. Offsets are relative to the head's first
// byte.

import { CR, FIELD_VALUE, LF, latin1, REQUEST_TARGET, SPACE, TOKEN_LOWER } from './characters.ts';
import { Http1Error } from './error.ts';
import { INCOMPLETE } from './fields.ts';

/** Reads the first line of a head. */
export interface StartLine {
  reset(): void;
  /** Returns the offset behind the line's CRLF, or INCOMPLETE. Throws Http1Error. */
  read(bytes: Uint8Array, at: number, end: number, origin: number): number;
}

const METHOD_BYTES_MAX = 64;
const REASON_BYTES_MAX = 512;
const VERSION_BYTES = 8;
const METHODS = ['GET', 'POST', 'PUT', 'HEAD', 'DELETE', 'OPTIONS', 'PATCH', 'CONNECT', 'TRACE'];

export class RequestLine implements StartLine {
  method = '';
  targetStart = 0;
  targetEnd = 0;
  /** 0: HTTP/1.0, 1: HTTP/1.1. */
  minorVersion = 1;
  readonly #targetBytesMax: number;

  constructor(targetBytesMax: number) {
    this.#targetBytesMax = targetBytesMax;
  }

  reset(): void {
    this.method = '';
  }

  read(bytes: Uint8Array, at: number, end: number, origin: number): number {
    let methodEnd = at;
    while (methodEnd < end && TOKEN_LOWER[bytes[methodEnd]!] !== 0) methodEnd++;
    if (methodEnd - at > METHOD_BYTES_MAX) throw lineError('a shorter method');
    if (methodEnd === end) return INCOMPLETE;
    if (bytes[methodEnd] !== SPACE || methodEnd === at) throw lineError('a method and a space');
    const start = methodEnd + 1;
    let stop = start;
    while (stop < end && REQUEST_TARGET[bytes[stop]!] === 1) stop++;
    if (stop - start > this.#targetBytesMax) {
      throw new Http1Error('target-too-long', `read a target: expected at most ${this.#targetBytesMax} bytes`, 414);
    }
    if (stop === end) return INCOMPLETE;
    if (bytes[stop] !== SPACE || stop === start) throw lineError('a target and a space');
    const version = readVersion(bytes, stop + 1, end);
    if (version === INCOMPLETE) return INCOMPLETE;
    const next = readLineEnd(bytes, stop + 1 + VERSION_BYTES, end);
    if (next === INCOMPLETE) return INCOMPLETE;
    this.method = methodName(bytes, at, methodEnd);
    this.targetStart = start - origin;
    this.targetEnd = stop - origin;
    this.minorVersion = version;
    return next;
  }
}

export class StatusLine implements StartLine {
  status = 0;
  reasonStart = 0;
  reasonEnd = 0;
  minorVersion = 1;

  reset(): void {
    this.status = 0;
  }

  read(bytes: Uint8Array, at: number, end: number, origin: number): number {
    const version = readVersion(bytes, at, end);
    if (version === INCOMPLETE) return INCOMPLETE;
    const start = at + VERSION_BYTES;
    if (start < end && bytes[start] !== SPACE) throw lineError('a space behind the version');
    let status = 0;
    for (let index = 1; index <= 3; index++) {
      if (start + index >= end) return INCOMPLETE;
      const digit = bytes[start + index]! - 0x30;
      if (digit < 0 || digit > 9) throw lineError('a status of three digits');
      status = status * 10 + digit;
    }
    if (status < 100) throw lineError('a status of at least 100');
    let reason = start + 4;
    // The space before an empty reason is often left out, against section 4; nothing else can be meant.
    if (reason < end && bytes[reason] === SPACE) reason++;
    else if (reason < end && bytes[reason] !== CR) throw lineError('a space behind the status');
    let stop = reason;
    while (stop < end && FIELD_VALUE[bytes[stop]!] === 1) stop++;
    if (stop - reason > REASON_BYTES_MAX) throw lineError('a shorter reason');
    const next = readLineEnd(bytes, stop, end);
    if (next === INCOMPLETE) return INCOMPLETE;
    this.status = status;
    this.reasonStart = reason - origin;
    this.reasonEnd = stop - origin;
    this.minorVersion = version;
    return next;
  }
}

/** `HTTP/1.0` or `HTTP/1.1` in upper case, nothing else; returns the minor version. */
function readVersion(bytes: Uint8Array, at: number, end: number): number {
  const expected = 'HTTP/1.';
  for (let index = 0; index < expected.length; index++) {
    if (at + index >= end) return INCOMPLETE;
    if (bytes[at + index] !== expected.charCodeAt(index)) throw versionError();
  }
  if (at + expected.length >= end) return INCOMPLETE;
  const minor = bytes[at + expected.length]! - 0x30;
  if (minor !== 0 && minor !== 1) throw versionError();
  return minor;
}

function readLineEnd(bytes: Uint8Array, at: number, end: number): number {
  if (at >= end) return INCOMPLETE;
  if (bytes[at] === LF) throw new Http1Error('bare-lf', 'read the start line: expected CRLF, got a bare line feed');
  if (bytes[at] !== CR) throw lineError('CRLF');
  if (at + 1 >= end) return INCOMPLETE;
  if (bytes[at + 1] !== LF) {
    throw new Http1Error('bare-cr', 'read the start line: expected CRLF, got a bare carriage return');
  }
  return at + 2;
}

function methodName(bytes: Uint8Array, start: number, end: number): string {
  for (const method of METHODS) {
    if (method.length !== end - start) continue;
    let index = 0;
    while (index < method.length && bytes[start + index] === method.charCodeAt(index)) index++;
    if (index === method.length) return method;
  }
  return latin1(bytes, start, end);
}

function lineError(expected: string): Http1Error {
  return new Http1Error('start-line-invalid', `read the start line: expected ${expected}`);
}

function versionError(): Http1Error {
  return new Http1Error('version-unknown', 'read the version: expected "HTTP/1.1" or "HTTP/1.0"');
}
