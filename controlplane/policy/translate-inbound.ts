// Inbound policies as messages. Pure.

import type { HttpRouteMatch } from '#api/gen/http_route.ts';
import { HttpMethod_Registered } from '#api/gen/http_types.ts';
import type { Authn, Authz, GrpcRoute, HttpRoute, ProxyProtocol, Server } from '#api/gen/inbound.ts';
import type {
  Authorization,
  AuthorizedClients,
  InboundRoute,
  InboundSnapshot,
  Reference,
  RouteMatch,
} from '../core/model.ts';
import { toDuration, toIpNetwork, toMetadata } from '../wire.ts';

const DETECT_TIMEOUT = toDuration(10_000);

export function toServer(snapshot: Extract<InboundSnapshot, { kind: 'server' }>): Server {
  return {
    protocol: protocolOf(snapshot),
    serverIps: [],
    authorizations: snapshot.authorizations.map(toAuthz),
    labels: labelsOf(snapshot.reference),
  };
}

function protocolOf({ protocol, routes }: Extract<InboundSnapshot, { kind: 'server' }>): ProxyProtocol {
  switch (protocol) {
    case 'opaque':
    case 'tls':
      return { kind: { $case: protocol, value: {} } };
    case 'detect': {
      const httpRoutes = routes.map(toHttpRoute);
      const value = { timeout: DETECT_TIMEOUT, httpRoutes, httpLocalRateLimit: undefined };
      return { kind: { $case: 'detect', value } };
    }
    case 'http1':
    case 'http2':
      return { kind: { $case: protocol, value: { routes: routes.map(toHttpRoute), localRateLimit: undefined } } };
    case 'grpc':
      return { kind: { $case: 'grpc', value: { routes: routes.map(toGrpcRoute) } } };
  }
}

function toHttpRoute({ reference, authorizations, matches }: InboundRoute): HttpRoute {
  return {
    metadata: toMetadata(reference),
    hosts: [],
    authorizations: authorizations.map(toAuthz),
    rules: [{ matches: matches.map(toHttpMatch), filters: [] }],
  };
}

/** The implicit route of a gRPC server matches every method. */
function toGrpcRoute({ reference, authorizations }: InboundRoute): GrpcRoute {
  return {
    metadata: toMetadata(reference),
    hosts: [],
    authorizations: authorizations.map(toAuthz),
    rules: [{ matches: [{ rpc: undefined, headers: [] }], filters: [] }],
  };
}

function toHttpMatch({ path, method }: RouteMatch): HttpRouteMatch {
  return {
    path: { kind: { $case: path.kind, value: path.value } },
    headers: [],
    queryParams: [],
    method: method === null ? undefined : { type: { $case: 'registered', value: HttpMethod_Registered[method] } },
  };
}

function toAuthz({ reference, networks, clients }: Authorization): Authz {
  return {
    networks: networks.map(({ cidr, except }) => ({ net: toIpNetwork(cidr), except: except.map(toIpNetwork) })),
    authentication: toAuthn(clients),
    labels: labelsOf(reference),
    metadata: toMetadata(reference),
  };
}

function toAuthn(clients: AuthorizedClients): Authn {
  switch (clients.kind) {
    case 'unauthenticated':
      return { permit: { $case: 'unauthenticated', value: {} } };
    case 'tls':
      return { permit: { $case: 'meshTLS', value: { clients: { $case: 'unauthenticated', value: {} } } } };
    case 'identities': {
      const identities = clients.names.map((name) => ({ name }));
      const suffixes = clients.suffixes.map((parts) => ({ parts: [...parts] }));
      const value = { clients: { $case: 'identities', value: { identities, suffixes } } } as const;
      return { permit: { $case: 'meshTLS', value } };
    }
  }
}

/** The labels of metrics; defaults have an empty group. */
function labelsOf(reference: Reference): Record<string, string> {
  if (reference.kind === 'default') return { group: '', kind: 'default', name: reference.name };
  return { group: reference.group, kind: reference.resource, name: reference.name };
}
