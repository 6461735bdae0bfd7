// The preface between proxies on an ALPN `transport.l5d.io/v1` connection: which port and protocol the bytes are for.
// 23 bytes of ASCII, a big-endian u32 length, a protobuf message transport.l5d.io.Header.

export interface TransportHeader {
  port: number;
  /** The target's name, for gateways; empty otherwise. */
  name: string;
  /** Null: opaque. */
  sessionProtocol: 'http1' | 'http2' | null;
}

export type TransportHeaderResult =
  | { kind: 'incomplete' }
  /** The bytes are not a transport header; `reason` says why. */
  | { kind: 'invalid'; reason: string }
  /** `bytesUsed` bytes were the header; what follows belongs to the session. */
  | { kind: 'header'; header: TransportHeader; bytesUsed: number };

export const TRANSPORT_HEADER_ALPN = 'transport.l5d.io/v1';
/** A protobuf message longer than this is invalid. A DNS name has 253 bytes at most. */
export const TRANSPORT_HEADER_BYTES_MAX = 1024;

const PREFACE = new TextEncoder().encode(`${TRANSPORT_HEADER_ALPN}\r\n\r\n`);
const LENGTH_BYTES = 4;

/** Fields of Header and SessionProtocol. */
const FIELD_PORT = 1;
const FIELD_NAME = 2;
const FIELD_SESSION_PROTOCOL = 3;
const FIELD_HTTP1 = 1;
const FIELD_HTTP2 = 2;
const WIRE_VARINT = 0;
const WIRE_FIXED64 = 1;
const WIRE_BYTES = 2;
const WIRE_FIXED32 = 5;

/** The whole preface, to be sent as the first bytes of the connection. `port` is 1 to 65535. */
export function encodeTransportHeader(header: TransportHeader): Uint8Array {
  const name = new TextEncoder().encode(header.name);
  const message: number[] = [(FIELD_PORT << 3) | WIRE_VARINT];
  writeVarint(message, header.port);
  if (name.length > 0) {
    message.push((FIELD_NAME << 3) | WIRE_BYTES);
    writeVarint(message, name.length);
    message.push(...name);
  }
  if (header.sessionProtocol !== null) {
    const field = header.sessionProtocol === 'http1' ? FIELD_HTTP1 : FIELD_HTTP2;
    message.push((FIELD_SESSION_PROTOCOL << 3) | WIRE_BYTES, 2, (field << 3) | WIRE_BYTES, 0);
  }
  const bytes = new Uint8Array(PREFACE.length + LENGTH_BYTES + message.length);
  bytes.set(PREFACE);
  new DataView(bytes.buffer).setUint32(PREFACE.length, message.length);
  bytes.set(message, PREFACE.length + LENGTH_BYTES);
  return bytes;
}

/** Reads the preface from the first bytes of a connection. */
export function decodeTransportHeader(bytes: Uint8Array): TransportHeaderResult {
  for (let at = 0; at < PREFACE.length && at < bytes.length; at++) {
    if (bytes[at] !== PREFACE[at]) return { kind: 'invalid', reason: 'the preface is missing' };
  }
  const start = PREFACE.length + LENGTH_BYTES;
  if (bytes.length < start) return { kind: 'incomplete' };
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(PREFACE.length);
  if (length > TRANSPORT_HEADER_BYTES_MAX) {
    return {
      kind: 'invalid',
      reason: `the message has ${length} bytes, at most ${TRANSPORT_HEADER_BYTES_MAX} allowed`,
    };
  }
  if (bytes.length < start + length) return { kind: 'incomplete' };
  const header = readHeader(bytes.subarray(start, start + length));
  if (header === null) return { kind: 'invalid', reason: 'the message is no transport.l5d.io.Header' };
  if (header.port < 1 || header.port > 65_535)
    return { kind: 'invalid', reason: `port ${header.port} is out of range` };
  return { kind: 'header', header, bytesUsed: start + length };
}

function readHeader(message: Uint8Array): TransportHeader | null {
  const header: TransportHeader = { port: 0, name: '', sessionProtocol: null };
  const isRead = eachField(message, (field, number, bytes) => {
    if (field === FIELD_PORT && bytes === null) header.port = number;
    else if (field === FIELD_NAME && bytes !== null) header.name = new TextDecoder().decode(bytes);
    else if (field === FIELD_SESSION_PROTOCOL && bytes !== null) {
      return eachField(bytes, (kind) => {
        if (kind === FIELD_HTTP1) header.sessionProtocol = 'http1';
        else if (kind === FIELD_HTTP2) header.sessionProtocol = 'http2';
        return true;
      });
    }
    return true;
  });
  return isRead ? header : null;
}

/** Calls `visit` for each protobuf field, with its number or its bytes. False when malformed, or when `visit` says so. */
function eachField(
  message: Uint8Array,
  visit: (field: number, number: number, bytes: Uint8Array | null) => boolean,
): boolean {
  const cursor = { at: 0 };
  while (cursor.at < message.length) {
    const tag = readVarint(message, cursor);
    const wire = tag & 7;
    const field = Math.floor(tag / 8);
    if (field === 0) return false;
    const value = wire === WIRE_VARINT || wire === WIRE_BYTES ? readVarint(message, cursor) : 0;
    const skip = wire === WIRE_BYTES ? value : wire === WIRE_FIXED64 ? 8 : wire === WIRE_FIXED32 ? 4 : 0;
    if (wire > WIRE_BYTES && wire !== WIRE_FIXED32) return false;
    if (tag < 0 || value < 0 || cursor.at + skip > message.length) return false;
    const bytes = wire === WIRE_BYTES ? message.subarray(cursor.at, cursor.at + skip) : null;
    cursor.at += skip;
    if (!visit(field, value, bytes)) return false;
  }
  return true;
}

/** -1 when there is none. */
function readVarint(message: Uint8Array, cursor: { at: number }): number {
  let value = 0;
  for (let shift = 0; shift < 49 && cursor.at < message.length; shift += 7) {
    const byte = message[cursor.at++]!;
    value += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) return value;
  }
  return -1;
}

function writeVarint(out: number[], value: number): void {
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) out.push((rest % 128) | 0x80);
  out.push(rest);
}
