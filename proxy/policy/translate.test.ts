import { describe, expect, test } from 'vitest';
import { type Authz, Server } from '#api/gen/inbound.ts';
import { parseCidr, parseIp } from '#lib/ip-address.ts';
import { authorize } from './authorization.ts';
import { allAuthorizations } from './server-policy.ts';
import { decodeServerPolicy } from './translate.ts';

const ipv4 = (value: number, prefixLen: number) => ({ ip: { ip: { $case: 'ipv4' as const, value } }, prefixLen });
const ANYWHERE = { net: ipv4(0, 0), except: [] };

function authz(part: Partial<Authz> = {}): Authz {
  return {
    networks: [ANYWHERE],
    authentication: { permit: { $case: 'unauthenticated', value: {} } },
    labels: {},
    metadata: { kind: { $case: 'default', value: 'all-unauthenticated' } },
    ...part,
  };
}

const decode = (part: Partial<Server>) =>
  decodeServerPolicy(
    Server.encode({
      protocol: { kind: { $case: 'opaque', value: {} } },
      serverIps: [],
      authorizations: [],
      labels: {},
      ...part,
    }).finish(),
  );

const detect = (part: object) => ({
  kind: {
    $case: 'detect' as const,
    value: { timeout: undefined, httpRoutes: [], httpLocalRateLimit: undefined, ...part },
  },
});

describe('authorizations', () => {
  test('take networks of both families, host bits cleared', () => {
    const policy = decode({
      authorizations: [
        authz({
          networks: [
            { net: ipv4(0x0a010203, 16), except: [ipv4(0x0a010500, 24)] },
            {
              net: { ip: { ip: { $case: 'ipv6', value: { first: 0xfd00_0000_0000_0001n, last: 5n } } }, prefixLen: 64 },
              except: [],
            },
          ],
        }),
      ],
    });
    expect(policy.authorizations[0]!.networks).toEqual([
      { network: parseCidr('10.1.0.0/16'), except: [parseCidr('10.1.5.0/24')] },
      { network: parseCidr('fd00:0:0:1::/64'), except: [] },
    ]);
  });

  test('without a network are ignored', () => {
    expect(decode({ authorizations: [authz({ networks: [] })] }).authorizations).toEqual([]);
  });

  test('take identities and suffixes', () => {
    const policy = decode({
      authorizations: [
        authz({
          authentication: {
            permit: {
              $case: 'meshTLS',
              value: {
                clients: {
                  $case: 'identities',
                  value: { identities: [{ name: 'a.x' }], suffixes: [{ parts: ['shop', 'x'] }, { parts: [] }] },
                },
              },
            },
          },
        }),
      ],
    });
    expect(policy.authorizations[0]!.authentication).toEqual({
      kind: 'identities',
      exact: new Set(['a.x']),
      suffixes: ['.shop.x', ''],
    });
  });

  test('are named by metadata, else by the older labels', () => {
    const resource = {
      group: 'policy.linkerd.io',
      kind: 'authorizationpolicy',
      name: 'p',
      namespace: 'n',
      section: '',
      port: 0,
    };
    const names = decode({
      labels: { group: 'policy.linkerd.io', kind: 'server', name: 'web' },
      authorizations: [
        authz({ metadata: { kind: { $case: 'resource', value: resource } } }),
        authz({ metadata: undefined, labels: { group: 'g', kind: 'serverauthorization', name: 'old' } }),
      ],
    });
    expect(names.ref).toEqual({ group: 'policy.linkerd.io', kind: 'server', name: 'web' });
    expect(names.authorizations.map((one) => one.ref)).toEqual([
      { group: 'policy.linkerd.io', kind: 'authorizationpolicy', name: 'p' },
      { group: 'g', kind: 'serverauthorization', name: 'old' },
    ]);
  });
});

