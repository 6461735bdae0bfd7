import { describe, expect, test } from 'vitest';
import type { FailureAccrual, HttpRoute, ProxyProtocol } from '#api/gen/outbound.ts';
import { DEFAULT_LOAD, type OutboundProtocol } from './policy.ts';
import { balancerBackend, detectPolicy, duration, forwardBackend, route, rule } from './testing.ts';
import { translatePolicy } from './translate.ts';

const PATH = 'web.shop.svc.cluster.local:80';
const isLocal = (address: string) => address === '10.1.0.7';

function translate(protocol: ProxyProtocol | undefined): OutboundProtocol {
  return translatePolicy({ protocol, metadata: { kind: { $case: 'default', value: 'x' } } }, isLocal).protocol;
}

function detect(routes: HttpRoute[], accrual?: FailureAccrual) {
  const protocol = translate(detectPolicy(routes, balancerBackend(PATH), accrual));
  if (protocol.kind !== 'detect') throw new Error(`expected detect, got ${JSON.stringify(protocol)}`);
  return protocol;
}

describe('translatePolicy', () => {
  test('the usual policy: detect, one route, one balancer', () => {
    const { timeoutMs, http1, opaque } = detect([route([rule('/', [balancerBackend(PATH)])])]);
    expect(timeoutMs).toBe(10_000);
    expect(http1.routes[0]!.ref).toMatchObject({ kind: 'default', name: 'http' });
    expect(http1.routes[0]!.rules[0]!.distribution).toEqual({
      kind: 'first',
      backends: [
        {
          backend: { kind: 'balancer', ref: expect.objectContaining({ name: PATH }), path: PATH, load: DEFAULT_LOAD },
          weight: 1,
          filters: { request: [], response: [] },
        },
      ],
    });
    expect(http1.breaker).toBeNull();
    expect(opaque[0]!.distribution.backends).toHaveLength(1);
  });

  test('the parent is named with its port', () => {
    const resource = { group: 'core', kind: 'Service', namespace: 'shop', name: 'web', section: '', port: 80 };
    const { parent } = translatePolicy(
      { protocol: undefined, metadata: { kind: { $case: 'resource', value: resource } } },
      isLocal,
    );
    expect(parent).toEqual({ ...resource, port: '80' });
  });

  test.each([
    ['no protocol', undefined],
    ['an empty one', { kind: undefined }],
    [
      'a bad regular expression',
      detectPolicy([route([{ ...rule('/', []), matches: [badMatch()] }])], balancerBackend(PATH)),
    ],
  ])('%s makes the policy invalid, not the worker', (_name, protocol) => {
    const translated = translate(protocol);
    expect(translated.kind).toBe('invalid');
    expect(translated).toHaveProperty('reason', expect.stringMatching(/expected/));
  });

  test('a backend that cannot be used keeps its share', () => {
    const { http1 } = detect([
      route([
        rule('/', [], {
          backends: {
            kind: {
              $case: 'randomAvailable',
              value: {
                backends: [
                  {
                    weight: 9,
                    backend: { backend: forwardBackend('10.2.0.1', 80), filters: [], requestTimeout: undefined },
                  },
                  { weight: 1, backend: { backend: undefined, filters: [], requestTimeout: undefined } },
                  {
                    weight: 0,
                    backend: { backend: forwardBackend('10.2.0.2', 80), filters: [], requestTimeout: undefined },
                  },
                ],
              },
            },
          },
        }),
      ]),
    ]);
    const { kind, backends } = http1.routes[0]!.rules[0]!.distribution;
    expect(kind).toBe('random');
    expect(backends.map(({ weight, backend }) => [weight, backend.kind])).toEqual([
      [9, 'forward'],
      [1, 'unusable'],
    ]);
  });

  test('a forward to the pod itself is local', () => {
    const { http1 } = detect([route([rule('/', [forwardBackend('10.1.0.7', 80)])])]);
    const { backend } = http1.routes[0]!.rules[0]!.distribution.backends[0]!;
    expect(backend).toMatchObject({ kind: 'forward', endpoint: { identity: null, noTlsReason: 'loopback' } });
  });

  test('retries: defaults, the bound on bodies, and back-off', () => {
    const retry = {
      maxRetries: 3,
      maxRequestBytes: 1_000_000,
      conditions: { statusRanges: [{ start: 500, end: 0 }] },
      timeout: duration(250),
      backoff: undefined,
    };
    const { http1 } = detect([route([rule('/', [], { retry, requestTimeout: duration(1_500) })])]);
    const translated = http1.routes[0]!.rules[0]!;
    expect(translated.retry).toMatchObject({
      maxRetries: 3,
      maxRequestBytes: 65_536,
      statuses: [[500, 500]],
      perTryMs: 250,
      backoff: null,
    });
    expect(translated.timeouts).toEqual({ requestMs: 1_500, responseMs: null, idleMs: null });
  });

  test('failure accrual of both kinds', () => {
    const backoff = {
      minBackoff: duration(500),
      maxBackoff: duration(1_000),
      jitterRatio: 0.5,
      respectRetryAfterHint: true,
    };
    const consecutive = detect([], {
      kind: { $case: 'consecutiveFailures', value: { maxFailures: 0, backoff } },
      ejection: undefined,
    });
    expect(consecutive.http1.breaker).toEqual({
      maxFailures: 7,
      backoff: { minMs: 500, maxMs: 1_000, jitter: 0.5 },
      respectRetryAfter: true,
      successRate: null,
    });
    const unified = detect([], {
      kind: {
        $case: 'unified',
        value: {
          successRateThreshold: 0,
          decay: undefined,
          minRequests: 0,
          maxConsecutiveFailures: 3,
          backoff: undefined,
        },
      },
      ejection: undefined,
    });
    expect(unified.http1.breaker).toEqual({
      maxFailures: 3,
      backoff: { minMs: 1_000, maxMs: 60_000, jitter: 0.5 },
      respectRetryAfter: false,
      successRate: { threshold: 0.8, windowMs: 10_000, minRequests: 5 },
    });
  });

  test('gRPC conditions become codes', () => {
    const conditions = {
      cancelled: true,
      deadineExceeded: false,
      resourceExhausted: true,
      internal: false,
      unavailable: true,
    };
    const translated = translate({
      kind: {
        $case: 'grpc',
        value: {
          failureAccrual: undefined,
          routes: [
            {
              metadata: undefined,
              hosts: [],
              rules: [
                {
                  matches: [{ rpc: { service: 'shop.Cart', method: 'Add' }, headers: [] }],
                  filters: [
                    { kind: { $case: 'failureInjector', value: { code: 14, message: 'no', ratio: undefined } } },
                  ],
                  backends: undefined,
                  requestTimeout: undefined,
                  timeouts: undefined,
                  allowL5dRequestHeaders: false,
                  retry: { maxRetries: 1, maxRequestBytes: 0, conditions, timeout: undefined, backoff: undefined },
                },
              ],
            },
          ],
        },
      },
    });
    if (translated.kind !== 'grpc') throw new Error('expected grpc');
    const [translatedRule] = translated.http.routes[0]!.rules;
    expect(translated.http.protocol).toBe('grpc');
    expect(translatedRule!.matches[0]!.path).toEqual({ kind: 'rpc', service: 'shop.Cart', method: 'Add' });
    expect([...translatedRule!.retry!.grpcCodes]).toEqual([1, 8, 14]);
    expect(translatedRule!.filters.request).toEqual([{ kind: 'grpc-failure', code: 14, message: 'no', ratio: null }]);
  });

  test('a forbidden opaque route', () => {
    const translated = translate({
      kind: {
        $case: 'opaque',
        value: {
          routes: [
            {
              metadata: { kind: { $case: 'default', value: 'undefined-port' } },
              rules: [{ backends: undefined, filters: [{ kind: { $case: 'forbidden', value: {} } }] }],
            },
          ],
        },
      },
    });
    if (translated.kind !== 'opaque') throw new Error('expected opaque');
    expect(translated.routes[0]!.refusal).toBe('forbidden');
  });
});

function badMatch() {
  return {
    path: { kind: { $case: 'regex' as const, value: '(' } },
    headers: [],
    queryParams: [],
    method: undefined,
  };
}
