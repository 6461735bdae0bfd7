// Appends frames to a buffer, RFC 9113 section 6.

import type { ByteWriter } from '#lib/byte-writer.ts';
import { Flag, FRAME_HEADER_BYTES, FrameType } from './constants.ts';

export function writeFrameHeader(
  out: ByteWriter,
  length: number,
  type: number,
  flags: number,
  streamId: number,
): number {
  const at = out.reserve(FRAME_HEADER_BYTES + length);
  putFrameHeader(out.bytes, at, length, type, flags, streamId);
  out.length = at + FRAME_HEADER_BYTES;
  return out.length;
}

export function putFrameHeader(
  bytes: Uint8Array,
  at: number,
  length: number,
  type: number,
  flags: number,
  streamId: number,
): void {
  bytes[at] = length >>> 16;
  bytes[at + 1] = length >>> 8;
  bytes[at + 2] = length;
  bytes[at + 3] = type;
  bytes[at + 4] = flags;
  putUint32(bytes, at + 5, streamId);
}

function putUint32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** One DATA frame; the caller has cut the bytes to the peer's SETTINGS_MAX_FRAME_SIZE. */
export function writeData(out: ByteWriter, streamId: number, bytes: Uint8Array, endStream: boolean): void {
  const at = writeFrameHeader(out, bytes.length, FrameType.DATA, endStream ? Flag.END_STREAM : 0, streamId);
  out.bytes.set(bytes, at);
  out.length = at + bytes.length;
}

export function writeRstStream(out: ByteWriter, streamId: number, code: number): void {
  const at = writeFrameHeader(out, 4, FrameType.RST_STREAM, 0, streamId);
  putUint32(out.bytes, at, code);
  out.length = at + 4;
}

/** Pairs of identifier and value, section 6.5.1. */
export function writeSettings(out: ByteWriter, settings: readonly (readonly [id: number, value: number])[]): void {
  let at = writeFrameHeader(out, settings.length * 6, FrameType.SETTINGS, 0, 0);
  for (const [id, value] of settings) {
    out.bytes[at] = id >>> 8;
    out.bytes[at + 1] = id;
    putUint32(out.bytes, at + 2, value);
    at += 6;
  }
  out.length = at;
}

export function writeSettingsAck(out: ByteWriter): void {
  writeFrameHeader(out, 0, FrameType.SETTINGS, Flag.ACK, 0);
}

/** `opaque` are eight octets, section 6.7. */
export function writePing(out: ByteWriter, opaque: Uint8Array, isAck: boolean): void {
  const at = writeFrameHeader(out, 8, FrameType.PING, isAck ? Flag.ACK : 0, 0);
  out.bytes.set(opaque, at);
  out.length = at + 8;
}

export function writeGoaway(out: ByteWriter, lastStreamId: number, code: number, debug: string): void {
  const length = 8 + debug.length;
  const at = writeFrameHeader(out, length, FrameType.GOAWAY, 0, 0);
  putUint32(out.bytes, at, lastStreamId);
  putUint32(out.bytes, at + 4, code);
  for (let index = 0; index < debug.length; index++) out.bytes[at + 8 + index] = debug.charCodeAt(index) & 0x7f;
  out.length = at + length;
}

export function writeWindowUpdate(out: ByteWriter, streamId: number, increment: number): void {
  const at = writeFrameHeader(out, 4, FrameType.WINDOW_UPDATE, 0, streamId);
  putUint32(out.bytes, at, increment);
  out.length = at + 4;
}

/**
 * Turns the header block that starts at `at` in `out` (nine octets were left free in front of it) into a HEADERS frame
 * and as many CONTINUATION frames as `frameBytesMax` asks for, section 6.10.
 */
export function finishHeaderBlock(
  out: ByteWriter,
  at: number,
  streamId: number,
  endStream: boolean,
  frameBytesMax: number,
): void {
  const block = out.length - at;
  const ends = endStream ? Flag.END_STREAM : 0;
  if (block <= frameBytesMax) {
    putFrameHeader(out.bytes, at - FRAME_HEADER_BYTES, block, FrameType.HEADERS, ends | Flag.END_HEADERS, streamId);
    return;
  }
  putFrameHeader(out.bytes, at - FRAME_HEADER_BYTES, frameBytesMax, FrameType.HEADERS, ends, streamId);
  const rest = out.bytes.slice(at + frameBytesMax, out.length);
  out.length = at + frameBytesMax;
  for (let from = 0; from < rest.length; from += frameBytesMax) {
    const part = rest.subarray(from, from + frameBytesMax);
    const isLast = from + frameBytesMax >= rest.length;
    const put = writeFrameHeader(out, part.length, FrameType.CONTINUATION, isLast ? Flag.END_HEADERS : 0, streamId);
    out.bytes.set(part, put);
    out.length = put + part.length;
  }
}
