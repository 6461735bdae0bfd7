// Certificate bundles and chains: splitting PEM, and building the path from an issuer to one of the trust anchors with
// every signature and every period checked.

import { X509Certificate } from 'node:crypto';
import { HeddleError } from '#lib/errors.ts';

/** Certificates in one bundle; rotation needs two, federation a few more. */
export const BUNDLE_CERTIFICATES_MAX = 64;
/** Authorities between a leaf and an anchor. */
const PATH_LENGTH_MAX = 8;

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** The certificates of a PEM bundle. Throws `bad-bundle` naming `what` for none, too many, or an unparsable one. */
export function parseBundle(pem: string, what: string): X509Certificate[] {
  const blocks = pem.match(PEM_CERTIFICATE) ?? [];
  if (blocks.length === 0 || blocks.length > BUNDLE_CERTIFICATES_MAX) {
    throw new HeddleError(
      'bad-bundle',
      `read "${what}": expected 1 to ${BUNDLE_CERTIFICATES_MAX} PEM certificates, found ${blocks.length}`,
    );
  }
  return blocks.map((block, index) => {
    try {
      return new X509Certificate(block);
    } catch (cause) {
      throw new HeddleError('bad-bundle', `parse certificate ${index + 1} of "${what}": expected X.509`, { cause });
    }
  });
}

export interface VerifiedPath {
  /** From the issuer up to, not including, the anchor. */
  path: X509Certificate[];
  anchor: X509Certificate;
  /** The period in which every certificate of the path, anchor included, is valid. */
  notBeforeMs: number;
  notAfterMs: number;
}

/**
 * The path from `issuer` through `intermediates` to one of `anchors`. Throws `issuer-untrusted` when there is none, and
 * `issuer-expired` when a certificate on it is not valid at `nowMs`.
 */
export function verifyPath(
  issuer: X509Certificate,
  intermediates: readonly X509Certificate[],
  anchors: readonly X509Certificate[],
  nowMs: number,
): VerifiedPath {
  if (!issuer.ca) {
    throw new HeddleError('issuer-untrusted', `use the issuer "${oneLine(issuer.subject)}": expected a CA certificate`);
  }
  const path = [issuer];
  for (;;) {
    const last = path.at(-1)!;
    const signers = anchors.filter((candidate) => candidate.raw.equals(last.raw) || isSignedBy(last, candidate));
    // A renewed anchor keeps its key: of several that fit, one that is valid now counts.
    const anchor = signers.find((candidate) => isValid(candidate, nowMs)) ?? signers[0];
    if (anchor) return withPeriod(anchor.raw.equals(last.raw) ? path.slice(0, -1) : path, anchor, nowMs);
    const next = intermediates.find((candidate) => !path.includes(candidate) && isSignedBy(last, candidate));
    if (!next || path.length === PATH_LENGTH_MAX) {
      throw new HeddleError(
        'issuer-untrusted',
        `verify the issuer "${oneLine(issuer.subject)}": no path to any of ${anchors.length} trust anchors`,
      );
    }
    path.push(next);
  }
}

function isSignedBy(certificate: X509Certificate, authority: X509Certificate): boolean {
  return authority.ca && certificate.checkIssued(authority) && certificate.verify(authority.publicKey);
}

function withPeriod(path: X509Certificate[], anchor: X509Certificate, nowMs: number): VerifiedPath {
  const all = [...path, anchor];
  const notBeforeMs = Math.max(...all.map((certificate) => certificate.validFromDate.getTime()));
  const notAfterMs = Math.min(...all.map((certificate) => certificate.validToDate.getTime()));
  const wrong = all.find((certificate) => !isValid(certificate, nowMs));
  if (wrong) {
    throw new HeddleError(
      'issuer-expired',
      `verify the issuer chain: "${oneLine(wrong.subject)}" is valid from ${wrong.validFromDate.toISOString()} to ` +
        `${wrong.validToDate.toISOString()}, expected now to lie between`,
    );
  }
  return { path, anchor, notBeforeMs, notAfterMs };
}

function isValid(certificate: X509Certificate, nowMs: number): boolean {
  return nowMs >= certificate.validFromDate.getTime() && nowMs < certificate.validToDate.getTime();
}

function oneLine(name: string | undefined): string {
  return (name ?? '').replaceAll('\n', ', ');
}
