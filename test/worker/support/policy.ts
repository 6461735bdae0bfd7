// Inbound policies as the control plane would send them.

import type { Authz, HttpRoute, Server } from '#api/gen/inbound.ts';
import { parseCidr } from '#lib/ip-address.ts';

type Network = Authz['networks'][number];

function network(cidr: string): NonNullable<Network['net']> {
  const { bytes, bits } = parseCidr(cidr)!;
  return { ip: { ip: { $case: 'ipv4', value: bytes.readUInt32BE(12) } }, prefixLen: bits - 96 };
}

const resource = (kind: string, name: string) => ({
  kind: {
    $case: 'resource' as const,
    value: { group: 'policy.linkerd.io', kind, name, namespace: 'shop', section: '', port: 0 },
  },
});

/** Permits clients of `cidr`: anyone, or mesh clients with one of `identities`. */
export function permit(cidr: string, identities?: string[], except: string[] = []): Authz {
  return {
    networks: [{ net: network(cidr), except: except.map(network) }],
    authentication: {
      permit: identities
        ? {
            $case: 'meshTLS',
            value: {
              clients: {
                $case: 'identities',
                value: { identities: identities.map((name) => ({ name })), suffixes: [] },
              },
            },
          }
        : { $case: 'unauthenticated', value: {} },
    },
    labels: {},
    metadata: resource('authorizationpolicy', 'permit'),
  };
}

/** A route for paths below `prefix`. */
export function route(prefix: string, part: Partial<HttpRoute> = {}): HttpRoute {
  return {
    metadata: resource('httproute', prefix.slice(1) || 'root'),
    hosts: [],
    authorizations: [],
    rules: [
      {
        matches: [
          { path: { kind: { $case: 'prefix', value: prefix } }, headers: [], queryParams: [], method: undefined },
        ],
        filters: [],
      },
    ],
    ...part,
  };
}

export interface ServerPart {
  authorizations?: Authz[];
  routes?: HttpRoute[];
  protocol?: 'detect' | 'opaque' | 'http1';
  requestsPerSecond?: number;
  detectTimeoutMs?: number;
}

export function server(part: ServerPart = {}): Server {
  const { authorizations = [], routes = [], protocol = 'detect', requestsPerSecond, detectTimeoutMs } = part;
  const limit = requestsPerSecond
    ? {
        metadata: resource('httplocalratelimitpolicy', 'limit'),
        total: { requestsPerSecond },
        identity: undefined,
        overrides: [],
      }
    : undefined;
  const timeout = detectTimeoutMs === undefined ? undefined : { seconds: 0n, nanos: detectTimeoutMs * 1_000_000 };
  const kinds = {
    detect: { $case: 'detect' as const, value: { timeout, httpRoutes: routes, httpLocalRateLimit: limit } },
    http1: { $case: 'http1' as const, value: { routes, localRateLimit: limit } },
    opaque: { $case: 'opaque' as const, value: {} },
  };
  return {
    protocol: { kind: kinds[protocol] },
    serverIps: [],
    authorizations,
    labels: { group: 'policy.linkerd.io', kind: 'server', name: 'web' },
  };
}
