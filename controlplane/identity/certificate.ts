// X.509 v3 certificates (RFC 5280): the fields that a trust anchor, an issuer and a workload's leaf have, assembled and
// signed. Pure: time, serial and keys come from the caller.

import { createPrivateKey, type KeyObject, sign } from 'node:crypto';
import { HeddleError } from '#lib/errors.ts';
import {
  type Asn1Node,
  bitString,
  boolean,
  contents,
  distinguishedName,
  elements,
  explicit,
  hasTag,
  implicit,
  Oid,
  octetString,
  oid,
  parseDer,
  sequence,
  time,
  toDer,
  unsigned,
} from './asn1.ts';
import { keyIdentifier } from './csr.ts';

export interface CertificateFields {
  serial: Buffer;
  /** DER Name of the issuer. */
  issuerName: Buffer;
  /** DER Name of the subject; an empty one makes the alternative names critical, as section 4.2.1.6 asks. */
  subjectName: Buffer;
  notBeforeMs: number;
  notAfterMs: number;
  publicKeyDer: Buffer;
  /** Subject key identifier of the issuer; absent in a self-signed certificate. */
  authorityKeyId?: Buffer;
  usage: AuthorityUsage | LeafUsage;
}

export interface AuthorityUsage {
  kind: 'authority';
  /** How many authorities may follow below; null for no bound. */
  pathLength: number | null;
}

export interface LeafUsage {
  kind: 'leaf';
  dnsName: string;
  /** Second in the list: peers that take the first name see the DNS form. */
  uri: string;
}

/** Bit strings of section 4.2.1.3. */
const KeyUsage = {
  digitalSignature: bitString(Buffer.of(0x80), 7),
  certAndCrlSign: bitString(Buffer.of(0x06), 1),
} as const;

/** Signs the certificate with the issuer's key (P-256 or P-384) and returns its DER. */
export function signCertificate(fields: CertificateFields, issuerKey: KeyObject): Buffer {
  const { hash, signatureOid } = signatureOf(issuerKey);
  const algorithm = (): Asn1Node => sequence(oid(signatureOid));
  const body = sequence(
    explicit(0, unsigned(Buffer.of(2))),
    unsigned(fields.serial),
    algorithm(),
    parseDer(fields.issuerName),
    sequence(time(fields.notBeforeMs), time(fields.notAfterMs)),
    parseDer(fields.subjectName),
    parseDer(fields.publicKeyDer),
    explicit(3, sequence(...extensionsOf(fields))),
  );
  return toDer(sequence(body, algorithm(), bitString(sign(hash, toDer(body), issuerKey))));
}

function signatureOf(key: KeyObject): { hash: 'sha256' | 'sha384'; signatureOid: string } {
  const curve = key.asymmetricKeyDetails?.namedCurve;
  if (curve === 'prime256v1') return { hash: 'sha256', signatureOid: Oid.ecdsaWithSha256 };
  if (curve === 'secp384r1') return { hash: 'sha384', signatureOid: Oid.ecdsaWithSha384 };
  throw new HeddleError(
    'issuer-key',
    `use the issuer key of type "${curve ?? key.asymmetricKeyType}": expected ECDSA P-256 or P-384`,
  );
}

function extensionsOf(fields: CertificateFields): Asn1Node[] {
  const { usage } = fields;
  const extensions =
    usage.kind === 'authority'
      ? [
          extension(Oid.basicConstraints, true, basicConstraints(usage)),
          extension(Oid.keyUsage, true, KeyUsage.certAndCrlSign),
        ]
      : [
          extension(Oid.basicConstraints, true, sequence()),
          extension(Oid.keyUsage, true, KeyUsage.digitalSignature),
          extension(Oid.extendedKeyUsage, false, sequence(oid(Oid.serverAuth), oid(Oid.clientAuth))),
          extension(
            Oid.subjectAltName,
            fields.subjectName.equals(EMPTY_NAME),
            sequence(implicit(2, Buffer.from(usage.dnsName, 'latin1')), implicit(6, Buffer.from(usage.uri, 'latin1'))),
          ),
        ];
  extensions.push(extension(Oid.subjectKeyIdentifier, false, octetString(keyIdentifier(fields.publicKeyDer))));
  if (fields.authorityKeyId) {
    extensions.push(extension(Oid.authorityKeyIdentifier, false, sequence(implicit(0, fields.authorityKeyId))));
  }
  return extensions;
}

function basicConstraints(usage: AuthorityUsage): Asn1Node {
  return usage.pathLength === null
    ? sequence(boolean(true))
    : sequence(boolean(true), unsigned(Buffer.of(usage.pathLength)));
}

function extension(type: string, isCritical: boolean, value: Asn1Node): Asn1Node {
  const octets = octetString(toDer(value));
  // DER leaves a value out that equals its default, and `critical` is false by default.
  return isCritical ? sequence(oid(type), boolean(true), octets) : sequence(oid(type), octets);
}

export const EMPTY_NAME: Buffer = toDer(distinguishedName(''));

/** The DER Name with one common name. */
export function commonNameOf(text: string): Buffer {
  return toDer(distinguishedName(text));
}

/** What signing below an authority needs of its certificate: its subject as DER, and its key's identifier. */
export function readAuthority(certificateDer: Uint8Array): { subjectName: Buffer; keyId: Buffer } {
  const fields = elements(elements(parseDer(certificateDer), 'certificate')[0], 'certificate body');
  // The version is absent in version 1, and everything shifts by one.
  const first = fields[0] && hasTag(fields[0], 0) ? 1 : 0;
  const subject = fields[first + 4];
  const publicKey = fields[first + 5];
  if (!subject || !publicKey) throw new HeddleError('bad-der', 'read the certificate: expected subject and key');
  return { subjectName: toDer(subject), keyId: subjectKeyId(fields) ?? keyIdentifier(toDer(publicKey)) };
}

/** The identifier written in the certificate, which need not be made by the method that we use. */
function subjectKeyId(fields: Asn1Node[]): Buffer | null {
  const extensions = fields.find((field) => hasTag(field, 3));
  if (!extensions) return null;
  for (const entry of elements(elements(extensions, 'extensions', 3)[0], 'extensions')) {
    const parts = elements(entry, 'extension');
    if (!toDer(parts[0]!).equals(SUBJECT_KEY_ID)) continue;
    const value = contents(parts.at(-1), 'subject key identifier', 'OCTETSTRING');
    return contents(parseDer(value), 'subject key identifier', 'OCTETSTRING');
  }
  return null;
}

const SUBJECT_KEY_ID = toDer(oid(Oid.subjectKeyIdentifier));

/** Parses a PEM private key. Throws `issuer-key` naming `what`. */
export function parsePrivateKey(pem: string | Buffer, what: string): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch (cause) {
    throw new HeddleError('issuer-key', `parse the private key "${what}": expected PEM, unencrypted`, { cause });
  }
}
