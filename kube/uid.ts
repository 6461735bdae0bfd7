// UIDs and hashes of objects that no API server made: the same input gives the same UID in every process.

import { createHash } from 'node:crypto';
import type { ObjectKey } from './source.ts';

/** A UUID (RFC 9562 version 8) from the hash of what it stands for. */
export function uidOf(kind: string, { namespace, name }: ObjectKey): string {
  const bytes = createHash('sha256').update(`${kind}\0${namespace}\0${name}`).digest().subarray(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = bytes.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/** Kubernetes' alphabet of generated names: no vowels, nothing easily confused. */
const ALPHABET = 'bcdfghjklmnpqrstvwxz2456789';

/** `length` characters for a value, the same for equal values whatever the order of their fields. */
export function nameHash(value: unknown, length: number): string {
  const digest = createHash('sha256').update(canonicalJson(value)).digest();
  return Array.from({ length }, (_, index) => ALPHABET[digest[index]! % ALPHABET.length]).join('');
}

/** JSON with the fields of every object in order. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}
