// What the identity service's tests share: an authority, keys, tokens and requests made in memory.

import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { type AuthorityOptions, createIssuer, createTrustAnchor, type KeyedCertificate } from './authority.ts';
import type { AuthorityFiles } from './ca.ts';
import { DEFAULT_TOKEN_ISSUER, issueToken, type TokenOptions } from './jwt.ts';

export const NOW_MS = Date.UTC(2026, 0, 2);
const DAY_MS = 24 * 3600 * 1000;

export interface TestAuthority {
  anchor: KeyedCertificate;
  issuer: KeyedCertificate;
  files: AuthorityFiles;
}

/** An anchor and an issuer below it; `issuer` overrides the issuer's options. */
export function makeAuthority(name = 'one', issuer: Partial<AuthorityOptions> = {}, nowMs = NOW_MS): TestAuthority {
  const anchor = createTrustAnchor({ commonName: `root.${name}`, lifetimeMs: 365 * DAY_MS, nowMs });
  const below = createIssuer(anchor, { commonName: `issuer.${name}`, lifetimeMs: 100 * DAY_MS, nowMs, ...issuer });
  return {
    anchor,
    issuer: below,
    files: {
      certificatesPem: below.certificatePem,
      privateKeyPem: below.privateKeyPem,
      anchorsPem: anchor.certificatePem,
    },
  };
}

export interface TestKey {
  privateKey: KeyObject;
  privatePem: string;
  publicPem: string;
  publicDer: Buffer;
}

export function makeKey(curve = 'prime256v1'): TestKey {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: curve });
  return {
    privateKey,
    privatePem: privateKey.export({ format: 'pem', type: 'pkcs8' }) as string,
    publicPem: publicKey.export({ format: 'pem', type: 'spki' }) as string,
    publicDer: publicKey.export({ format: 'der', type: 'spki' }),
  };
}

/** A token for `web/nginx`, unless told otherwise. */
export function makeToken(key: TestKey, options: Partial<TokenOptions> = {}): string {
  return issueToken(key.privatePem, {
    issuer: DEFAULT_TOKEN_ISSUER,
    audiences: ['identity.l5d.io'],
    namespace: 'web',
    serviceAccount: { name: 'nginx', uid: 'sa-uid' },
    lifetimeMs: 3600 * 1000,
    nowMs: NOW_MS,
    ...options,
  });
}
