// Heads, chunks and trailers to bytes (RFC 9112), into memory of the caller's. Framing and connection fields are written
// here from what the head says; the layers' header lists hold none but Content-Length.

import type { RequestHead, ResponseHead } from '../../http.ts';
import { HeaderList, writeField, writeLatin1 } from '../headers.ts';

/** How the end of a body is told. */
export const Framing = {
  /** No body, or one of Content-Length bytes. */
  plain: 0,
  chunked: 1,
  /** Until the connection ends; for HTTP/1.0 clients. */
  untilEnd: 2,
} as const;
export type Framing = (typeof Framing)[keyof typeof Framing];

/** Room that status line, framing and connection fields need at most, target and header fields aside. */
const HEAD_OVERHEAD_BYTES = 1024;

/** At least as many bytes as `encodeRequestHead` writes. */
export function requestHeadBytesMax(head: RequestHead): number {
  const upgrade = head.upgrade?.length ?? 0;
  const names = head.method.length + 2 * head.authority.length + head.path.length;
  return HEAD_OVERHEAD_BYTES + names + upgrade + fieldsOf(head.headers).bytesMax;
}

/** At least as many bytes as `encodeResponseHead` writes. */
export function responseHeadBytesMax(head: ResponseHead): number {
  return HEAD_OVERHEAD_BYTES + head.reason.length + fieldsOf(head.headers).bytesMax;
}

/** Visible characters and obs-text: nothing that could end a part of the request line. */
const LINE_PART = /^[\x21-\x7e\x80-\xff]+$/;

/**
 * Why a request cannot be written as HTTP/1, or null. HTTP/2 lets characters through that would be a line's end here,
 * or the next part of the request line; HTTP/1 requests were checked when they were read.
 */
export function requestFault(head: RequestHead): string | null {
  if (head.version !== 'HTTP/2') return null;
  if (head.method === 'CONNECT' && head.upgrade !== 'connect') {
    return 'a tunnel of HTTP/2 has no form in HTTP/1: its bytes may come before the answer';
  }
  if (!LINE_PART.test(head.method)) return 'the method has characters that are not allowed in HTTP/1';
  if (head.method !== 'CONNECT' && !LINE_PART.test(head.path)) return 'the path has characters not allowed in HTTP/1';
  return head.authority === '' || LINE_PART.test(head.authority)
    ? null
    : 'the authority has characters not allowed in HTTP/1';
}

/** How a request with this head is framed. */
export function requestFraming(head: RequestHead): Framing {
  return head.bodyBytes === 'unknown' ? Framing.chunked : Framing.plain;
}

/** How a response with this head is framed towards a client of `version`. */
export function responseFraming(head: ResponseHead, version: 'HTTP/1.0' | 'HTTP/1.1'): Framing {
  if (head.bodyBytes !== 'unknown') return Framing.plain;
  return version === 'HTTP/1.0' ? Framing.untilEnd : Framing.chunked;
}

/**
 * Writes a request head at `at` and returns the offset behind it; `target` must have room for `requestHeadBytesMax`.
 * `isLast` asks the server to close behind its response.
 */
export function encodeRequestHead(head: RequestHead, target: Uint8Array, at: number, isLast = false): number {
  const headers = fieldsOf(head.headers);
  // Without a Host there is only HTTP/1.0 to say it in (RFC 9112 section 3.2).
  const isHostless = head.version === 'HTTP/1.0' && head.authority === '';
  let offset = writeLatin1(target, at, head.method);
  offset = writeLatin1(target, offset, ' ');
  offset = writeTarget(head, target, offset);
  offset = writeLatin1(target, offset, isHostless ? ' HTTP/1.0\r\n' : ' HTTP/1.1\r\n');
  if (!isHostless && headers.get('host') !== head.authority) {
    headers.remove('host');
    offset = writeField(target, offset, 'host', head.authority);
  }
  settleLength(headers, head.bodyBytes, true);
  offset = headers.write(target, offset);
  if (head.bodyBytes === 'unknown') offset = writeLatin1(target, offset, 'transfer-encoding: chunked\r\n');
  const upgrade = head.method === 'CONNECT' ? null : head.upgrade;
  if (upgrade !== null) {
    offset = writeField(target, offset, 'upgrade', upgrade);
    offset = writeLatin1(target, offset, 'connection: upgrade\r\n');
  } else if (isLast) offset = writeLatin1(target, offset, 'connection: close\r\n');
  if (headers.has('te')) offset = writeLatin1(target, offset, 'connection: te\r\n');
  return writeLatin1(target, offset, '\r\n');
}

