// Which byte may stand where, as tables (RFC 9110 section 5.5 and 5.6.2, RFC 3986, RFC 9112).

export const HTAB = 0x09;
export const LF = 0x0a;
export const CR = 0x0d;
export const SPACE = 0x20;
export const COLON = 0x3a;

/** Token characters map to themselves in lower case, all others to 0. */
export const TOKEN_LOWER = table(
  "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
  lower,
);

/** field-content and whitespace: HTAB, SP, VCHAR, obs-text. */
export const FIELD_VALUE = range((code) => code === HTAB || (code >= SPACE && code !== 0x7f));

/** request-target: VCHAR and obs-text without `#`, which would begin a fragment that no request has. */
export const REQUEST_TARGET = range((code) => code > SPACE && code !== 0x7f && code !== 0x23);

/** uri-host and port, RFC 3986 section 3.2.2: no userinfo, no delimiters of other parts. */
export const AUTHORITY = table(
  "-._~%!$&'()*+,;=:[]0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
  () => 1,
);

/** Value of a hexadecimal digit; 255 for every other byte. */
export const HEX_VALUE = hex();

function lower(code: number): number {
  return code >= 0x41 && code <= 0x5a ? code | 0x20 : code;
}

function table(characters: string, value: (code: number) => number): Uint8Array {
  const result = new Uint8Array(256);
  for (const character of characters) result[character.charCodeAt(0)] = value(character.charCodeAt(0));
  return result;
}

function range(accepts: (code: number) => boolean): Uint8Array {
  const result = new Uint8Array(256);
  for (let code = 0; code < 256; code++) result[code] = accepts(code) ? 1 : 0;
  return result;
}

function hex(): Uint8Array {
  const result = new Uint8Array(256).fill(255);
  for (let digit = 0; digit < 16; digit++) {
    const character = digit.toString(16);
    result[character.charCodeAt(0)] = digit;
    result[character.toUpperCase().charCodeAt(0)] = digit;
  }
  return result;
}

/** Bytes as latin1 text. `latin1Slice` is `toString('latin1')` without argument checks, and has no type. */
export function latin1(bytes: Uint8Array, start: number, end: number): string {
  return (bytes as Uint8Array & { latin1Slice(start: number, end: number): string }).latin1Slice(start, end);
}

/** The same latin1 text in memory of its own: V8 keeps the text that a substring was taken from. */
export function ownCopy(text: string): string {
  return Buffer.from(text, 'latin1').toString('latin1');
}
