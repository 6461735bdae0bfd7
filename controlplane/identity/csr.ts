// PKCS #10 certificate requests (RFC 2986): parsing with proof of possession, the rules on names that Linkerd's
// identity service applies, and writing one for the control plane's own processes.

import { createHash, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { HeddleError } from '#lib/errors.ts';
import { Status } from '#lib/grpc/status.ts';
import {
  type Asn1Node,
  bitString,
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
  readBitString,
  readOid,
  sequence,
  setOf,
  toDer,
  unsigned,
} from './asn1.ts';
import { Refusal } from './refusal.ts';

/** Names in a request; every kind but DNS names and URIs is only counted, since none of them is ever allowed. */
export interface SubjectAltNames {
  dns: string[];
  uris: string[];
  emails: string[];
  ips: string[];
  others: number;
}

export interface CertificateRequest {
  /** SubjectPublicKeyInfo as it came; goes into the certificate unchanged. */
  publicKeyDer: Buffer;
  /** Empty when the subject has none. */
  commonName: string;
  names: SubjectAltNames;
}

/** GeneralName tags, RFC 5280 section 4.2.1.6. */
const GeneralName = { rfc822Name: 1, dNSName: 2, uniformResourceIdentifier: 6, iPAddress: 7 } as const;

const HASH_BY_SIGNATURE: Record<string, 'sha256' | 'sha384'> = {
  [Oid.ecdsaWithSha256]: 'sha256',
  [Oid.ecdsaWithSha384]: 'sha384',
};

/**
 * Parses a DER request and verifies its signature. Accepts P-256 keys only: every mesh proxy makes one, and smaller or
 * stranger keys would weaken the mesh. Throws HeddleError `bad-csr`.
 */
export function parseCertificateRequest(der: Uint8Array): CertificateRequest {
  try {
    return parse(der);
  } catch (cause) {
    if (cause instanceof HeddleError && cause.code === 'bad-csr') throw cause;
    throw new HeddleError('bad-csr', 'parse the certificate request: expected a PKCS #10 request in DER', { cause });
  }
}

function parse(der: Uint8Array): CertificateRequest {
  const [info, algorithm, signature] = elements(parseDer(der), 'request');
  const [, subject, publicKeyInfo, attributes] = elements(info, 'request info');
  const hash = HASH_BY_SIGNATURE[readOid(elements(algorithm, 'signature algorithm')[0], 'signature algorithm')];
  if (!hash) throw new HeddleError('bad-csr', 'check the request: expected an ECDSA signature with SHA-256 or SHA-384');
  const publicKeyDer = toDer(publicKeyInfo!);
  const publicKey = createPublicKey({ key: publicKeyDer, format: 'der', type: 'spki' });
  requireP256(publicKey);
  if (!verify(hash, toDer(info!), publicKey, readBitString(signature, 'signature'))) {
    throw new HeddleError('bad-csr', 'check the request: its signature was not made by the key in it');
  }
  return { publicKeyDer, commonName: readCommonName(subject), names: readNames(attributes) };
}

function requireP256(key: KeyObject): void {
  if (key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === 'prime256v1') return;
  throw new HeddleError('bad-csr', `check the key of type "${key.asymmetricKeyType}": expected ECDSA P-256`);
}

function readCommonName(subject: Asn1Node | undefined): string {
  const names = elements(subject, 'subject').flatMap((set) =>
    elements(set, 'subject', 'SET')
      .map((attribute) => elements(attribute, 'subject attribute'))
      .filter(([type]) => readOid(type, 'subject attribute') === Oid.commonName)
      .map(([, value]) => readText(value)),
  );
  if (names.length > 1) throw new HeddleError('bad-csr', 'check the request: expected at most one common name');
  return names[0] ?? '';
}

function readNames(attributes: Asn1Node | undefined): SubjectAltNames {
  const names: SubjectAltNames = { dns: [], uris: [], emails: [], ips: [], others: 0 };
  if (!attributes) return names;
  for (const attribute of elements(attributes, 'attributes', 0)) {
    const [type, values] = elements(attribute, 'attribute');
    if (readOid(type, 'attribute') !== Oid.extensionRequest) continue;
    for (const extensions of elements(values, 'extension request', 'SET')) {
      for (const extension of elements(extensions, 'extensions')) readExtension(extension, names);
    }
  }
  return names;
}

function readExtension(extension: Asn1Node, names: SubjectAltNames): void {
  const parts = elements(extension, 'extension');
  if (readOid(parts[0], 'extension') !== Oid.subjectAltName) return;
  const value = contents(parts.at(-1), 'names', 'OCTETSTRING');
  for (const name of elements(parseDer(value), 'names')) {
    if (hasTag(name, GeneralName.dNSName)) names.dns.push(ascii(name, GeneralName.dNSName));
    else if (hasTag(name, GeneralName.uniformResourceIdentifier)) {
      names.uris.push(ascii(name, GeneralName.uniformResourceIdentifier));
    } else if (hasTag(name, GeneralName.rfc822Name)) names.emails.push(ascii(name, GeneralName.rfc822Name));
    else if (hasTag(name, GeneralName.iPAddress))
      names.ips.push(contents(name, 'address', GeneralName.iPAddress).toString('hex'));
    else names.others++;
  }
}

function ascii(name: Asn1Node, tag: number): string {
  return contents(name, 'name', tag).toString('latin1');
}

/** DirectoryString (RFC 5280 section 4.1.2.4) in the two forms that are still written. */
function readText(node: Asn1Node | undefined): string {
  const tag = node && hasTag(node, 'PRINTABLESTRING') ? 'PRINTABLESTRING' : 'UTF8';
  return contents(node, 'common name', tag).toString('utf8');
}

/**
 * The rules on names: exactly one DNS name, equal to the identity asked for; the common name empty or the same; no name
 * of another kind. Throws {@link Refusal} with FailedPrecondition.
 */
export function checkRequestedNames(request: CertificateRequest, identity: string): void {
  const { commonName, names } = request;
  const others = names.emails.length + names.ips.length + names.uris.length + names.others;
  if (others > 0) throw mismatch('check the names of the request: expected no e-mail, address or URI names');
  if (names.dns.length !== 1) {
    throw mismatch(`check the names of the request: expected exactly one DNS name, found ${names.dns.length}`);
  }
  if (names.dns[0] !== identity) {
    throw mismatch(`check the DNS name "${names.dns[0]}" of the request: expected the identity "${identity}"`);
  }
  if (commonName !== '' && commonName !== identity) {
    throw mismatch(`check the common name "${commonName}" of the request: expected none or the identity "${identity}"`);
  }
}

function mismatch(message: string): Refusal {
  return new Refusal(Status.failedPrecondition, 'csr-names', message);
}

/** A DER request for `identity`, with that one DNS name and an empty subject, signed by `privateKey` (P-256). */
export function createCertificateRequest(identity: string, privateKey: KeyObject): Buffer {
  const names = toDer(sequence(implicit(GeneralName.dNSName, Buffer.from(identity, 'latin1'))));
  const extensions = sequence(sequence(oid(Oid.subjectAltName), octetString(names)));
  const publicKeyDer = createPublicKey(privateKey).export({ format: 'der', type: 'spki' });
  const info = sequence(
    unsigned(Buffer.of(0)),
    distinguishedName(''),
    parseDer(publicKeyDer),
    explicit(0, sequence(oid(Oid.extensionRequest), setOf(extensions))),
  );
  const signature = sign('sha256', toDer(info), privateKey);
  return toDer(sequence(info, sequence(oid(Oid.ecdsaWithSha256)), bitString(signature)));
}

/** RFC 5280 section 4.2.1.2, method 1: the SHA-1 of the key's bits; an identifier, not a protection. */
export function keyIdentifier(publicKeyDer: Uint8Array): Buffer {
  const [, bits] = elements(parseDer(publicKeyDer), 'public key');
  return createHash('sha1').update(readBitString(bits, 'public key')).digest();
}
