import { describe, expect, test } from 'vitest';
import type { DestinationProfile } from '#api/gen/destination.ts';
import type { OutboundPolicy } from '#api/gen/outbound.ts';
import { readEndpoint } from './endpoint-info.ts';
import { type Answer, resolve, resolveLate } from './resolve.ts';
import { balancerBackend, detectPolicy, route, rule, weightedAddr } from './testing.ts';

const ORIGINAL = { address: '10.96.0.1', port: 80 };
const options = { isLocal: (address: string) => address === '10.1.0.7', detectTimeoutMs: () => 2_000 };
const waiting = { value: undefined, status: null };
const absent = { value: undefined, status: { code: 5, message: 'No such service' } };
const unreachable = { value: undefined, status: { code: 14, message: 'agent is gone' } };

function profile(part: Partial<DestinationProfile> = {}): Answer<DestinationProfile> {
  const value: DestinationProfile = {
    routes: [],
    retryBudget: undefined,
    dstOverrides: [],
    opaqueProtocol: false,
    fullyQualifiedName: 'web.shop.svc.cluster.local',
    endpoint: undefined,
    parentRef: undefined,
    profileRef: undefined,
    ...part,
  };
  return { value, status: null };
}

const policy: Answer<OutboundPolicy> = {
  value: {
    protocol: detectPolicy([route([rule('/', [balancerBackend('web:80')])])], balancerBackend('web:80')),
    metadata: undefined,
  },
  status: null,
};

describe('resolve', () => {
  test('waits for both answers', () => {
    expect(resolve(ORIGINAL, waiting, policy, options)).toBeNull();
    expect(resolve(ORIGINAL, profile(), waiting, options)).toBeNull();
    expect(resolve(ORIGINAL, unreachable, policy, options)).toBeNull();
    expect(resolve(ORIGINAL, profile(), unreachable, options)).toBeNull();
  });

  test('the policy routes a service with an implicit profile', () => {
    expect(resolve(ORIGINAL, profile(), policy, options)).toMatchObject({
      kind: 'policy',
      authority: 'web.shop.svc.cluster.local:80',
      isOpaque: false,
      policy: { protocol: { kind: 'detect' } },
    });
  });

  test('a profile with overrides routes by itself', () => {
    const dstOverrides = [{ authority: 'v2:80', weight: 1, backendRef: undefined }];
    expect(resolve(ORIGINAL, profile({ dstOverrides }), policy, options)?.kind).toBe('profile');
  });

  test('a pod is its profile\u2019s endpoint', () => {
    const endpoint = weightedAddr('10.1.0.9', 8080);
    const pod = profile({ fullyQualifiedName: '', endpoint });
    expect(resolve({ address: '10.1.0.9', port: 8080 }, pod, absent, options)).toMatchObject({
      policy: {
        protocol: { opaque: [{ distribution: { backends: [{ backend: { endpoint: { address: '10.1.0.9' } } }] } }] },
      },
    });
  });

  test.each([
    { strategy: { $case: 'uriLikeIdentity' as const, value: { uri: 'spiffe://a/b' } }, serverName: undefined },
    { strategy: { $case: 'dnsLikeIdentity' as const, value: { name: '' } }, serverName: undefined },
    // A way to tell identities that a newer control plane knows.
    { strategy: undefined, serverName: { name: 'web.shop' } },
  ])('a peer with an identity that cannot be checked gets nothing in clear', (tlsIdentity) => {
    const endpoint = weightedAddr('10.1.0.9', 8080, { tlsIdentity });
    expect(readEndpoint(endpoint, options.isLocal)).toBeNull();
    const resolution = resolve(ORIGINAL, profile({ fullyQualifiedName: '', endpoint }), absent, options);
    expect(resolution?.policy.protocol.kind).toBe('invalid');
  });

  test('an endpoint with an opaque hint is not read', () => {
    const endpoint = weightedAddr('10.1.0.9', 3306, {
      protocolHint: { protocol: { $case: 'opaque', value: {} }, opaqueTransport: undefined },
    });
    const resolution = resolve(ORIGINAL, profile({ fullyQualifiedName: '', endpoint }), absent, options);
    expect(resolution?.policy.protocol.kind).toBe('opaque');
  });

  test.each([3, 5, 9, 12])('status %i for both means: where the application said', (code) => {
    const none = { value: undefined, status: { code, message: '' } };
    expect(resolve(ORIGINAL, none, none, options)).toMatchObject({
      authority: '',
      policy: { parent: { name: 'forward' }, protocol: { kind: 'detect', timeoutMs: 2_000 } },
    });
  });
});

describe('resolveLate', () => {
  test('a known policy does without its profile', () => {
    expect(resolveLate(ORIGINAL, unreachable, policy, options)).toMatchObject({ kind: 'policy', authority: '' });
  });

  test.each([
    ['nothing known', waiting, waiting],
    ['control plane gone', unreachable, unreachable],
    // The profile might name an identity: forwarding now could send in clear what must not be.
    ['no policy, and no word about the endpoint', unreachable, absent],
    ['no word about the policy', profile(), unreachable],
  ])('%s: fails, never forwards', (_name, profileAnswer, policyAnswer) => {
    expect(() => resolveLate(ORIGINAL, profileAnswer, policyAnswer, options)).toThrow(/discover "10\.96\.0\.1:80"/);
  });
});
