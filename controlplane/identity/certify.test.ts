import { X509Certificate } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import type { CertifyRequest } from '#api/gen/identity.ts';
import { FakeClock } from '#lib/clock.ts';
import { Status } from '#lib/grpc/status.ts';
import { createLog } from '#lib/log.ts';
import { Authorizer } from './authorize.ts';
import { Certifier } from './certify.ts';
import { createCertificateRequest } from './csr.ts';
import { Issuer } from './issuer.ts';
import { DEFAULT_TOKEN_ISSUER, parsePublicKeys } from './jwt.ts';
import { makeAuthority, makeKey, makeToken, NOW_MS } from './testing.ts';
import { KeyTokenReviewer, type TokenReviewer } from './tokens.ts';

const IDENTITY = 'nginx.web.serviceaccount.identity.heddle.cluster.local';
const tokenKey = makeKey();
const workload = makeKey();

function make(options: { isLoaded?: boolean; reviewer?: TokenReviewer } = {}) {
  const clock = new FakeClock(NOW_MS);
  const lines: Record<string, unknown>[] = [];
  const { log } = createLog({ sink: { write: (line) => lines.push(JSON.parse(line)) } });
  const outcomes: string[] = [];
  const issuer = new Issuer({
    paths: { certificates: '', privateKey: '', anchors: '' },
    reloadIntervalMs: 1000,
    clock,
    log,
    onEvent: (event) => outcomes.push(event),
  });
  if (options.isLoaded !== false) issuer.load(makeAuthority().files);
  const keys = parsePublicKeys(tokenKey.publicPem, 'test');
  const authorizer = new Authorizer({
    reviewer:
      options.reviewer ??
      new KeyTokenReviewer({ keys: () => keys, issuer: DEFAULT_TOKEN_ISSUER, isBoundPodLive: () => true, clock }),
    audience: 'identity.l5d.io',
    findPod: () => undefined,
    controlPlaneNamespace: 'heddle',
    trustDomain: 'cluster.local',
    agent: { namespace: 'heddle', serviceAccount: 'heddle-agent' },
    nodeRate: { perSecond: 1, burst: 1, keysMax: 1 },
    clock,
  });
  const certifier = new Certifier({
    issuer,
    authorizer,
    leafLifetimeMs: 60_000,
    concurrencyMax: 2,
    clock,
    log,
    onOutcome: (outcome) => outcomes.push(outcome),
  });
  return { certifier, clock, lines, outcomes };
}

function request(change: Partial<CertifyRequest> = {}): CertifyRequest {
  return {
    identity: IDENTITY,
    token: Buffer.from(makeToken(tokenKey)),
    certificateSigningRequest: createCertificateRequest(IDENTITY, workload.privateKey),
    ...change,
  };
}

describe('certify', () => {
  test('answers with leaf and issuer in DER and writes one audit line', async () => {
    const { certifier, lines, outcomes } = make();
    const response = await certifier.certify(request(), null);
    const leaf = new X509Certificate(response.leafCertificate);
    const issuer = new X509Certificate(response.intermediateCertificates[0]!);
    expect(response.intermediateCertificates).toHaveLength(1);
    expect(leaf.verify(issuer.publicKey)).toBe(true);
    expect(response.validUntil).toEqual({ seconds: BigInt(leaf.validToDate.getTime() / 1000), nanos: 0 });
    expect(outcomes).toEqual(['IssuerUpdated', 'issued']);
    const audit = lines.filter(({ event }) => event === 'IssuedLeafCertificate');
    expect(audit).toHaveLength(1);
    expect(audit[0]).toMatchObject({
      identity: IDENTITY,
      way: 'pod-token',
      caller: 'web/nginx',
      serial: leaf.serialNumber.toLowerCase(),
    });
  });

  test.each<[string, Partial<CertifyRequest>, string | null, number, string]>([
    ['no identity', { identity: '' }, null, Status.invalidArgument, 'missing-field'],
    ['no token', { token: Buffer.alloc(0) }, null, Status.invalidArgument, 'missing-field'],
    ['no request', { certificateSigningRequest: Buffer.alloc(0) }, null, Status.invalidArgument, 'missing-field'],
    ['an empty pod UID', {}, '', Status.invalidArgument, 'missing-field'],
    ['junk for a request', { certificateSigningRequest: Buffer.from('junk') }, null, Status.invalidArgument, 'bad-csr'],
    [
      'names of another',
      { certificateSigningRequest: createCertificateRequest('other', workload.privateKey) },
      null,
      Status.failedPrecondition,
      'csr-names',
    ],
    [
      'a token of a stranger',
      { token: Buffer.from(makeToken(makeKey())) },
      null,
      Status.failedPrecondition,
      'token-refused',
    ],
    ['the way of an agent', {}, 'some-pod', Status.permissionDenied, 'not-agent'],
  ])('refuses %s and says so', async (_what, change, podUid, status, code) => {
    const { certifier, lines, outcomes } = make();
    await expect(certifier.certify(request(change), podUid)).rejects.toMatchObject({ status, code });
    expect(outcomes).toEqual(['IssuerUpdated', code]);
    expect(lines.at(-1)).toMatchObject({ event: 'RefusedLeafCertificate', code });
    expect(JSON.stringify(lines)).not.toContain(request().token.toString());
  });

  test('is unavailable until an issuer is loaded', async () => {
    await expect(make({ isLoaded: false }).certifier.certify(request(), null)).rejects.toMatchObject({
      status: Status.unavailable,
    });
  });

  test('fails, and reports it, once the issuer has expired', async () => {
    const { certifier, clock, outcomes } = make();
    await expect(certifier.certify(request(), null)).resolves.toBeDefined();
    clock.advance(101 * 24 * 3600_000);
    await expect(certifier.certify(request(), null)).rejects.toMatchObject({ code: 'issuer-expired' });
    expect(outcomes).toContain('IssuerValidationFailed');
  });

  test('takes no more requests at once than its bound', async () => {
    let release = (): void => {};
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    const reviewer: TokenReviewer = {
      review: async () => {
        await gate;
        return {
          kind: 'authenticated',
          subject: { username: 'system:serviceaccount:web:nginx', pod: null, node: null },
        };
      },
    };
    const { certifier } = make({ reviewer });
    const two = [certifier.certify(request(), null), certifier.certify(request(), null)];
    await expect(certifier.certify(request(), null)).rejects.toMatchObject({ status: Status.resourceExhausted });
    release();
    await expect(Promise.all(two)).resolves.toHaveLength(2);
    await expect(certifier.certify(request(), null)).resolves.toBeDefined();
  });

  test('writes audit lines for refusals at a bounded rate', async () => {
    const { certifier, lines, outcomes } = make();
    for (let i = 0; i < 200; i++) await certifier.certify(request({ identity: '' }), null).catch(() => {});
    expect(lines.filter(({ event }) => event === 'RefusedLeafCertificate')).toHaveLength(100);
    expect(outcomes.filter((outcome) => outcome === 'missing-field')).toHaveLength(200);
  });
});
