import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { createIssuer, createTrustAnchor, toPem } from './authority.ts';
import { CertificateAuthority, LEAF_LIFETIME_MS, skewFor } from './ca.ts';
import { makeAuthority, makeKey, NOW_MS } from './testing.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'heddle-ca-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const identity = {
  serviceAccount: 'nginx',
  namespace: 'web',
  controlPlaneNamespace: 'heddle',
  trustDomain: 'cluster.local',
};
const key = makeKey();

function write(name: string, text: string): string {
  const file = path.join(directory, name);
  writeFileSync(file, text);
  return file;
}

function openssl(...args: string[]): string {
  return execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

describe('a leaf', () => {
  const { files, anchor } = makeAuthority();
  const authority = new CertificateAuthority(files, NOW_MS);
  const leaf = authority.signLeaf(key.publicDer, identity, LEAF_LIFETIME_MS, NOW_MS);
  const certificate = new X509Certificate(leaf.der);

  test('has one DNS name of Linkerd form and the SPIFFE name second', () => {
    expect(certificate.subjectAltName).toBe(
      'DNS:nginx.web.serviceaccount.identity.heddle.cluster.local, URI:spiffe://cluster.local/ns/web/sa/nginx',
    );
  });

  test('lives 24 hours and 20 seconds more at both ends', () => {
    expect(certificate.validFromDate.getTime()).toBe(NOW_MS - 20_000);
    expect(certificate.validToDate.getTime()).toBe(NOW_MS + LEAF_LIFETIME_MS + 20_000);
    expect(leaf.notAfterMs).toBe(certificate.validToDate.getTime());
  });

  test('is for the key that was asked for, of no authority, for both ends of a connection', () => {
    expect(certificate.publicKey.export({ format: 'der', type: 'spki' })).toEqual(key.publicDer);
    expect(certificate.ca).toBe(false);
    expect(certificate.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
  });

  test('is accepted by openssl under its anchor and refused under another', () => {
    const anchors = write('anchor.pem', anchor.certificatePem);
    const other = write('other.pem', makeAuthority('two').anchor.certificatePem);
    const chain = write('chain.pem', authority.intermediates.map(toPem).join(''));
    const file = write('leaf.pem', toPem(leaf.der));
    const at = ['-attime', String(NOW_MS / 1000), '-x509_strict', '-purpose', 'sslserver'];
    expect(openssl('verify', ...at, '-CAfile', anchors, '-untrusted', chain, file)).toContain(': OK');
    expect(() => openssl('verify', ...at, '-CAfile', other, '-untrusted', chain, file)).toThrow(/unable to get/);
    const late = ['-attime', String(leaf.notAfterMs / 1000 + 1)];
    expect(() => openssl('verify', ...late, '-CAfile', anchors, '-untrusted', chain, file)).toThrow(/expired/);
  });

  test('reads in openssl as RFC 5280 wants it', () => {
    const text = openssl('x509', '-noout', '-text', '-in', write('leaf.pem', toPem(leaf.der)));
    expect(text).toContain('ASN1 OID: prime256v1');
    expect(text).toContain('Signature Algorithm: ecdsa-with-SHA256');
    expect(text).toMatch(/Basic Constraints: critical\s+CA:FALSE/);
    expect(text).toMatch(/Key Usage: critical\s+Digital Signature\n/);
    expect(text).toMatch(/Extended Key Usage:\s*\n?\s+TLS Web Server Authentication, TLS Web Client Authentication/);
    expect(text).toMatch(/Subject Alternative Name: critical/);
    const issuerText = openssl('x509', '-noout', '-text', '-in', write('issuer.pem', files.certificatesPem));
    const keyId = /Subject Key Identifier:\s+([0-9A-F:]+)/.exec(issuerText)![1]!;
    expect(/Authority Key Identifier:\s+(?:keyid:)?([0-9A-F:]+)/.exec(text)![1]).toBe(keyId);
  });

  test('ends with the chain that signed it', () => {
    const short = makeAuthority('short', { lifetimeMs: 3600_000 });
    const clamped = new CertificateAuthority(short.files, NOW_MS).signLeaf(
      key.publicDer,
      identity,
      LEAF_LIFETIME_MS,
      NOW_MS,
    );
    expect(clamped.notAfterMs).toBe(NOW_MS + 3600_000);
    expect(new X509Certificate(clamped.der).validToDate.getTime()).toBe(NOW_MS + 3600_000);
  });

  test.each([
    [86_400_000, 20_000],
    [200_000, 20_000],
    [30_000, 3000],
    [5000, 0],
  ])('of %d ms gets %d ms of skew', (lifetimeMs, skewMs) => {
    expect(skewFor(lifetimeMs)).toBe(skewMs);
  });
});

describe('an authority', () => {
  test('is ECDSA P-256 and lives 365 days below an anchor that does', () => {
    const { anchor, issuer } = makeAuthority('year', { lifetimeMs: 365 * 24 * 3600_000 });
    const text = openssl('x509', '-noout', '-text', '-in', write('root.pem', anchor.certificatePem));
    expect(text).toContain('ASN1 OID: prime256v1');
    expect(text).toMatch(/Basic Constraints: critical\s+CA:TRUE\n/);
    expect(text).toMatch(/Key Usage: critical\s+Certificate Sign, CRL Sign/);
    expect(new X509Certificate(anchor.certificatePem).validToDate.getTime()).toBe(NOW_MS + 365 * 24 * 3600_000);
    const issuerText = openssl('x509', '-noout', '-text', '-in', write('sub.pem', issuer.certificatePem));
    expect(issuerText).toMatch(/CA:TRUE, pathlen:0/);
  });

  test('is not made by a key that is not the anchor', () => {
    const { anchor } = makeAuthority();
    const wrong = { certificatePem: anchor.certificatePem, privateKeyPem: makeKey().privatePem };
    expect(() => createIssuer(wrong, { commonName: 'x', lifetimeMs: 1000, nowMs: NOW_MS })).toThrow(
      expect.objectContaining({ code: 'anchor-key' }),
    );
  });

  test('signs below an issuer of P-384 that openssl made, through an intermediate', () => {
    const anchor = createTrustAnchor({ commonName: 'root', lifetimeMs: 1e10, nowMs: Date.now() });
    write('r.pem', anchor.certificatePem);
    write('r.key', anchor.privateKeyPem);
    write('ext', 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n');
    const at = (name: string): string => path.join(directory, name);
    for (const [name, above] of [
      ['mid', 'r'],
      ['low', 'mid'],
    ] as const) {
      openssl('ecparam', '-name', 'secp384r1', '-genkey', '-noout', '-out', at(`${name}.key`));
      openssl('req', '-new', '-key', at(`${name}.key`), '-subj', `/CN=${name}`, '-out', at(`${name}.csr`));
      const signing = ['-CA', at(`${above}.pem`), '-CAkey', at(`${above}.key`), '-extfile', at('ext'), '-days', '30'];
      openssl('x509', '-req', '-in', at(`${name}.csr`), ...signing, '-out', at(`${name}.pem`));
    }
    // What openssl made is valid from the second it was made in.
    const nowMs = Date.now();
    const read = (name: string): string => execFileSync('cat', [at(name)], { encoding: 'utf8' });
    const authority = new CertificateAuthority(
      { certificatesPem: read('low.pem') + read('mid.pem'), privateKeyPem: read('low.key'), anchorsPem: read('r.pem') },
      nowMs,
    );
    const leaf = authority.signLeaf(key.publicDer, identity, 60_000, nowMs);
    const chain = write('both.pem', authority.intermediates.map(toPem).join(''));
    expect(authority.intermediates).toHaveLength(2);
    const file = write('deep.pem', toPem(leaf.der));
    expect(openssl('verify', '-CAfile', at('r.pem'), '-untrusted', chain, file)).toContain(': OK');
  });

  test.each([
    ['a foreign anchor', { anchorsPem: makeAuthority('x').anchor.certificatePem }, NOW_MS, 'issuer-untrusted'],
    ['a foreign key', { privateKeyPem: makeKey().privatePem }, NOW_MS, 'issuer-key'],
    ['no certificate', { certificatesPem: 'none' }, NOW_MS, 'bad-bundle'],
    ['a time after its end', {}, NOW_MS + 101 * 24 * 3600_000, 'issuer-expired'],
    ['a time before its beginning', {}, NOW_MS - 3600_000, 'issuer-expired'],
  ])('is refused with %s', (_what, change, nowMs, code) => {
    const { files } = makeAuthority();
    expect(() => new CertificateAuthority({ ...files, ...change }, nowMs)).toThrow(expect.objectContaining({ code }));
    expect(() => new CertificateAuthority(files, NOW_MS)).not.toThrow();
  });

  test('is refused when its certificate is a leaf', () => {
    const { files } = makeAuthority();
    const leaf = new CertificateAuthority(files, NOW_MS).signLeaf(key.publicDer, identity, 60_000, NOW_MS);
    const asIssuer = {
      ...files,
      certificatesPem: toPem(leaf.der) + files.certificatesPem,
      privateKeyPem: key.privatePem,
    };
    expect(() => new CertificateAuthority(asIssuer, NOW_MS)).toThrow(
      expect.objectContaining({ code: 'issuer-untrusted' }),
    );
  });

  test('verifies while anchors are exchanged: old, both, new', () => {
    const old = makeAuthority('old');
    const next = makeAuthority('new');
    const both = old.anchor.certificatePem + next.anchor.certificatePem;
    for (const files of [
      old.files,
      { ...old.files, anchorsPem: both },
      { ...next.files, anchorsPem: both },
      next.files,
    ]) {
      expect(() => new CertificateAuthority(files, NOW_MS)).not.toThrow();
    }
    expect(() => new CertificateAuthority({ ...old.files, anchorsPem: next.anchor.certificatePem }, NOW_MS)).toThrow();
  });
});
