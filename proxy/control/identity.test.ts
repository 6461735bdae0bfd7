import { X509Certificate } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { CertifyRequest, CertifyResponse } from '#api/gen/identity.ts';
import { CertificateAuthority, skewFor } from '#controlplane/identity/ca.ts';
import { parseCertificateRequest } from '#controlplane/identity/csr.ts';
import { makeAuthority, type TestAuthority } from '#controlplane/identity/testing.ts';
import { FakeClock } from '#lib/clock.ts';
import { silentLog } from '#lib/log.ts';
import type { TlsMaterial } from '../io/tls.ts';
import { isTrusted, parseAnchors } from './certificate.ts';
import { Identity, refreshDelayMs } from './identity.ts';

const NAME = 'web.shop.serviceaccount.identity.heddle.cluster.local';
const PARTS = {
  serviceAccount: 'web',
  namespace: 'shop',
  controlPlaneNamespace: 'heddle',
  trustDomain: 'cluster.local',
};
const HOUR_MS = 3_600_000;

/** An identity whose requests an authority in memory signs, on a clock that stands still. */
class Fixture {
  readonly clock = new FakeClock();
  readonly applied: TlsMaterial[] = [];
  readonly counts = { ok: 0, error: 0, expiration: 0, refreshed: 0, used: 0 };
  authority: TestAuthority = makeAuthority('one', {}, this.clock.wallMs());
  parts = PARTS;
  lifetimeMs = 24 * HOUR_MS;
  requests = 0;
  failure: Error | null = null;
  applyFailure: Error | null = null;
  readonly identity = new Identity({
    certify: async (request) => this.#sign(request),
    apply: (material) => {
      if (this.applyFailure) throw this.applyFailure;
      this.applied.push(material);
    },
    onCertificate: () => {
      this.counts.used++;
    },
    metrics: {
      expiration: { set: (value) => (this.counts.expiration = value) },
      refreshed: { set: (value) => (this.counts.refreshed = value) },
      succeeded: { add: (amount) => (this.counts.ok += amount) },
      failed: { add: (amount) => (this.counts.error += amount) },
    },
    clock: this.clock,
    log: silentLog,
    random: () => 0,
  });

  async #sign(request: Uint8Array): Promise<Uint8Array> {
    this.requests++;
    await Promise.resolve();
    if (this.failure) throw this.failure;
    const { certificateSigningRequest } = CertifyRequest.decode(request);
    const nowMs = this.clock.wallMs();
    const ca = new CertificateAuthority(this.authority.files, nowMs);
    const { publicKeyDer } = parseCertificateRequest(certificateSigningRequest);
    const leaf = ca.signLeaf(publicKeyDer, this.parts, this.lifetimeMs, nowMs);
    return CertifyResponse.encode({
      leafCertificate: leaf.der,
      intermediateCertificates: [...ca.intermediates],
      validUntil: { seconds: BigInt(Math.floor(leaf.notAfterMs / 1000)), nanos: 0 },
    }).finish();
  }

  configure(name = NAME, anchorsPem = this.authority.files.anchorsPem): void {
    this.identity.configure(name, anchorsPem);
  }

  /** Moves time on and lets what became due finish. */
  async advance(durationMs: number): Promise<void> {
    this.clock.advance(durationMs);
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  }

  get chain(): X509Certificate {
    return new X509Certificate(this.applied.at(-1)!.certificate!.chainPem);
  }
}

