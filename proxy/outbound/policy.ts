// What a client's policy says, in the worker's own words: protocol, routes, what each route does with a request, and
// where it goes. Made by translate.ts from the messages of the policy API and by profile.ts from ServiceProfiles.

import type { PeakEwmaOptions } from '../balance/peak-ewma.ts';
import type { HeaderField, HttpFilter } from '../policy/filters.ts';
import type { HostMatch, RequestMatch } from '../policy/route-match.ts';
import type { BreakerOptions } from './breaker.ts';
import type { EndpointInfo } from './endpoint-info.ts';

/** Which configuration something comes from: a resource, or an implicit default (`group` empty, kind "default"). */
export interface MetaRef {
  readonly group: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly port: string;
  readonly section: string;
}

export interface LoadOptions extends PeakEwmaOptions {
  /** Failures count as if they had taken `penaltyMs`, or what the server asks for up to `maxRetryAfterMs`. */
  readonly penalty: { readonly penaltyMs: number; readonly maxRetryAfterMs: number } | null;
}

export type Backend =
  | { readonly kind: 'balancer'; readonly ref: MetaRef; readonly path: string; readonly load: LoadOptions }
  | { readonly kind: 'forward'; readonly ref: MetaRef; readonly endpoint: EndpointInfo }
  /** Requests that are sent here fail, because nothing can be reached or it must not be. */
  | { readonly kind: 'unusable'; readonly ref: MetaRef; readonly reason: string };

export interface ResponseHeaderFilter {
  readonly add: readonly HeaderField[];
  readonly set: readonly HeaderField[];
  readonly remove: readonly string[];
}

export interface Filters {
  readonly request: readonly HttpFilter[];
  readonly response: readonly ResponseHeaderFilter[];
}

export interface RouteBackend {
  readonly backend: Backend;
  readonly weight: number;
  readonly filters: Filters;
}

export interface Distribution {
  /** `first`: the first available one; `random`: by weight among the available ones. */
  readonly kind: 'first' | 'random';
  readonly backends: readonly RouteBackend[];
}

export interface Timeouts {
  /** From the request's head to the response's end. Null: none. */
  readonly requestMs: number | null;
  /** From the request's end (or the response's head) to the response's end. */
  readonly responseMs: number | null;
  /** Without a byte in either direction. */
  readonly idleMs: number | null;
}

export interface RetryPolicy {
  readonly maxRetries: number;
  readonly maxRequestBytes: number;
  /** HTTP status ranges, both ends included. */
  readonly statuses: readonly (readonly [from: number, to: number])[];
  readonly grpcCodes: ReadonlySet<number>;
  /** To the response's head, for each attempt but the last. */
  readonly perTryMs: number | null;
  readonly backoff: { readonly minMs: number; readonly maxMs: number; readonly jitter: number } | null;
}

export interface HttpRule {
  readonly matches: readonly RequestMatch[];
  readonly filters: Filters;
  readonly distribution: Distribution;
  readonly timeouts: Timeouts;
  readonly retry: RetryPolicy | null;
  /** `l5d-retry-*` and `l5d-*timeout` headers of the application override the rule. */
  readonly allowsOverrides: boolean;
}

export interface HttpRoute {
  readonly ref: MetaRef;
  readonly hosts: readonly HostMatch[];
  readonly rules: readonly HttpRule[];
}

export interface HttpRoutes {
  /** The family of metric names and of failure codes. */
  readonly protocol: 'http' | 'grpc';
  readonly routes: readonly HttpRoute[];
  readonly breaker: BreakerOptions | null;
}

/** Connections as a whole. */
export interface TcpRoute {
  readonly ref: MetaRef;
  /** TLS routes only; empty: any name. */
  readonly snis: readonly HostMatch[];
  readonly distribution: Distribution;
  /** Set: connections are refused. */
  readonly refusal: 'forbidden' | 'invalid' | null;
}

export type OutboundProtocol =
  | {
      readonly kind: 'detect';
      readonly timeoutMs: number;
      readonly http1: HttpRoutes;
      readonly http2: HttpRoutes;
      readonly opaque: readonly TcpRoute[];
    }
  | { readonly kind: 'http1' | 'http2' | 'grpc'; readonly http: HttpRoutes }
  | { readonly kind: 'opaque' | 'tls'; readonly routes: readonly TcpRoute[] }
  /** The policy cannot be understood: nothing may pass. */
  | { readonly kind: 'invalid'; readonly reason: string };

export interface OutboundPolicy {
  readonly parent: MetaRef;
  readonly protocol: OutboundProtocol;
}

export const NO_FILTERS: Filters = { request: [], response: [] };
export const NO_TIMEOUTS: Timeouts = { requestMs: null, responseMs: null, idleMs: null };
export const DEFAULT_LOAD: LoadOptions = { defaultRttMs: 30, decayMs: 10_000, penalty: null };
export const DEFAULT_DETECT_TIMEOUT_MS = 10_000;

/** Reference to an implicit object. */
export function defaultRef(name: string): MetaRef {
  return { group: '', kind: 'default', namespace: '', name, port: '', section: '' };
}

/** The rule that takes every request to one distribution. */
export function catchAllRoute(ref: MetaRef, distribution: Distribution): HttpRoute {
  const rule: HttpRule = {
    matches: [],
    filters: NO_FILTERS,
    distribution,
    timeouts: NO_TIMEOUTS,
    retry: null,
    allowsOverrides: false,
  };
  return { ref, hosts: [], rules: [rule] };
}

/** The policy of a target that only one endpoint is known for: detect the protocol, send everything there. */
export function forwardPolicy(parent: MetaRef, endpoint: EndpointInfo, timeoutMs: number): OutboundPolicy {
  const backend: Backend = { kind: 'forward', ref: parent, endpoint };
  const distribution: Distribution = { kind: 'first', backends: [{ backend, weight: 1, filters: NO_FILTERS }] };
  const opaque: TcpRoute = { ref: parent, snis: [], distribution, refusal: null };
  if (endpoint.hint === 'opaque') return { parent, protocol: { kind: 'opaque', routes: [opaque] } };
  const http: HttpRoutes = { protocol: 'http', routes: [catchAllRoute(parent, distribution)], breaker: null };
  return {
    parent,
    protocol: {
      kind: 'detect',
      timeoutMs,
      http1: http,
      http2: http,
      opaque: [opaque],
    },
  };
}
