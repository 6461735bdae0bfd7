// ServiceAccount tokens as Kubernetes writes them: JSON Web Tokens (RFC 7519) signed with ES256 (RFC 7518 section 3.4),
// with Kubernetes' own claims, so that the checks on a real cluster's tokens and on these are the same.

import { createHash, createPrivateKey, createPublicKey, type KeyObject, randomUUID, sign, verify } from 'node:crypto';
import { HeddleError } from '#lib/errors.ts';

/** Kubernetes' own tokens are about 1.2 KiB. */
export const TOKEN_BYTES_MAX = 16 * 1024;
/** Keys in one public key file; rotation needs two. */
const PUBLIC_KEYS_MAX = 16;
/** Clocks of issuer and reviewer may differ by this much; Kubernetes' leeway is the same. */
const LEEWAY_MS = 10_000;

export const DEFAULT_TOKEN_ISSUER = 'https://kubernetes.default.svc.cluster.local';

/** An object that a token is bound to. */
export interface BoundObject {
  name: string;
  uid: string;
}

export interface TokenClaims {
  iss: string;
  sub: string;
  aud: string[];
  /** Unix seconds. */
  iat: number;
  nbf: number;
  exp: number;
  jti: string;
  'kubernetes.io': {
    namespace: string;
    serviceaccount: BoundObject;
    pod?: BoundObject;
    node?: BoundObject;
  };
}

export interface TokenOptions {
  issuer: string;
  audiences: readonly string[];
  namespace: string;
  serviceAccount: BoundObject;
  pod?: BoundObject;
  node?: BoundObject;
  lifetimeMs: number;
  nowMs: number;
}

/** Signs a ServiceAccount token with a P-256 private key in PEM. */
export function issueToken(privateKeyPem: string | Buffer, options: TokenOptions): string {
  const key = requireP256(createPrivateKey(privateKeyPem), 'token signing key');
  const seconds = Math.floor(options.nowMs / 1000);
  const claims: TokenClaims = {
    aud: [...options.audiences],
    exp: seconds + Math.floor(options.lifetimeMs / 1000),
    iat: seconds,
    iss: options.issuer,
    jti: randomUUID(),
    'kubernetes.io': {
      namespace: options.namespace,
      ...(options.node ? { node: options.node } : {}),
      ...(options.pod ? { pod: options.pod } : {}),
      serviceaccount: options.serviceAccount,
    },
    nbf: seconds,
    sub: `system:serviceaccount:${options.namespace}:${options.serviceAccount.name}`,
  };
  const signed = `${encode({ alg: 'ES256', kid: keyId(createPublicKey(key)) })}.${encode(claims)}`;
  const signature = sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' });
  return `${signed}.${signature.toString('base64url')}`;
}

/** The P-256 public keys of a PEM file. Throws `token-key` naming `what`. */
export function parsePublicKeys(pem: string, what: string): KeyObject[] {
  const blocks = pem.match(/-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----/g) ?? [];
  if (blocks.length === 0 || blocks.length > PUBLIC_KEYS_MAX) {
    throw new HeddleError(
      'token-key',
      `read "${what}": expected 1 to ${PUBLIC_KEYS_MAX} PEM public keys, found ${blocks.length}`,
    );
  }
  return blocks.map((block) => requireP256(createPublicKey(block), what));
}

/** Why a token is not accepted; `malformed` is the sender's fault in form, the others are refusals. */
export class TokenError extends HeddleError {
  override readonly name = 'TokenError';
  readonly isMalformed: boolean;

  constructor(message: string, isMalformed: boolean) {
    super(isMalformed ? 'token-malformed' : 'token-refused', message, { source: 'downstream' });
    this.isMalformed = isMalformed;
  }
}

/**
 * The claims of a token after its signature, issuer, audience and period were checked. Throws {@link TokenError}. The
 * token itself is never part of a message.
 */
export function verifyToken(
  token: string,
  expected: { keys: readonly KeyObject[]; issuer: string; audience: string; nowMs: number },
): TokenClaims {
  if (token.length > TOKEN_BYTES_MAX) {
    throw new TokenError(`read a token of ${token.length} bytes: expected at most ${TOKEN_BYTES_MAX}`, true);
  }
  const parts = token.split('.');
  if (parts.length !== 3) throw new TokenError('read the token: expected three parts', true);
  const [header, payload, signature] = parts as [string, string, string];
  const { alg } = decode(header) as { alg?: unknown };
  // The only algorithm: a token cannot choose "none" or have a public key taken for a shared secret.
  if (alg !== 'ES256') throw new TokenError(`read the token's algorithm "${String(alg)}": expected ES256`, true);
  const signed = Buffer.from(`${header}.${payload}`);
  const signatureBytes = Buffer.from(signature, 'base64url');
  const isSigned = expected.keys.some((key) =>
    verify('sha256', signed, { key, dsaEncoding: 'ieee-p1363' }, signatureBytes),
  );
  if (!isSigned) throw new TokenError('verify the token: its signature was not made by a known issuer', false);
  const claims = requireClaims(decode(payload));
  if (claims.iss !== expected.issuer) {
    throw new TokenError(`check the token's issuer "${claims.iss}": expected "${expected.issuer}"`, false);
  }
  if (!claims.aud.includes(expected.audience)) {
    throw new TokenError(
      `check the token's audience "${claims.aud.join(' ')}": expected "${expected.audience}"`,
      false,
    );
  }
  if (claims.exp * 1000 + LEEWAY_MS <= expected.nowMs) throw new TokenError('check the token: it has expired', false);
  if (claims.nbf * 1000 - LEEWAY_MS > expected.nowMs) throw new TokenError('check the token: not valid yet', false);
  return claims;
}

function requireClaims(value: unknown): TokenClaims {
  const claims = value as Partial<TokenClaims> | null;
  const bound = claims?.['kubernetes.io'];
  const isComplete =
    typeof claims === 'object' &&
    typeof claims?.iss === 'string' &&
    typeof claims.sub === 'string' &&
    typeof claims.exp === 'number' &&
    typeof claims.nbf === 'number' &&
    Array.isArray(claims.aud) &&
    typeof bound === 'object' &&
    typeof bound?.namespace === 'string' &&
    isBoundObject(bound.serviceaccount) &&
    (bound.pod === undefined || isBoundObject(bound.pod)) &&
    (bound.node === undefined || isBoundObject(bound.node));
  if (!isComplete) throw new TokenError('read the token: expected the claims of a ServiceAccount token', true);
  return claims as TokenClaims;
}

function isBoundObject(value: unknown): value is BoundObject {
  const object = value as Partial<BoundObject> | null;
  return typeof object === 'object' && typeof object?.name === 'string' && typeof object.uid === 'string';
}

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

function decode(part: string): unknown {
  try {
    return JSON.parse(Buffer.from(part, 'base64url').toString('utf8'));
  } catch {
    // The parser's own message would quote the token.
    throw new TokenError('read the token: expected JSON in base64url', true);
  }
}

function keyId(publicKey: KeyObject): string {
  return createHash('sha256')
    .update(publicKey.export({ format: 'der', type: 'spki' }))
    .digest('base64url');
}

function requireP256(key: KeyObject, what: string): KeyObject {
  if (key.asymmetricKeyDetails?.namedCurve === 'prime256v1') return key;
  throw new HeddleError('token-key', `use the key "${what}" of type "${key.asymmetricKeyType}": expected ECDSA P-256`);
}
