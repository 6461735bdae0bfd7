// Making a trust anchor and an issuer, for installations that bring none of their own: ECDSA P-256, 365 days, the
// anchor signs issuers only and the issuer signs leaves only.

import { generateKeyPairSync, type KeyObject, randomBytes, X509Certificate } from 'node:crypto';
import { HeddleError } from '#lib/errors.ts';
import { commonNameOf, parsePrivateKey, readAuthority, signCertificate } from './certificate.ts';

export const AUTHORITY_LIFETIME_MS = 365 * 24 * 3600 * 1000;

/** A certificate and its private key, both PEM. */
export interface KeyedCertificate {
  certificatePem: string;
  privateKeyPem: string;
}

export interface AuthorityOptions {
  commonName: string;
  lifetimeMs: number;
  nowMs: number;
}

/** A self-signed trust anchor with a new key. */
export function createTrustAnchor(options: AuthorityOptions): KeyedCertificate {
  const { privateKey, publicKeyDer } = newKey();
  const name = commonNameOf(options.commonName);
  const der = signCertificate(
    {
      serial: newSerial(),
      issuerName: name,
      subjectName: name,
      ...validity(options),
      publicKeyDer,
      usage: { kind: 'authority', pathLength: null },
    },
    privateKey,
  );
  return { certificatePem: toPem(der), privateKeyPem: exportKey(privateKey) };
}

/**
 * An issuer with a new key below `anchor`. It ends when the anchor ends, at the latest. Throws `anchor-key` when the
 * anchor's key is not that of its certificate.
 */
export function createIssuer(anchor: KeyedCertificate, options: AuthorityOptions): KeyedCertificate {
  const certificate = new X509Certificate(anchor.certificatePem);
  const anchorKey = parsePrivateKey(anchor.privateKeyPem, 'trust anchor');
  if (!certificate.ca || !certificate.checkPrivateKey(anchorKey)) {
    throw new HeddleError(
      'anchor-key',
      `use the trust anchor "${certificate.subject}": expected an authority and its key`,
    );
  }
  const { subjectName, keyId } = readAuthority(certificate.raw);
  const { privateKey, publicKeyDer } = newKey();
  const { notBeforeMs, notAfterMs } = validity(options);
  const der = signCertificate(
    {
      serial: newSerial(),
      issuerName: subjectName,
      subjectName: commonNameOf(options.commonName),
      notBeforeMs,
      notAfterMs: Math.min(notAfterMs, certificate.validToDate.getTime()),
      publicKeyDer,
      authorityKeyId: keyId,
      usage: { kind: 'authority', pathLength: 0 },
    },
    anchorKey,
  );
  return { certificatePem: toPem(der), privateKeyPem: exportKey(privateKey) };
}

/** RFC 5280 section 4.1.2.2: positive, at most 20 bytes; 127 bits of it random. */
export function newSerial(): Buffer {
  const serial = randomBytes(16);
  serial[0]! &= 0x7f;
  return serial;
}

export function toPem(der: Uint8Array): string {
  const lines =
    Buffer.from(der.buffer, der.byteOffset, der.length)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
}

/** Certificates begin a moment early: the clocks of the machines that verify them differ. */
function validity(options: AuthorityOptions): { notBeforeMs: number; notAfterMs: number } {
  return { notBeforeMs: options.nowMs - 60_000, notAfterMs: options.nowMs + options.lifetimeMs };
}

function newKey(): { privateKey: KeyObject; publicKeyDer: Buffer } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  return { privateKey, publicKeyDer: publicKey.export({ format: 'der', type: 'spki' }) };
}

function exportKey(key: KeyObject): string {
  return key.export({ format: 'pem', type: 'pkcs8' }) as string;
}