describe('renewal', () => {
  test.each([
    ['a day ahead', 24 * HOUR_MS, 24 * HOUR_MS, 0.7 * 24 * HOUR_MS],
    ['a year ahead: not later than a day', 365 * 24 * HOUR_MS, 365 * 24 * HOUR_MS, 24 * HOUR_MS],
    ['nearly over: not sooner than ten seconds', 5_000, 24 * HOUR_MS, 10_000],
    ['over', -5_000, 24 * HOUR_MS, 10_000],
    ['a life of seconds', 8_000, 8_000, 5_600],
    ['a life of seconds, nearly over', 100, 8_000, 2_000],
  ])('of one that ends %s', (_name, remainingMs, lifeMs, delayMs) => {
    expect(refreshDelayMs(remainingMs, lifeMs)).toBeCloseTo(delayMs, 6);
  });

  test('comes at 70 % of the rest, with the same key, and swaps the material', async () => {
    const fixture = new Fixture();
    fixture.configure();
    expect(fixture.applied).toEqual([{ anchorsPem: fixture.authority.files.anchorsPem, certificate: null }]);
    await fixture.advance(0);
    expect([fixture.requests, fixture.counts.used, fixture.applied.length]).toEqual([1, 1, 2]);
    const first = fixture.applied[1]!.certificate!;
    const lifeMs = fixture.identity.expiresMs - fixture.clock.wallMs();
    await fixture.advance(0.7 * lifeMs - 1_000);
    expect(fixture.requests).toBe(1);
    await fixture.advance(1_000);
    expect([fixture.requests, fixture.counts.used]).toEqual([2, 2]);
    const second = fixture.applied[2]!.certificate!;
    expect(second.keyPem).toBe(first.keyPem);
    expect(second.chainPem).not.toBe(first.chainPem);
    expect(fixture.counts).toMatchObject({ ok: 2, error: 0, refreshed: fixture.clock.wallMs() / 1000 });
    expect(fixture.counts.expiration).toBe(fixture.identity.expiresMs / 1000);
  });

  test('keeps up with lives of seconds', async () => {
    const fixture = new Fixture();
    fixture.lifetimeMs = 4_000;
    fixture.configure();
    for (let second = 0; second < 30; second++) {
      await fixture.advance(1_000);
      expect(fixture.identity.expiresMs).toBeGreaterThan(fixture.clock.wallMs());
    }
    expect(fixture.requests).toBeGreaterThan(6);
    expect(skewFor(4_000)).toBe(0);
  });
});

describe('failures', () => {
  test('before the first certificate are retried with back-off', async () => {
    const fixture = new Fixture();
    fixture.failure = new Error('identity is away');
    fixture.configure();
    const atMs: number[] = [];
    for (let seen = 0; atMs.length < 5; ) {
      await fixture.advance(100);
      if (fixture.requests > seen) atMs.push(fixture.clock.nowMs());
      seen = fixture.requests;
    }
    expect(atMs).toEqual([100, 200, 400, 800, 1600]);
    expect([fixture.identity.lastFailure, fixture.counts.error]).toEqual(['identity is away', 5]);
    fixture.failure = null;
    await fixture.advance(10_000);
    expect([fixture.identity.lastFailure, fixture.counts.used]).toEqual(['', 1]);
  });

  test('keep the certificate that still holds, and are retried within a minute and a half', async () => {
    const fixture = new Fixture();
    fixture.configure();
    await fixture.advance(0);
    fixture.failure = new Error('identity is away');
    await fixture.advance(17 * HOUR_MS);
    const tried = fixture.requests;
    expect(tried).toBeGreaterThan(1);
    expect(fixture.applied.length).toBe(2);
    await fixture.advance(90_000);
    expect(fixture.requests).toBeGreaterThan(tried);
  });

  test('are retried at once when the way is open again', async () => {
    const fixture = new Fixture();
    fixture.failure = new Error('agent is away');
    fixture.configure();
    await fixture.advance(60_000);
    fixture.failure = null;
    fixture.identity.retryNow();
    await fixture.advance(0);
    expect(fixture.counts.used).toBe(1);
    const { requests } = fixture;
    fixture.identity.retryNow();
    await fixture.advance(0);
    expect(fixture.requests).toBe(requests);
  });

  test.each<[string, (fixture: Fixture) => void, RegExp]>([
    [
      'for another name',
      (fixture) => {
        fixture.parts = { ...PARTS, serviceAccount: 'api' };
      },
      /for that name/,
    ],
    [
      'of another anchor',
      (fixture) => {
        fixture.authority = makeAuthority('two', {}, fixture.clock.wallMs());
      },
      /chains to none of 1 trust anchors/,
    ],
    [
      'that TLS cannot use',
      (fixture) => {
        fixture.applyFailure = new Error('no such curve');
      },
      /no such curve/,
    ],
  ])('a certificate %s is not used', async (_name, spoil, reason) => {
    const fixture = new Fixture();
    fixture.configure();
    const before = fixture.applied.length;
    spoil(fixture);
    await fixture.advance(0);
    expect(fixture.identity.lastFailure).toMatch(reason);
    expect([fixture.applied.length, fixture.identity.expiresMs]).toEqual([before, 0]);
  });

  test('a certificate for another key is not used', async () => {
    const [one, two] = [new Fixture(), new Fixture()];
    two.authority = one.authority;
    const responses: Uint8Array[] = [];
    const stolen = new Identity({
      ...identityOptions(one),
      certify: async () => responses[0]!,
    });
    const original = new Identity({
      ...identityOptions(two),
      certify: async (request) => {
        const ca = new CertificateAuthority(two.authority.files, two.clock.wallMs());
        const { publicKeyDer } = parseCertificateRequest(CertifyRequest.decode(request).certificateSigningRequest);
        const leaf = ca.signLeaf(publicKeyDer, PARTS, HOUR_MS, two.clock.wallMs());
        responses.push(
          CertifyResponse.encode({
            leafCertificate: leaf.der,
            intermediateCertificates: [...ca.intermediates],
            validUntil: undefined,
          }).finish(),
        );
        return responses[0]!;
      },
    });
    original.configure(NAME, one.authority.files.anchorsPem);
    await two.advance(0);
    expect(original.expiresMs).toBeGreaterThan(two.clock.wallMs());
    stolen.configure(NAME, one.authority.files.anchorsPem);
    await one.advance(0);
    expect(stolen.lastFailure).toMatch(/for the key of this worker/);
  });
});

