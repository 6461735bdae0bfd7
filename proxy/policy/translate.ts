// From the policy stream's messages to the worker's own words. Pure. A part that cannot be understood makes the whole
// policy invalid: better no traffic on that port, and an error that says why, than traffic that was not authorized.

import {
  type Authn,
  type Authz,
  type GrpcRoute,
  type GrpcRoute_Filter,
  type HttpLocalRateLimit,
  type HttpRoute,
  type HttpRoute_Filter,
  Server,
} from '#api/gen/inbound.ts';
import type { Metadata } from '#api/gen/meta.ts';
import type { IPAddress, IPNetwork } from '#api/gen/net.ts';
import { describeError } from '#lib/errors.ts';
import { type IpNetwork, V4_MAPPED_BITS } from '#lib/ip-address.ts';
import type { Authentication, Authorization, NetworkRule, ResourceRef } from './authorization.ts';
import { RateLimits } from './rate-limit.ts';
import { defaultRoute, type InboundProtocol, type InboundRoute, type ServerPolicy } from './server-policy.ts';
import { invalid, translateFilter, translateGrpcMatch, translateHost, translateHttpMatch } from './translate-route.ts';

const DETECT_TIMEOUT_DEFAULT_MS = 10_000;

/** Reads one message of the policy stream. Throws only where the bytes are no such message. */
export function decodeServerPolicy(bytes: Uint8Array): ServerPolicy {
  const server = Server.decode(bytes);
  try {
    return translateServer(server);
  } catch (error) {
    return {
      ref: serverRef(server),
      protocol: { kind: 'invalid', reason: describeError(error) },
      authorizations: [],
      routes: [],
      rateLimits: null,
    };
  }
}

function translateServer(server: Server): ServerPolicy {
  const authorizations = translateAuthorizations(server.authorizations);
  const base = { ref: serverRef(server), authorizations, routes: [], rateLimits: null };
  const kind = server.protocol?.kind;
  if (!kind) throw invalid('protocol', 'none', 'a kind of protocol');
  switch (kind.$case) {
    case 'opaque':
    case 'tls':
      return { ...base, protocol: { kind: kind.$case } };
    case 'detect': {
      const { timeout, httpRoutes, httpLocalRateLimit } = kind.value;
      const timeoutMs = timeout ? Number(timeout.seconds) * 1000 + timeout.nanos / 1e6 : DETECT_TIMEOUT_DEFAULT_MS;
      const protocol: InboundProtocol = { kind: 'detect', timeoutMs };
      const routes = translateHttpRoutes(httpRoutes, authorizations);
      return { ...base, protocol, routes, rateLimits: translateRateLimit(httpLocalRateLimit) };
    }
    case 'http1':
    case 'http2': {
      const routes = translateHttpRoutes(kind.value.routes, authorizations);
      return {
        ...base,
        protocol: { kind: kind.$case },
        routes,
        rateLimits: translateRateLimit(kind.value.localRateLimit),
      };
    }
    case 'grpc':
      return { ...base, protocol: { kind: 'grpc' }, routes: translateGrpcRoutes(kind.value.routes, authorizations) };
  }
}

function serverRef(server: Server): ResourceRef {
  const { group = '', kind = '', name = '' } = server.labels;
  return { group, kind, name };
}

function translateAuthorizations(messages: readonly Authz[]): Authorization[] {
  // Without a network an authorization permits nobody, and the API says to ignore it.
  return messages.filter((message) => message.networks.length > 0).map(translateAuthorization);
}

function translateAuthorization(message: Authz): Authorization {
  return {
    ref: translateRef(message.metadata, message.labels),
    networks: message.networks.map(
      ({ net, except }): NetworkRule => ({ network: translateNetwork(net), except: except.map(translateNetwork) }),
    ),
    authentication: translateAuthentication(message.authentication),
  };
}

function translateAuthentication(message: Authn | undefined): Authentication {
  const permit = message?.permit;
  if (!permit) throw invalid('authentication', 'none', 'unauthenticated or meshTLS');
  if (permit.$case === 'unauthenticated') return { kind: 'unauthenticated' };
  const clients = permit.value.clients;
  if (!clients) throw invalid('meshTLS', 'none', 'unauthenticated or identities');
  if (clients.$case === 'unauthenticated') return { kind: 'mesh' };
  return {
    kind: 'identities',
    exact: new Set(clients.value.identities.map((identity) => identity.name)),
    suffixes: clients.value.suffixes.map(({ parts }) => parts.map((part) => `.${part}`).join('')),
  };
}

