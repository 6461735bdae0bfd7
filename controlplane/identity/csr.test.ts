import { execFileSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { HeddleError } from '#lib/errors.ts';
import { Status } from '#lib/grpc/status.ts';
import { checkRequestedNames, createCertificateRequest, parseCertificateRequest } from './csr.ts';
import { makeKey } from './testing.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'heddle-csr-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const IDENTITY = 'nginx.web.serviceaccount.identity.heddle.cluster.local';
const key = makeKey();

/** A request that openssl wrote. */
function opensslRequest(names: string, options: { subject?: string; curve?: string; digest?: string } = {}): Buffer {
  const keyFile = path.join(directory, 'key.pem');
  writeFileSync(keyFile, options.curve ? makeKey(options.curve).privatePem : key.privatePem);
  const san = names ? ['-addext', `subjectAltName=${names}`] : [];
  const digest = options.digest ? [`-${options.digest}`] : [];
  const subject = options.subject ?? '/';
  return execFileSync(
    'openssl',
    ['req', '-new', '-outform', 'DER', '-key', keyFile, '-subj', subject, ...san, ...digest],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
}

describe('a certificate request', () => {
  test('of our own is accepted by openssl, and means what was asked', () => {
    const der = createCertificateRequest(IDENTITY, key.privateKey);
    const file = path.join(directory, 'own.der');
    writeFileSync(file, der);
    const text = execFileSync('openssl', ['req', '-verify', '-noout', '-text', '-inform', 'DER', '-in', file], {
      encoding: 'utf8',
    });
    expect(text).toContain(`DNS:${IDENTITY}`);
    const request = parseCertificateRequest(der);
    expect(request.publicKeyDer).toEqual(key.publicDer);
    expect(() => checkRequestedNames(request, IDENTITY)).not.toThrow();
  });

  test.each([
    ['the identity alone', `DNS:${IDENTITY}`, '/'],
    ['the identity as common name too', `DNS:${IDENTITY}`, `/CN=${IDENTITY}`],
  ])('of openssl with %s passes', (_what, names, subject) => {
    expect(() =>
      checkRequestedNames(parseCertificateRequest(opensslRequest(names, { subject })), IDENTITY),
    ).not.toThrow();
  });

  test.each([
    ['no name', '', '/'],
    ['another name', 'DNS:redis.web.serviceaccount.identity.heddle.cluster.local', '/'],
    ['two names', `DNS:${IDENTITY},DNS:other`, '/'],
    ['another common name', `DNS:${IDENTITY}`, '/CN=other'],
    ['an address', `DNS:${IDENTITY},IP:10.0.0.1`, '/'],
    ['a URI', `DNS:${IDENTITY},URI:spiffe://cluster.local/ns/web/sa/nginx`, '/'],
    ['an e-mail address', `DNS:${IDENTITY},email:a@b.c`, '/'],
    ['a registered ID', `DNS:${IDENTITY},RID:1.2.3.4`, '/'],
  ])('with %s is refused with FailedPrecondition', (_what, names, subject) => {
    const request = parseCertificateRequest(opensslRequest(names, { subject }));
    expect(() => checkRequestedNames(request, IDENTITY)).toThrow(
      expect.objectContaining({ status: Status.failedPrecondition, code: 'csr-names' }),
    );
  });

  test('signed by another key than its own is refused', () => {
    const der = Buffer.from(createCertificateRequest(IDENTITY, key.privateKey));
    const own = key.publicDer.subarray(-64);
    const at = der.indexOf(own);
    makeKey().publicDer.subarray(-64).copy(der, at);
    expect(() => parseCertificateRequest(der)).toThrow(/was not made by the key in it/);
  });

  test('with a key that is not P-256 is refused', () => {
    expect(() => parseCertificateRequest(opensslRequest(`DNS:${IDENTITY}`, { curve: 'secp384r1' }))).toThrow(/P-256/);
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    expect(() => parseCertificateRequest(createCertificateRequest(IDENTITY, privateKey))).toThrow(/P-256/);
  });

  test('with a weak digest is refused', () => {
    expect(() => parseCertificateRequest(opensslRequest(`DNS:${IDENTITY}`, { digest: 'sha1' }))).toThrow(/SHA-256/);
    expect(() => parseCertificateRequest(opensslRequest(`DNS:${IDENTITY}`, { digest: 'sha384' }))).not.toThrow();
  });

  test('cut or with bytes behind it is refused', () => {
    const der = createCertificateRequest(IDENTITY, key.privateKey);
    expect(() => parseCertificateRequest(der.subarray(0, -1))).toThrow(HeddleError);
    expect(() => parseCertificateRequest(Buffer.concat([der, Buffer.of(0)]))).toThrow(HeddleError);
    expect(() => parseCertificateRequest(Buffer.alloc(20_000))).toThrow(HeddleError);
  });

  test('that is noise, or was changed anywhere, never gets further than a refusal', () => {
    const der = createCertificateRequest(IDENTITY, key.privateKey);
    const parse = (bytes: Uint8Array): string => {
      try {
        parseCertificateRequest(bytes);
        return 'accepted';
      } catch (error) {
        return error instanceof HeddleError ? error.code : `crash: ${error}`;
      }
    };
    fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => parse(bytes) === 'bad-csr'));
    fc.assert(
      fc.property(fc.nat(der.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const changed = Buffer.from(der);
        changed[at]! ^= flip;
        return parse(changed) === 'bad-csr';
      }),
    );
  });
});
