// Field names as interned lower-case strings, found by a hash over the bytes, so that a head costs no string per name
// and later comparisons are of pointers. Unknown names take slots that they may push one another out of.

import { latin1, TOKEN_LOWER } from './characters.ts';

/** How the decoder must treat a field. */
export const FieldKind = {
  plain: 0,
  host: 1,
  contentLength: 2,
  transferEncoding: 3,
  connection: 4,
  /** For this connection only; never passed on (RFC 9110 section 7.6.1). */
  hopByHop: 5,
  te: 6,
  upgrade: 7,
  /** Part of the message's meaning, so that a trailer may not carry it (RFC 9110 section 6.5.1). */
  notInTrailers: 8,
} as const;
export type FieldKind = (typeof FieldKind)[keyof typeof FieldKind];

export interface FieldName {
  readonly name: string;
  readonly kind: FieldKind;
}

const SPECIAL = new Map<string, FieldKind>([
  ['host', FieldKind.host],
  ['content-length', FieldKind.contentLength],
  ['transfer-encoding', FieldKind.transferEncoding],
  ['connection', FieldKind.connection],
  ['keep-alive', FieldKind.hopByHop],
  ['proxy-connection', FieldKind.hopByHop],
  ['te', FieldKind.te],
  ['upgrade', FieldKind.upgrade],
  ['content-encoding', FieldKind.notInTrailers],
  ['content-type', FieldKind.notInTrailers],
  ['content-range', FieldKind.notInTrailers],
  ['authorization', FieldKind.notInTrailers],
  ['cookie', FieldKind.notInTrailers],
  ['set-cookie', FieldKind.notInTrailers],
  ['expect', FieldKind.notInTrailers],
  ['trailer', FieldKind.notInTrailers],
]);

const COMMON =
  `accept accept-charset accept-encoding accept-language accept-ranges age allow alt-svc cache-control close
content-disposition content-language content-location content-security-policy date dnt etag expires forwarded from
grpc-status grpc-message if-match if-modified-since if-none-match if-range if-unmodified-since last-modified link location
max-forwards origin pragma priority proxy-authenticate proxy-authorization range referer referrer-policy retry-after
sec-fetch-dest sec-fetch-mode sec-fetch-site sec-websocket-accept sec-websocket-extensions sec-websocket-key
sec-websocket-protocol sec-websocket-version server strict-transport-security traceparent tracestate user-agent vary via
www-authenticate x-content-type-options x-forwarded-for x-forwarded-host x-forwarded-proto x-frame-options x-powered-by
x-real-ip x-request-id l5d-client-id l5d-dst-canonical l5d-dst-override l5d-orig-proto l5d-proxy-error
l5d-proxy-connection l5d-require-id b3 x-b3-traceid x-b3-spanid x-b3-parentspanid x-b3-sampled`.split(/\s+/);

const SLOTS = 2048;
/** Longer names are not kept. */
const KEPT_CHARS_MAX = 64;

const known: (FieldName | undefined)[] = new Array(SLOTS).fill(undefined);
const recent: (FieldName | undefined)[] = new Array(SLOTS).fill(undefined);

/** One step of the hash that `internFieldName` expects, over TOKEN_LOWER values. */
export function hashStep(hash: number, lowerCode: number): number {
  return (Math.imul(hash, 31) + lowerCode) | 0;
}

/** The name in `bytes[start..end)`, which has only token characters; `hash` is `hashStep` over all of them from 0. */
export function internFieldName(bytes: Uint8Array, start: number, end: number, hash: number): FieldName {
  const slot = hash & (SLOTS - 1);
  const fixed = known[slot];
  if (fixed !== undefined && isSame(fixed.name, bytes, start, end)) return fixed;
  const last = recent[slot];
  if (last !== undefined && isSame(last.name, bytes, start, end)) return last;
  const name = latin1(bytes, start, end).toLowerCase();
  const field = { name, kind: SPECIAL.get(name) ?? FieldKind.plain };
  if (name.length <= KEPT_CHARS_MAX) recent[slot] = field;
  return field;
}

function isSame(name: string, bytes: Uint8Array, start: number, end: number): boolean {
  if (name.length !== end - start) return false;
  for (let index = 0; index < name.length; index++) {
    if (name.charCodeAt(index) !== TOKEN_LOWER[bytes[start + index]!]) return false;
  }
  return true;
}

for (const name of [...SPECIAL.keys(), ...COMMON]) {
  let hash = 0;
  for (let index = 0; index < name.length; index++) hash = hashStep(hash, name.charCodeAt(index));
  known[hash & (SLOTS - 1)] ??= { name, kind: SPECIAL.get(name) ?? FieldKind.plain };
}
