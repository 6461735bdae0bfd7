// Reads what the identity service issued and checks it before it is used: it must be for our key and our name, still
// valid, and chain to an anchor. A certificate that peers would refuse must never replace one that works.

import { createPublicKey, type KeyObject, X509Certificate } from 'node:crypto';
import { CertifyResponse } from '#api/gen/identity.ts';
import { HeddleError } from '#lib/errors.ts';

export interface IssuedCertificate {
  /** Leaf first, then the intermediates, PEM. */
  readonly chainPem: string;
  /** Unix time in milliseconds. */
  readonly expiresMs: number;
  readonly chain: readonly X509Certificate[];
}

/** Issuers between a leaf and its anchor that are followed. */
const CHAIN_LENGTH_MAX = 8;

/**
 * Reads a protobuf CertifyResponse. Throws `certificate-invalid` with the reason when the certificate is not one for
 * `name` and `privateKey`, or has expired at `nowMs` (Unix time).
 */
export function readIssued(
  response: Uint8Array,
  expected: { name: string; privateKey: KeyObject; nowMs: number },
): IssuedCertificate {
  const { name, privateKey, nowMs } = expected;
  const { leafCertificate, intermediateCertificates, validUntil } = CertifyResponse.decode(response);
  const chain = [leafCertificate, ...intermediateCertificates].map(parse);
  const leaf = chain[0]!;
  const ours = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
  if (!leaf.publicKey.export({ type: 'spki', format: 'der' }).equals(ours)) {
    throw invalid(name, 'one for the key of this worker');
  }
  if (!dnsNames(leaf).includes(name)) throw invalid(name, `one for that name, not for "${leaf.subjectAltName ?? ''}"`);
  const expiresMs = validUntil
    ? Number(validUntil.seconds) * 1000 + Math.floor(validUntil.nanos / 1e6)
    : leaf.validToDate.getTime();
  if (expiresMs <= nowMs) throw invalid(name, `one that has not expired at ${new Date(expiresMs).toISOString()}`);
  return { chainPem: chain.map((certificate) => certificate.toString()).join(''), expiresMs, chain };
}

function parse(der: Uint8Array): X509Certificate {
  try {
    return new X509Certificate(der);
  } catch (cause) {
    throw new HeddleError('certificate-invalid', `read a certificate of "${der.length}" bytes: expected DER`, {
      cause,
    });
  }
}

function dnsNames(certificate: X509Certificate): string[] {
  return (certificate.subjectAltName ?? '')
    .split(', ')
    .filter((name) => name.startsWith('DNS:'))
    .map((name) => name.slice('DNS:'.length));
}

function invalid(name: string, expected: string): HeddleError {
  return new HeddleError('certificate-invalid', `use the certificate issued for "${name}": expected ${expected}`);
}

/** The certificates of a PEM text. Throws `anchors-invalid` where there is none or one cannot be read. */
export function parseAnchors(pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) {
    throw new HeddleError(
      'anchors-invalid',
      `read trust anchors of "${pem.length}" characters: expected PEM certificates`,
    );
  }
  return blocks.map((block, index) => {
    try {
      return new X509Certificate(block);
    } catch (cause) {
      throw new HeddleError('anchors-invalid', `read trust anchor "${index + 1}": expected a certificate`, { cause });
    }
  });
}

/** True when the first certificate leads to one of the anchors over the others, every signature right. */
export function isTrusted(chain: readonly X509Certificate[], anchors: readonly X509Certificate[]): boolean {
  let current = chain[0];
  for (let depth = 0; current && depth < CHAIN_LENGTH_MAX; depth++) {
    const child: X509Certificate = current;
    const isIssuer = (issuer: X509Certificate) => child.checkIssued(issuer) && child.verify(issuer.publicKey);
    if (anchors.some((anchor) => anchor.raw.equals(child.raw) || isIssuer(anchor))) return true;
    current = chain.find((issuer) => issuer !== child && isIssuer(issuer));
  }
  return false;
}
