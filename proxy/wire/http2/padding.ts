// Padding of DATA and HEADERS, RFC 9113 sections 6.1 and 6.2.

import { ErrorCode, Flag } from './constants.ts';
import { Http2Error } from './error.ts';

/** The payload without padding. Throws Http2Error when the padding is as long as the payload or longer. */
export function trim(flags: number, bytes: Uint8Array, start: number, end: number): { start: number; end: number } {
  if ((flags & Flag.PADDED) === 0) return { start, end };
  const padding = start < end ? bytes[start]! : end;
  if (start + 1 + padding > end) throw new Http2Error(ErrorCode.PROTOCOL_ERROR, 'padding is longer than its frame');
  return { start: start + 1, end: end - padding };
}
