import { createPrivateKey, X509Certificate } from 'node:crypto';
import { describe, expect, test, vi } from 'vitest';
import { FakeClock } from '#lib/clock.ts';
import { silentLog } from '#lib/log.ts';
import { CertificateAuthority } from './ca.ts';
import { parseCertificateRequest } from './csr.ts';
import { ServingCertificate } from './serving-certificate.ts';
import { makeAuthority, NOW_MS } from './testing.ts';

const parts = {
  serviceAccount: 'heddle-destination',
  namespace: 'heddle',
  controlPlaneNamespace: 'heddle',
  trustDomain: 'cluster.local',
};

function make(lifetimeMs = 100_000) {
  const clock = new FakeClock(NOW_MS);
  const authority = new CertificateAuthority(makeAuthority().files, NOW_MS);
  const state = { calls: 0, isFailing: false, seen: [] as number[] };
  const certificate = new ServingCertificate({
    identity: 'heddle-destination.heddle.serviceaccount.identity.heddle.cluster.local',
    certify: async (request) => {
      state.calls++;
      if (state.isFailing) throw new Error('identity is away');
      const { publicKeyDer } = parseCertificateRequest(request);
      const leaf = authority.signLeaf(publicKeyDer, parts, lifetimeMs, clock.wallMs());
      return {
        leafCertificate: leaf.der,
        intermediateCertificates: [...authority.intermediates],
        validUntil: { seconds: BigInt(leaf.notAfterMs / 1000), nanos: 0 },
      };
    },
    clock,
    log: silentLog,
  });
  certificate.onChange((chain) => state.seen.push(chain.notAfterMs - NOW_MS));
  return { certificate, clock, state };
}

describe('a serving certificate', () => {
  test('is for the key that comes with it, with the issuer behind it', async () => {
    const { certificate } = make();
    await certificate.renew();
    const { privateKeyPem, certificatePem } = certificate.current!;
    expect(new X509Certificate(certificatePem).checkPrivateKey(createPrivateKey(privateKeyPem))).toBe(true);
    expect(certificatePem.match(/BEGIN CERTIFICATE/g)).toHaveLength(2);
  });

  test('is renewed at 70 % of its life', async () => {
    const { certificate, clock, state } = make();
    await certificate.renew();
    expect(state.seen).toEqual([110_000]);
    clock.advance(76_999);
    expect(state.calls).toBe(1);
    clock.advance(1);
    await vi.waitFor(() => expect(state.seen).toEqual([110_000, 187_000]));
  });

  test('is tried again when identity is away, and the one before stays', async () => {
    const { certificate, clock, state } = make();
    await certificate.renew();
    const before = certificate.current;
    state.isFailing = true;
    await certificate.renew();
    expect(certificate.current).toBe(before);
    state.isFailing = false;
    clock.advance(1000);
    await vi.waitFor(() => expect(state.seen).toHaveLength(2));
  });

  test('is made once more when asked for while one is being made', async () => {
    const { certificate, state } = make();
    await Promise.all([certificate.renew(), certificate.renew(), certificate.renew()]);
    expect(state.calls).toBe(2);
  });

  test('is not renewed after close', async () => {
    const { certificate, clock, state } = make();
    await certificate.renew();
    certificate.close();
    clock.advance(1e6);
    expect(state.calls).toBe(1);
  });
});