/** A network in the 16-byte form of lib/ip-address.ts, host bits cleared. */
function translateNetwork(message: IPNetwork | undefined): IpNetwork {
  const bytes = translateAddress(message?.ip);
  const isV4 = message?.ip?.ip?.$case === 'ipv4';
  const bits = (message?.prefixLen ?? 0) + (isV4 ? V4_MAPPED_BITS : 0);
  if (bits > 128) throw invalid('prefix_len', String(message?.prefixLen), `at most ${isV4 ? 32 : 128}`);
  for (let index = 0; index < bytes.length; index++) {
    const kept = Math.max(0, Math.min(8, bits - 8 * index));
    bytes[index] = bytes[index]! & (0xff << (8 - kept)) & 0xff;
  }
  return { bytes, bits };
}

function translateAddress(message: IPAddress | undefined): Buffer {
  const bytes = Buffer.alloc(16);
  switch (message?.ip?.$case) {
    case 'ipv4':
      bytes.writeUInt16BE(0xffff, 10);
      bytes.writeUInt32BE(message.ip.value, 12);
      return bytes;
    case 'ipv6':
      bytes.writeBigUInt64BE(message.ip.value.first, 0);
      bytes.writeBigUInt64BE(message.ip.value.last, 8);
      return bytes;
    default:
      throw invalid('network', 'none', 'an IPv4 or IPv6 address');
  }
}

function translateHttpRoutes(messages: readonly HttpRoute[], server: readonly Authorization[]): InboundRoute[] {
  if (messages.length === 0) return [defaultRoute(server)];
  return messages.map((message) => ({
    ref: translateRef(message.metadata, {}),
    hosts: message.hosts.map(translateHost),
    authorizations: [...translateAuthorizations(message.authorizations), ...server],
    rules: message.rules.map((rule) => ({
      matches: rule.matches.map(translateHttpMatch),
      filters: rule.filters.map((filter: HttpRoute_Filter) => translateFilter(filter.kind)),
    })),
  }));
}

function translateGrpcRoutes(messages: readonly GrpcRoute[], server: readonly Authorization[]): InboundRoute[] {
  if (messages.length === 0) return [defaultRoute(server)];
  return messages.map((message) => ({
    ref: translateRef(message.metadata, {}),
    hosts: message.hosts.map(translateHost),
    authorizations: [...translateAuthorizations(message.authorizations), ...server],
    rules: message.rules.map((rule) => ({
      matches: rule.matches.map(translateGrpcMatch),
      filters: rule.filters.map((filter: GrpcRoute_Filter) =>
        filter.kind?.$case === 'failureInjector'
          ? translateFilter({ $case: 'grpcFailureInjector', value: filter.kind.value })
          : translateFilter(filter.kind),
      ),
    })),
  }));
}

function translateRateLimit(message: HttpLocalRateLimit | undefined): RateLimits | null {
  if (!message) return null;
  return new RateLimits(translateRef(message.metadata, {}), {
    totalPerSecond: message.total?.requestsPerSecond ?? 0,
    identityPerSecond: message.identity?.requestsPerSecond ?? 0,
    overrides: message.overrides.map(({ limit, clients }) => ({
      perSecond: limit?.requestsPerSecond ?? 0,
      identities: new Set((clients?.identities ?? []).map((identity) => identity.name)),
    })),
  });
}

/** Older control planes send labels only, newer ones metadata. */
function translateRef(metadata: Metadata | undefined, labels: Record<string, string>): ResourceRef {
  switch (metadata?.kind?.$case) {
    case 'default':
      return { group: '', kind: 'default', name: metadata.kind.value };
    case 'resource': {
      const { group, kind, name } = metadata.kind.value;
      return { group, kind, name };
    }
    default: {
      const { group = '', kind = '', name = '' } = labels;
      return { group, kind, name };
    }
  }
}