describe('protocols', () => {
  test('detection has a timeout of its own or ten seconds', () => {
    const timeout = { seconds: 2n, nanos: 500_000_000 };
    expect(decode({ protocol: detect({ timeout }) }).protocol).toEqual({ kind: 'detect', timeoutMs: 2500 });
    expect(decode({ protocol: detect({}) }).protocol).toEqual({ kind: 'detect', timeoutMs: 10_000 });
  });

  test('without routes have one that takes everything under the authorizations of the server', () => {
    const policy = decode({ protocol: detect({}), authorizations: [authz()] });
    expect(policy.routes.map((route) => [route.ref.name, route.authorizations])).toEqual([
      ['default', policy.authorizations],
    ]);
  });

  test('a route is open to its own authorizations and to those of the server', () => {
    const probe = {
      metadata: { kind: { $case: 'default' as const, value: 'probe' } },
      hosts: [],
      authorizations: [authz({ networks: [{ net: ipv4(0xc0000201, 32), except: [] }] })],
      rules: [
        {
          matches: [
            {
              path: { kind: { $case: 'exact' as const, value: '/healthz' } },
              headers: [],
              queryParams: [],
              method: { type: { $case: 'registered' as const, value: 0 as const } },
            },
          ],
          filters: [],
        },
      ],
    };
    const policy = decode({
      protocol: detect({ httpRoutes: [probe] }),
      authorizations: [authz({ networks: [{ net: ipv4(0x0a000000, 8), except: [] }] })],
    });
    const kubelet = { address: parseIp('192.0.2.1')!, isMeshTls: false, identity: null };
    const peer = { address: parseIp('10.1.1.1')!, isMeshTls: false, identity: null };
    const stranger = { address: parseIp('192.0.2.2')!, isMeshTls: false, identity: null };
    expect(policy.routes[0]!.ref).toEqual({ group: '', kind: 'default', name: 'probe' });
    expect([kubelet, peer, stranger].map((who) => authorize(policy.routes[0]!.authorizations, who) !== null)).toEqual([
      true,
      true,
      false,
    ]);
    expect([kubelet, peer].map((who) => authorize(policy.authorizations, who) !== null)).toEqual([false, true]);
    expect(authorize(allAuthorizations(policy), kubelet)).not.toBeNull();
    expect(policy.routes[0]!.rules[0]!.matches).toEqual([
      { path: { kind: 'exact', path: '/healthz' }, headers: [], query: [], method: 'GET' },
    ]);
  });

  test('rate limits come with them', () => {
    const httpLocalRateLimit = {
      metadata: { kind: { $case: 'default' as const, value: 'limit' } },
      total: { requestsPerSecond: 1 },
      identity: undefined,
      overrides: [],
    };
    const policy = decode({ protocol: detect({ httpLocalRateLimit }) });
    expect([policy.rateLimits?.ref.name, policy.rateLimits?.take('a', 0), policy.rateLimits?.take('b', 0)]).toEqual([
      'limit',
      null,
      'total',
    ]);
  });
});

describe('what cannot be understood makes the policy invalid', () => {
  const route = (rule: object) => ({
    protocol: detect({
      httpRoutes: [
        { metadata: undefined, hosts: [], authorizations: [], rules: [{ matches: [], filters: [], ...rule }] },
      ],
    }),
  });

  test.each<[string, Partial<Server>, RegExp]>([
    ['no protocol', { protocol: undefined }, /protocol/],
    ['no authentication', { authorizations: [authz({ authentication: undefined })] }, /authentication/],
    [
      'prefix too long',
      { authorizations: [authz({ networks: [{ net: ipv4(0, 33), except: [] }] })] },
      /prefix_len.*33/,
    ],
    ['no address', { authorizations: [authz({ networks: [{ net: undefined, except: [] }] })] }, /network/],
    [
      'broken pattern',
      route({
        matches: [{ path: { kind: { $case: 'regex', value: '(' } }, headers: [], queryParams: [], method: undefined }],
      }),
      /regular expression "\("/,
    ],
    ['unknown filter', route({ filters: [{ kind: undefined }] }), /filters/],
    [
      'header with a line end',
      route({
        filters: [
          {
            kind: {
              $case: 'requestHeaderModifier',
              value: { add: { headers: [{ name: 'x', value: Buffer.from('a\r\nb: c') }] }, set: undefined, remove: [] },
            },
          },
        ],
      }),
      /header "x"/,
    ],
  ])('%s', (_name, part, reason) => {
    const policy = decode({ authorizations: [authz()], ...part });
    expect(policy.protocol.kind === 'invalid' ? policy.protocol.reason : policy.protocol.kind).toMatch(reason);
    expect([policy.authorizations, policy.routes]).toEqual([[], []]);
  });

  test("bytes that are no message are the caller's to refuse", () => {
    expect(() => decodeServerPolicy(Buffer.from([0xff, 0xff]))).toThrow();
  });
});
