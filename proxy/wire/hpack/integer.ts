// Integers with a prefix of 1 to 8 bits, RFC 7541 section 5.1.

import { HpackError } from './error.ts';

/** Larger than any length or index that makes sense; keeps the arithmetic below 2^31. */
const INTEGER_MAX = 0x0fffffff;

/** A place in a block of bytes. Decoding moves `at`. */
export interface Cursor {
  bytes: Uint8Array;
  at: number;
  end: number;
}

/** Reads an integer whose first octet holds `prefixBits` of it. Throws HpackError when it is cut off or too large. */
export function readInteger(cursor: Cursor, prefixBits: number): number {
  const mask = (1 << prefixBits) - 1;
  if (cursor.at >= cursor.end) throw new HpackError('integer ends before it began');
  let value = cursor.bytes[cursor.at++]! & mask;
  if (value < mask) return value;
  for (let shift = 0; ; shift += 7) {
    if (cursor.at >= cursor.end) throw new HpackError('integer is cut off');
    if (shift > 21) throw new HpackError('integer has more octets than any sensible value');
    const octet = cursor.bytes[cursor.at++]!;
    value += (octet & 0x7f) << shift;
    if (value > INTEGER_MAX) throw new HpackError('integer is too large');
    if ((octet & 0x80) === 0) return value;
  }
}

/** Octets that `writeInteger` needs at most. */
export const INTEGER_BYTES_MAX = 6;

/** Writes `value` behind the bits of `first` at `at` and returns the position behind it. */
export function writeInteger(out: Uint8Array, at: number, first: number, prefixBits: number, value: number): number {
  const mask = (1 << prefixBits) - 1;
  if (value < mask) {
    out[at] = first | value;
    return at + 1;
  }
  out[at++] = first | mask;
  let rest = value - mask;
  while (rest >= 0x80) {
    out[at++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  out[at++] = rest;
  return at;
}
