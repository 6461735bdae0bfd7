import { createPublicKey } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { FakeClock } from '#lib/clock.ts';
import { DEFAULT_TOKEN_ISSUER, parsePublicKeys } from './jwt.ts';
import { makeKey, makeToken, NOW_MS } from './testing.ts';
import { KeyTokenReviewer } from './tokens.ts';

const AUDIENCE = 'identity.l5d.io';
const key = makeKey();

function makeReviewer(options: { nowMs?: number; keys?: string; isPodLive?: boolean } = {}): KeyTokenReviewer {
  return new KeyTokenReviewer({
    keys: () => parsePublicKeys(options.keys ?? key.publicPem, 'test'),
    issuer: DEFAULT_TOKEN_ISSUER,
    isBoundPodLive: () => options.isPodLive ?? true,
    clock: new FakeClock(options.nowMs ?? NOW_MS),
  });
}

describe('a token', () => {
  test('is authenticated with what it is bound to', async () => {
    const bound = { pod: { name: 'nginx-1', uid: 'p1' }, node: { name: 'n1', uid: 'u1' } };
    expect(await makeReviewer().review(makeToken(key, bound), AUDIENCE)).toEqual({
      kind: 'authenticated',
      subject: { username: 'system:serviceaccount:web:nginx', ...bound },
    });
  });

  test('may be signed by either key while keys are exchanged', async () => {
    const next = makeKey();
    const reviewer = makeReviewer({ keys: next.publicPem + key.publicPem });
    for (const signer of [key, next]) {
      expect(await reviewer.review(makeToken(signer), AUDIENCE)).toMatchObject({ kind: 'authenticated' });
    }
  });

  test.each([
    ['another key', makeToken(makeKey()), {}],
    ['another audience', makeToken(key, { audiences: ['api'] }), {}],
    ['another issuer', makeToken(key, { issuer: 'https://elsewhere' }), {}],
    ['a time after its end', makeToken(key), { nowMs: NOW_MS + 3600_000 + 10_000 }],
    ['a time before its beginning', makeToken(key), { nowMs: NOW_MS - 11_000 }],
    ['a pod that is gone', makeToken(key, { pod: { name: 'nginx-1', uid: 'p1' } }), { isPodLive: false }],
  ])('is refused with %s', async (_what, token, options) => {
    expect(await makeReviewer(options).review(token, AUDIENCE)).toMatchObject({ kind: 'refused' });
    expect(await makeReviewer().review(makeToken(key), AUDIENCE)).toMatchObject({ kind: 'authenticated' });
  });

  test('with changed claims is refused', async () => {
    const [header, payload, signature] = makeToken(key).split('.') as [string, string, string];
    const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
    const changed = Buffer.from(JSON.stringify({ ...claims, sub: 'system:serviceaccount:web:admin' }));
    const token = `${header}.${changed.toString('base64url')}.${signature}`;
    expect(await makeReviewer().review(token, AUDIENCE)).toMatchObject({ kind: 'refused' });
  });

  test('cannot choose its algorithm', async () => {
    const [, payload, signature] = makeToken(key).split('.') as [string, string, string];
    for (const alg of ['none', 'HS256', 'RS256']) {
      const header = Buffer.from(JSON.stringify({ alg })).toString('base64url');
      const verdict = await makeReviewer().review(`${header}.${payload}.${signature}`, AUDIENCE);
      expect(verdict).toEqual({ kind: 'malformed', reason: `read the token's algorithm "${alg}": expected ES256` });
    }
  });

  test.each([
    ['nothing', ''],
    ['two parts', 'a.b'],
    ['no JSON', 'a.b.c'],
    ['far too many bytes', 'x'.repeat(20_000)],
  ])('of %s is malformed, and is not repeated in the message', async (_what, token) => {
    const verdict = await makeReviewer().review(token, AUDIENCE);
    expect(verdict.kind).toBe('malformed');
    if (token.length > 0) expect(JSON.stringify(verdict)).not.toContain(`"${token}"`);
  });

  test('without the claims of a ServiceAccount is malformed', async () => {
    const { sign } = await import('node:crypto');
    const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${encode({ alg: 'ES256' })}.${encode({ iss: DEFAULT_TOKEN_ISSUER, sub: 'x', aud: [AUDIENCE] })}`;
    const signature = sign('sha256', Buffer.from(signed), { key: key.privateKey, dsaEncoding: 'ieee-p1363' });
    const verdict = await makeReviewer().review(`${signed}.${signature.toString('base64url')}`, AUDIENCE);
    expect(verdict).toMatchObject({ kind: 'malformed' });
  });
});

describe('public keys', () => {
  test.each([
    ['none', ''],
    ['one that is not P-256', createPublicKey(makeKey('secp384r1').publicPem).export({ format: 'pem', type: 'spki' })],
  ])('are refused: %s', (_what, pem) => {
    expect(() => parsePublicKeys(pem as string, 'keys.pem')).toThrow(expect.objectContaining({ code: 'token-key' }));
  });
});
