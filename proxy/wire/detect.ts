// Which protocol a connection speaks, told from its first bytes as linkerd2-proxy tells it: one read of at most 1024
// bytes decides, and fewer than 14 bytes are opaque. What looks like a request is HTTP/1 even where the strict codec
// will refuse it: sent on as opaque bytes it would reach the application unseen by any policy.

export type DetectedProtocol = 'http1' | 'http2' | 'opaque';

/** What one read takes into account. */
export const DETECT_BYTES_MAX = 1024;
/** Fewer bytes than this in the first read are opaque. It is the length of `PRI * HTTP/2.0`. */
export const DETECT_BYTES_MIN = 14;

const HTTP2_PREFACE = 'PRI * HTTP/2.0';
const VERSION_PREFIX = 'HTTP/';
const METHOD_BYTES_MAX = 32;
const CR = 0x0d;
const LF = 0x0a;
const SPACE = 0x20;

/** Judges the first read of a connection. */
export function detectProtocol(bytes: Uint8Array): DetectedProtocol {
  if (bytes.length < DETECT_BYTES_MIN) return 'opaque';
  const end = Math.min(bytes.length, DETECT_BYTES_MAX);
  if (startsWith(bytes, 0, end, HTTP2_PREFACE)) return 'http2';
  return looksLikeRequest(bytes, end) ? 'http1' : 'opaque';
}

/** True when the bytes are, or begin, `method SP target SP HTTP/`. */
function looksLikeRequest(bytes: Uint8Array, end: number): boolean {
  let at = 0;
  while (at < end && (bytes[at] === CR || bytes[at] === LF)) at++;
  const methodStart = at;
  while (at < end && isMethodByte(bytes[at]!)) at++;
  if (at === methodStart || at - methodStart > METHOD_BYTES_MAX || at === end || bytes[at] !== SPACE) return false;
  const targetStart = ++at;
  while (at < end && bytes[at]! > SPACE && bytes[at] !== 0x7f) at++;
  if (at === end) return true;
  return at > targetStart && bytes[at] === SPACE && startsWith(bytes, at + 1, end, VERSION_PREFIX);
}

/** Registered methods are upper-case letters and hyphens; a lower-case word begins many other protocols. */
function isMethodByte(code: number): boolean {
  return (code >= 0x41 && code <= 0x5a) || code === 0x2d || code === 0x5f;
}

/** True when `bytes[at..end)` has `text`, or ends within it. */
function startsWith(bytes: Uint8Array, at: number, end: number, text: string): boolean {
  for (let index = 0; index < text.length && at + index < end; index++) {
    if (bytes[at + index] !== text.charCodeAt(index)) return false;
  }
  return true;
}
