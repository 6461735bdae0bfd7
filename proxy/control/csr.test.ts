import { spawnSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { certificateRequest } from './csr.ts';
import { element, objectIdentifier } from './der.ts';

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });

/** What openssl makes of the request. It says on standard error whether the signature is right. */
function openssl(request: Buffer): { text: string; isVerified: boolean } {
  const { stdout, stderr } = spawnSync('openssl', ['req', '-inform', 'DER', '-noout', '-text', '-verify'], {
    input: request,
    encoding: 'utf8',
  });
  return { text: stdout, isVerified: /verify OK/.test(stderr) };
}

describe('certificate request', () => {
  test.each([
    'web.shop.serviceaccount.identity.heddle.cluster.local',
    'a.b',
    // Long enough for lengths of two bytes at every level.
    `${'x'.repeat(63)}.${'y'.repeat(63)}.${'z'.repeat(63)}.serviceaccount.identity.heddle.local`,
  ])('for %s is one that openssl verifies', (name) => {
    const { text, isVerified } = openssl(certificateRequest(name, privateKey));
    expect(isVerified).toBe(true);
    expect(text).toMatch(/Version: 1 \(0x0\)/);
    expect(text).toMatch(/Subject:\s*\n/);
    expect(text).toMatch(/ASN1 OID: prime256v1/);
    expect(text).toMatch(/Signature Algorithm: ecdsa-with-SHA256/);
    expect(text.match(/DNS:/g)).toHaveLength(1);
    expect(text).toContain(`DNS:${name}\n`);
    expect(text).not.toMatch(/URI:|IP Address:|email:/);
  });

  test('with a changed byte is refused: the check above can fail', () => {
    const request = certificateRequest('a.b', privateKey);
    request[request.length - 1]! ^= 1;
    expect(openssl(request).isVerified).toBe(false);
  });

  test.each(['', 'a b', 'ä.b', 'a\0b', 'x'.repeat(254)])('is not made for %j', (name) => {
    expect(() => certificateRequest(name, privateKey)).toThrow(/expected a DNS name/);
  });
});

describe('DER', () => {
  test.each([
    [0, '0400'],
    [127, '047f'],
    [128, '048180'],
    [255, '0481ff'],
    [256, '04820100'],
    [65_536, '0483010000'],
  ])('a length of %d', (length, head) => {
    const bytes = element(0x04, Buffer.alloc(length));
    expect([bytes.subarray(0, head.length / 2).toString('hex'), bytes.length]).toEqual([
      head,
      head.length / 2 + length,
    ]);
  });

  test('object identifiers', () => {
    expect(objectIdentifier('1.2.840.113549.1.9.14').toString('hex')).toBe('06092a864886f70d01090e');
  });
});
