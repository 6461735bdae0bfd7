// The certificate authority: an issuer, verified against the trust anchors, that signs workload leaves. Immutable; new
// files make a new authority.

import type { KeyObject, X509Certificate } from 'node:crypto';
import { type IdentityParts, identityName, spiffeId } from '#api/names.ts';
import { HeddleError } from '#lib/errors.ts';
import { newSerial } from './authority.ts';
import { EMPTY_NAME, parsePrivateKey, readAuthority, signCertificate } from './certificate.ts';
import { parseBundle, type VerifiedPath, verifyPath } from './chain.ts';

export const LEAF_LIFETIME_MS = 24 * 3600 * 1000;
/** Granted at both ends of a leaf's life, as Linkerd does. */
export const CLOCK_SKEW_MS = 20_000;

/** The files of an issuer, as a kubernetes.io/tls Secret holds them. */
export interface AuthorityFiles {
  /** The issuer first, then the authorities between it and an anchor. */
  certificatesPem: string;
  privateKeyPem: string;
  anchorsPem: string;
}

export interface Leaf {
  der: Buffer;
  notBeforeMs: number;
  notAfterMs: number;
  serialHex: string;
}

/**
 * The skew to grant for a lifetime: {@link CLOCK_SKEW_MS} for real ones, a tenth for lifetimes of seconds, where the
 * whole of it would hide that a leaf expires at all.
 */
export function skewFor(lifetimeMs: number): number {
  return Math.min(CLOCK_SKEW_MS, Math.floor(lifetimeMs / 10 / 1000) * 1000);
}

export class CertificateAuthority {
  readonly issuer: X509Certificate;
  readonly anchors: readonly X509Certificate[];
  /** What a workload sends behind its leaf: the issuer and what lies between it and the anchor, in DER. */
  readonly intermediates: readonly Buffer[];
  /** When the chain ends, in Unix milliseconds: its earliest expiry. */
  readonly notAfterMs: number;
  readonly #bundle: readonly X509Certificate[];
  readonly #key: KeyObject;
  readonly #name: Buffer;
  readonly #keyId: Buffer;

  /**
   * Throws `bad-bundle`, `issuer-key`, `issuer-untrusted` or `issuer-expired` (HeddleError) when the files do not make an
   * authority that verifies at `nowMs`.
   */
  constructor(files: AuthorityFiles, nowMs: number) {
    this.#bundle = parseBundle(files.certificatesPem, 'tls.crt');
    this.anchors = parseBundle(files.anchorsPem, 'trust anchors');
    this.issuer = this.#bundle[0]!;
    this.#key = parsePrivateKey(files.privateKeyPem, 'tls.key');
    if (!this.issuer.checkPrivateKey(this.#key)) {
      throw new HeddleError(
        'issuer-key',
        'use the private key "tls.key": expected the key of the first certificate in "tls.crt"',
      );
    }
    const { path, notAfterMs } = this.verify(nowMs);
    this.notAfterMs = notAfterMs;
    this.intermediates = (path.length > 0 ? path : [this.issuer]).map((certificate) => certificate.raw);
    const { subjectName, keyId } = readAuthority(this.issuer.raw);
    this.#name = subjectName;
    this.#keyId = keyId;
  }

  /** The path to an anchor. Throws `issuer-expired` when a certificate on it is not valid at `nowMs`. */
  verify(nowMs: number): VerifiedPath {
    return verifyPath(this.issuer, this.#bundle.slice(1), this.anchors, nowMs);
  }

  /**
   * Signs a leaf for a key, with the DNS form of the identity first and its SPIFFE form second. Its life begins and ends
   * inside the chain's. Throws as the constructor does when the chain is no longer valid.
   */
  signLeaf(publicKeyDer: Buffer, identity: IdentityParts, lifetimeMs: number, nowMs: number): Leaf {
    const chain = this.verify(nowMs);
    const skewMs = skewFor(lifetimeMs);
    // X.509 counts whole seconds: round the beginning down and the end down too, so that nothing outlives the chain.
    const notBeforeMs = Math.max(wholeSeconds(nowMs - skewMs), chain.notBeforeMs);
    const notAfterMs = Math.min(wholeSeconds(nowMs + lifetimeMs + skewMs), chain.notAfterMs);
    const serial = newSerial();
    const der = signCertificate(
      {
        serial,
        issuerName: this.#name,
        subjectName: EMPTY_NAME,
        notBeforeMs,
        notAfterMs,
        publicKeyDer,
        authorityKeyId: this.#keyId,
        usage: { kind: 'leaf', dnsName: identityName(identity), uri: spiffeId(identity) },
      },
      this.#key,
    );
    return { der, notBeforeMs, notAfterMs, serialHex: serial.toString('hex') };
  }
}

function wholeSeconds(ms: number): number {
  return Math.floor(ms / 1000) * 1000;
}
