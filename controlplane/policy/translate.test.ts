import { describe, expect, test } from 'vitest';
import { HttpMethod_Registered } from '#api/gen/http_types.ts';
import { Server } from '#api/gen/inbound.ts';
import { OutboundPolicy } from '#api/gen/outbound.ts';
import type { InboundSnapshot, OutboundSnapshot } from '../core/model.ts';
import { toServer } from './translate-inbound.ts';
import { toOutboundPolicy } from './translate-outbound.ts';

const seconds = (count: number) => ({ seconds: BigInt(count), nanos: 0 });
const ms = (count: number) => ({ seconds: 0n, nanos: count * 1e6 });
const byDefault = (value: string) => ({ kind: { $case: 'default', value } });
const service = { namespace: 'shop', name: 'web', port: 80 };
const metadata = {
  kind: {
    $case: 'resource',
    value: { group: 'core', kind: 'Service', name: 'web', namespace: 'shop', section: '', port: 80 },
  },
};
const traffic = {
  timeouts: { requestMs: null, responseMs: null, idleMs: null },
  httpRetry: null,
  failureAccrual: null,
};
const backend = {
  metadata,
  kind: {
    $case: 'balancer',
    value: {
      discovery: { kind: { $case: 'dst', value: { path: 'web.shop.svc.cluster.local:80' } } },
      load: { $case: 'peakEwma', value: { defaultRtt: ms(30), decay: seconds(10) } },
    },
  },
  queue: { capacity: 100, failfastTimeout: seconds(3) },
};
const opaqueRoute = (name: string, of: object) => ({
  metadata: byDefault(name),
  rules: [
    {
      backends: { kind: { $case: 'firstAvailable', value: { backends: [{ backend: of, filters: [] }] } } },
      filters: [],
    },
  ],
});
const httpRoute = (name: string, of: object, rule: object = {}) => ({
  metadata: byDefault(name),
  hosts: [],
  rules: [
    {
      matches: [{ path: { kind: { $case: 'prefix', value: '/' } }, headers: [], queryParams: [], method: undefined }],
      filters: [],
      backends: {
        kind: {
          $case: 'firstAvailable',
          value: { backends: [{ backend: of, filters: [], requestTimeout: undefined }] },
        },
      },
      requestTimeout: undefined,
      timeouts: undefined,
      retry: undefined,
      allowL5dRequestHeaders: false,
      ...rule,
    },
  ],
});
type Answered = Exclude<OutboundSnapshot, { kind: 'refused' }>;

/** Through the bytes, as a client reads it. */
const outbound = (snapshot: Answered) =>
  OutboundPolicy.decode(OutboundPolicy.encode(toOutboundPolicy(snapshot, 'cluster.local')).finish());

describe('outbound', () => {
  test('a Service whose protocol is detected', () => {
    const http = { routes: [httpRoute('http', backend)], failureAccrual: undefined };
    expect(outbound({ kind: 'service', service, protocol: 'detect', traffic })).toEqual({
      metadata,
      protocol: {
        kind: {
          $case: 'detect',
          value: { timeout: seconds(10), opaque: { routes: [opaqueRoute('opaq', backend)] }, http1: http, http2: http },
        },
      },
    });
  });

  test.each(['http1', 'http2'] as const)('a Service of %s', (protocol) =>
    expect(outbound({ kind: 'service', service, protocol, traffic }).protocol).toEqual({
      kind: { $case: protocol, value: { routes: [httpRoute('http', backend)], failureAccrual: undefined } },
    }),
  );

  test('an opaque Service', () =>
    expect(outbound({ kind: 'service', service, protocol: 'opaque', traffic }).protocol).toEqual({
      kind: { $case: 'opaque', value: { routes: [opaqueRoute('opaq', backend)] } },
    }));

  test('timeouts, retries and failure accrual', () => {
    const settings = {
      timeouts: { requestMs: 5_000, responseMs: null, idleMs: 100 },
      httpRetry: { statuses: [[500, 599] as [number, number]], limit: 2, timeoutMs: 300 },
      failureAccrual: {
        maxFailures: 3,
        minPenaltyMs: 1_000,
        maxPenaltyMs: 60_000,
        jitterRatio: 0.5,
        honorsRetryAfter: true,
      },
    };
    expect(outbound({ kind: 'service', service, protocol: 'http1', traffic: settings }).protocol?.kind?.value).toEqual({
      routes: [
        httpRoute('http', backend, {
          requestTimeout: seconds(5),
          timeouts: { request: seconds(5), response: undefined, idle: ms(100) },
          retry: {
            maxRetries: 2,
            maxRequestBytes: 65_536,
            conditions: { statusRanges: [{ start: 500, end: 599 }] },
            timeout: ms(300),
            backoff: { minBackoff: ms(25), maxBackoff: ms(250), jitterRatio: 1, respectRetryAfterHint: false },
          },
        }),
      ],
      failureAccrual: {
        kind: {
          $case: 'consecutiveFailures',
          value: {
            maxFailures: 3,
            backoff: { minBackoff: seconds(1), maxBackoff: seconds(60), jitterRatio: 0.5, respectRetryAfterHint: true },
          },
        },
        ejection: undefined,
      },
    });
  });

  test('a port that the Service does not have is forbidden', () =>
    expect(outbound({ kind: 'undefined-port', service })).toEqual({
      metadata,
      protocol: {
        kind: {
          $case: 'opaque',
          value: {
            routes: [
              {
                metadata: byDefault('undefined-port'),
                rules: [
                  {
                    backends: { kind: { $case: 'empty', value: {} } },
                    filters: [{ kind: { $case: 'forbidden', value: {} } }],
                  },
                ],
              },
            ],
          },
        },
      },
    }));

  test('egress goes where the application wanted', () => {
    const policy = outbound({ kind: 'egress', ip: '198.51.100.7', port: 443 });
    expect(policy.metadata).toEqual(byDefault('egress-fallback'));
    const value = policy.protocol?.kind?.$case === 'detect' ? policy.protocol.kind.value : undefined;
    expect(value?.timeout).toEqual(seconds(10));
    const addr = { ip: { ip: { $case: 'ipv4', value: 0xc6336407 } }, port: 443 };
    expect(value?.opaque?.routes[0]?.rules[0]?.backends?.kind).toMatchObject({
      value: { backends: [{ backend: { kind: { $case: 'forward', value: { addr, weight: 1 } } } }] },
    });
    expect(value?.http1?.routes[0]).toMatchObject({ metadata: byDefault('egress-fallback') });
  });
});

