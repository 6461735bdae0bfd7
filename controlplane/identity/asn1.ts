// DER in and out for certificates and signing requests (X.690, RFC 5280, RFC 2986). node-forge assembles and parses
// the structures; keys and signatures belong to node:crypto, since forge has no elliptic curves. Only forge's ASN.1
// file is loaded: the whole library costs 13 MiB and 40 ms, this file 5 MiB and 3 ms.

import { createRequire } from 'node:module';
import type { asn1 as ForgeAsn1 } from 'node-forge';
import { HeddleError } from '#lib/errors.ts';

/** The published types lack the options form of `fromDer`. */
type Forge = typeof ForgeAsn1 & { fromDer(bytes: string, options: Record<string, boolean>): ForgeAsn1.Asn1 };
const asn1 = createRequire(import.meta.url)('node-forge/lib/asn1') as Forge;

export type Asn1Node = ForgeAsn1.Asn1;
const { Class, Type } = asn1;

/** Larger inputs are refused before parsing: a P-256 request is about 350 bytes, a certificate about 700. */
export const DER_BYTES_MAX = 16 * 1024;

/** Object identifiers by the names that their standards give them. */
export const Oid = {
  commonName: '2.5.4.3',
  ecPublicKey: '1.2.840.10045.2.1',
  prime256v1: '1.2.840.10045.3.1.7',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  ecdsaWithSha384: '1.2.840.10045.4.3.3',
  extensionRequest: '1.2.840.113549.1.9.14',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const;

/** Parses exactly one DER value. Throws `bad-der` for trailing bytes, indefinite lengths and other non-DER. */
export function parseDer(bytes: Uint8Array): Asn1Node {
  if (bytes.length > DER_BYTES_MAX) {
    throw new HeddleError('bad-der', `parse DER of ${bytes.length} bytes: expected at most ${DER_BYTES_MAX}`);
  }
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
  let node: Asn1Node;
  try {
    node = asn1.fromDer(text, { strict: true, parseAllBytes: true, decodeBitStrings: false });
  } catch (cause) {
    throw new HeddleError('bad-der', 'parse DER: expected one well-formed value', { cause });
  }
  // Signatures cover bytes: a value that encodes differently from how it came would be verified against other bytes.
  if (asn1.toDer(node).getBytes() !== text) throw new HeddleError('bad-der', 'parse DER: expected distinguished form');
  return node;
}

export function toDer(node: Asn1Node): Buffer {
  return Buffer.from(asn1.toDer(node).getBytes(), 'latin1');
}

/** A universal type by its name, or the number of a context-specific tag. */
export type Asn1Tag = keyof typeof Type | number;

/** The elements of a constructed value with that tag. Throws `bad-der` for anything else. */
export function elements(node: Asn1Node | undefined, what: string, tag: Asn1Tag = 'SEQUENCE'): Asn1Node[] {
  if (node && hasTag(node, tag) && Array.isArray(node.value)) return node.value;
  throw new HeddleError('bad-der', `read ${what}: expected a constructed value with tag ${tag}`);
}

/** The contents of a primitive value with that tag. Throws `bad-der` for anything else. */
export function contents(node: Asn1Node | undefined, what: string, tag: Asn1Tag): Buffer {
  if (node && hasTag(node, tag) && typeof node.value === 'string') return Buffer.from(node.value, 'latin1');
  throw new HeddleError('bad-der', `read ${what}: expected a primitive value with tag ${tag}`);
}

export function hasTag(node: Asn1Node, tag: Asn1Tag): boolean {
  return typeof tag === 'number'
    ? node.tagClass === Class.CONTEXT_SPECIFIC && (node.type as number) === tag
    : node.tagClass === Class.UNIVERSAL && node.type === Type[tag];
}

/** The dotted form of an object identifier. */
export function readOid(node: Asn1Node | undefined, what: string): string {
  return asn1.derToOid(contents(node, what, 'OID').toString('latin1'));
}

/** The bytes of a BIT STRING whose length is a multiple of eight, as keys and signatures are. */
export function readBitString(node: Asn1Node | undefined, what: string): Buffer {
  const bytes = contents(node, what, 'BITSTRING');
  if (bytes[0] === 0) return bytes.subarray(1);
  throw new HeddleError('bad-der', `read ${what}: expected a bit string of whole bytes`);
}

export function sequence(...items: Asn1Node[]): Asn1Node {
  return asn1.create(Class.UNIVERSAL, Type.SEQUENCE, true, items);
}

export function setOf(...items: Asn1Node[]): Asn1Node {
  return asn1.create(Class.UNIVERSAL, Type.SET, true, items);
}

export function oid(dotted: string): Asn1Node {
  return primitive(Type.OID, Buffer.from(asn1.oidToDer(dotted).getBytes(), 'latin1'));
}

/** A non-negative INTEGER from its big-endian bytes in minimal form. */
export function unsigned(bytes: Buffer): Asn1Node {
  let start = 0;
  while (start < bytes.length - 1 && bytes[start] === 0) start++;
  const minimal = bytes.subarray(start);
  return primitive(Type.INTEGER, minimal[0]! >= 0x80 ? Buffer.concat([Buffer.of(0), minimal]) : minimal);
}

export function bitString(bytes: Buffer, unusedBits = 0): Asn1Node {
  return primitive(Type.BITSTRING, Buffer.concat([Buffer.of(unusedBits), bytes]));
}

export function octetString(bytes: Buffer): Asn1Node {
  return primitive(Type.OCTETSTRING, bytes);
}

export function boolean(value: boolean): Asn1Node {
  return primitive(Type.BOOLEAN, Buffer.of(value ? 0xff : 0));
}

export function utf8(text: string): Asn1Node {
  return primitive(Type.UTF8, Buffer.from(text, 'utf8'));
}

/** `[tag] EXPLICIT` around the items. */
export function explicit(tag: number, ...items: Asn1Node[]): Asn1Node {
  return asn1.create(Class.CONTEXT_SPECIFIC, tag as ForgeAsn1.Type, true, items);
}

/** `[tag] IMPLICIT` of a primitive type. */
export function implicit(tag: number, bytes: Buffer): Asn1Node {
  return asn1.create(Class.CONTEXT_SPECIFIC, tag as ForgeAsn1.Type, false, bytes.toString('latin1'));
}

/** RFC 5280 section 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050 on, whole seconds. */
export function time(wallMs: number): Asn1Node {
  const text = `${new Date(wallMs).toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`;
  const isUtc = new Date(wallMs).getUTCFullYear() < 2050;
  return primitive(isUtc ? Type.UTCTIME : Type.GENERALIZEDTIME, Buffer.from(isUtc ? text.slice(2) : text));
}

/** A Name with one common name, or the empty Name. */
export function distinguishedName(commonName: string): Asn1Node {
  return commonName ? sequence(setOf(sequence(oid(Oid.commonName), utf8(commonName)))) : sequence();
}

function primitive(type: ForgeAsn1.Type, bytes: Buffer): Asn1Node {
  return asn1.create(Class.UNIVERSAL, type, false, bytes.toString('latin1'));
}