export interface ResponseEncoding {
  /** What Content-Length is to say; null: whatever the head's fields say, if anything. */
  bodyBytes: number | null | 'unknown';
  framing: Framing;
  /** The connection closes behind this response. */
  isLast: boolean;
  /** The client speaks HTTP/1.0, where a connection lives on only when the response says so. */
  isHttp10: boolean;
}

/** Writes a response head at `at` and returns the offset behind it; room as `responseHeadBytesMax` says. */
export function encodeResponseHead(
  head: ResponseHead,
  encoding: ResponseEncoding,
  target: Uint8Array,
  at: number,
): number {
  const headers = fieldsOf(head.headers);
  let offset = writeLatin1(target, at, statusLine(head.status, head.reason));
  if (head.status === 204 || head.status < 200) headers.remove('content-length');
  else settleLength(headers, encoding.bodyBytes, false);
  offset = headers.write(target, offset);
  if (encoding.framing === Framing.chunked) offset = writeLatin1(target, offset, 'transfer-encoding: chunked\r\n');
  if (headers.has('upgrade')) offset = writeLatin1(target, offset, 'connection: upgrade\r\n');
  else if (encoding.isLast) offset = writeLatin1(target, offset, 'connection: close\r\n');
  else if (encoding.isHttp10) offset = writeLatin1(target, offset, 'connection: keep-alive\r\n');
  return writeLatin1(target, offset, '\r\n');
}

/** Size line of a chunk of `size` bytes; 16 bytes of room suffice. The chunk's data is followed by CRLF. */
export function encodeChunkSize(size: number, target: Uint8Array, at: number): number {
  return writeLatin1(target, at, `${size.toString(16)}\r\n`);
}

/** Room for `encodeLastChunk`. */
export function lastChunkBytesMax(trailers: HeaderList | null): number {
  return 5 + (trailers?.bytesMax ?? 0);
}

/** The end of a chunked body with its trailers. */
export function encodeLastChunk(trailers: HeaderList | null, target: Uint8Array, at: number): number {
  let offset = writeLatin1(target, at, '0\r\n');
  if (trailers !== null) offset = trailers.write(target, offset);
  return writeLatin1(target, offset, '\r\n');
}

/** The list that can be written in runs; another implementation of Headers is copied. */
export function fieldsOf(headers: RequestHead['headers']): HeaderList {
  if (headers instanceof HeaderList) return headers;
  const list = new HeaderList();
  for (let index = 0; index < headers.length; index++) list.add(headers.rawName(index), headers.value(index));
  return list;
}

function writeTarget(head: RequestHead, target: Uint8Array, at: number): number {
  if (head.method === 'CONNECT') return writeLatin1(target, at, head.authority);
  if (head.isAbsoluteForm !== true) return writeLatin1(target, at, head.path);
  return writeLatin1(target, at, `${head.scheme}://${head.authority}${head.path === '*' ? '' : head.path}`);
}

/** Makes Content-Length say what `bodyBytes` says: the peer reads the one, we send the other. */
function settleLength(headers: HeaderList, bodyBytes: number | null | 'unknown', isRequest: boolean): void {
  if (typeof bodyBytes === 'number') {
    const text = String(bodyBytes);
    if (headers.get('content-length') !== text) headers.set('content-length', text);
  } else if (bodyBytes === 'unknown' || isRequest) headers.remove('content-length');
}

const statusLines = new Map<number, { reason: string; line: string }>();
/** Statuses have three digits, so this many entries at most. */
function statusLine(status: number, reason: string): string {
  const known = statusLines.get(status);
  if (known?.reason === reason) return known.line;
  const line = `HTTP/1.1 ${status} ${reason}\r\n`;
  statusLines.set(status, { reason, line });
  return line;
}