const server = (rest: Partial<Extract<InboundSnapshot, { kind: 'server' }>> = {}) => {
  const snapshot = {
    kind: 'server',
    reference: { kind: 'default', name: 'deny' },
    protocol: 'detect',
    authorizations: [],
    routes: [],
    ...rest,
  } as Extract<InboundSnapshot, { kind: 'server' }>;
  return Server.decode(Server.encode(toServer(snapshot)).finish());
};

describe('inbound', () => {
  const everything = {
    reference: { kind: 'default', name: 'default' },
    authorizations: [],
    matches: [{ path: { kind: 'prefix', value: '/' }, method: null }],
  } as const;
  const network = (value: number, prefixLen: number) => ({ ip: { ip: { $case: 'ipv4', value } }, prefixLen });

  test('deny by default', () =>
    expect(server({ routes: [everything] })).toEqual({
      protocol: {
        kind: {
          $case: 'detect',
          value: {
            timeout: seconds(10),
            httpRoutes: [
              {
                metadata: byDefault('default'),
                hosts: [],
                authorizations: [],
                rules: [
                  {
                    matches: [
                      {
                        path: { kind: { $case: 'prefix', value: '/' } },
                        headers: [],
                        queryParams: [],
                        method: undefined,
                      },
                    ],
                    filters: [],
                  },
                ],
              },
            ],
            httpLocalRateLimit: undefined,
          },
        },
      },
      serverIps: [],
      authorizations: [],
      labels: { group: '', kind: 'default', name: 'deny' },
    }));

  test.each([
    ['http1', { $case: 'http1', value: { routes: [], localRateLimit: undefined } }],
    ['http2', { $case: 'http2', value: { routes: [], localRateLimit: undefined } }],
    ['grpc', { $case: 'grpc', value: { routes: [] } }],
    ['opaque', { $case: 'opaque', value: {} }],
    ['tls', { $case: 'tls', value: {} }],
  ] as const)('%s', (protocol, kind) => expect(server({ protocol }).protocol).toEqual({ kind }));

  test('the kinds of clients', () => {
    const reference = { kind: 'default', name: 'x' } as const;
    const networks = [{ cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] }];
    const authn = (...clients: Parameters<typeof make>[0][]) => clients.map(make);
    const make = (clients: Extract<InboundSnapshot, { kind: 'server' }>['authorizations'][0]['clients']) =>
      server({ authorizations: [{ reference, networks, clients }] }).authorizations[0];
    const [open, tls, named] = authn(
      { kind: 'unauthenticated' },
      { kind: 'tls' },
      { kind: 'identities', names: ['a.b'], suffixes: [[], ['c', 'd']] },
    );
    expect(open).toEqual({
      networks: [{ net: network(0x0a000000, 8), except: [network(0x0a010000, 16)] }],
      authentication: { permit: { $case: 'unauthenticated', value: {} } },
      labels: { group: '', kind: 'default', name: 'x' },
      metadata: byDefault('x'),
    });
    expect(tls?.authentication).toEqual({
      permit: { $case: 'meshTLS', value: { clients: { $case: 'unauthenticated', value: {} } } },
    });
    expect(named?.authentication).toEqual({
      permit: {
        $case: 'meshTLS',
        value: {
          clients: {
            $case: 'identities',
            value: { identities: [{ name: 'a.b' }], suffixes: [{ parts: [] }, { parts: ['c', 'd'] }] },
          },
        },
      },
    });
  });

  test('resources and probes', () => {
    const reference = {
      kind: 'resource',
      group: 'policy.linkerd.io',
      resource: 'server',
      namespace: 'shop',
      name: 'web',
    } as const;
    const probe = { ...everything, matches: [{ path: { kind: 'exact', value: '/live' }, method: 'GET' }] } as const;
    const message = server({ reference, routes: [probe] });
    expect(message.labels).toEqual({ group: 'policy.linkerd.io', kind: 'server', name: 'web' });
    const routes = message.protocol?.kind?.$case === 'detect' ? message.protocol.kind.value.httpRoutes : [];
    expect(routes[0]!.rules[0]!.matches).toEqual([
      {
        path: { kind: { $case: 'exact', value: '/live' } },
        headers: [],
        queryParams: [],
        method: { type: { $case: 'registered', value: HttpMethod_Registered.GET } },
      },
    ]);
  });
});