function identityOptions(fixture: Fixture): ConstructorParameters<typeof Identity>[0] {
  const nothing = { set: () => {}, add: () => {} };
  return {
    certify: async () => new Uint8Array(),
    apply: () => {},
    onCertificate: () => {},
    metrics: { expiration: nothing, refreshed: nothing, succeeded: nothing, failed: nothing },
    clock: fixture.clock,
    log: silentLog,
  };
}

describe('trust anchors', () => {
  test('change without a new certificate where the one in use still leads to them', async () => {
    const fixture = new Fixture();
    fixture.configure();
    await fixture.advance(0);
    const other = makeAuthority('two', {}, fixture.clock.wallMs());
    const both = fixture.authority.files.anchorsPem + other.files.anchorsPem;
    fixture.configure(NAME, both);
    await fixture.advance(0);
    expect(fixture.requests).toBe(1);
    expect(fixture.applied.at(-1)).toEqual({ anchorsPem: both, certificate: fixture.applied.at(-2)!.certificate });
  });

  test('that drop the issuer in use bring a new certificate at once', async () => {
    const fixture = new Fixture();
    fixture.configure();
    await fixture.advance(0);
    fixture.authority = makeAuthority('two', {}, fixture.clock.wallMs());
    fixture.configure();
    await fixture.advance(0);
    expect(fixture.requests).toBe(2);
    expect(isTrusted([fixture.chain], parseAnchors(fixture.authority.issuer.certificatePem))).toBe(true);
  });

  test('that cannot be read change nothing', async () => {
    const fixture = new Fixture();
    fixture.configure();
    await fixture.advance(0);
    const applied = fixture.applied.length;
    expect(() => fixture.configure(NAME, 'garbage')).toThrow(/expected PEM certificates/);
    expect(fixture.applied.length).toBe(applied);
    fixture.configure();
    expect(fixture.applied.length).toBe(applied);
  });

  test('and a new name while a request is under way lead to another request', async () => {
    const fixture = new Fixture();
    fixture.configure('old.name');
    fixture.clock.advance(0);
    fixture.configure();
    fixture.clock.advance(0);
    await fixture.advance(0);
    await fixture.advance(0);
    expect(fixture.requests).toBe(2);
    expect(fixture.chain.subjectAltName).toContain(NAME);
  });
});
