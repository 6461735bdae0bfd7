// The policy of one inbound port in the worker's own words: which protocol to expect, who may connect, which routes
// exist and what each does to a request. Made by translate.ts from the policy stream, or by defaults.ts.

import type { Authorization, ResourceRef } from './authorization.ts';
import type { HttpFilter } from './filters.ts';
import type { RateLimits } from './rate-limit.ts';
import type { HostMatch, RequestMatch } from './route-match.ts';

export interface InboundRule {
  readonly matches: readonly RequestMatch[];
  readonly filters: readonly HttpFilter[];
}

export interface InboundRoute {
  readonly ref: ResourceRef;
  readonly hosts: readonly HostMatch[];
  /** The route's own and the server's: the first that permits decides. */
  readonly authorizations: readonly Authorization[];
  readonly rules: readonly InboundRule[];
}

export type InboundProtocol =
  /** Read the first bytes; opaque when they say nothing for `timeoutMs`. */
  | { readonly kind: 'detect'; readonly timeoutMs: number }
  | { readonly kind: 'http1' }
  | { readonly kind: 'http2' }
  | { readonly kind: 'grpc' }
  /** Bytes, and TLS is the application's own. */
  | { readonly kind: 'opaque' }
  /** TLS of the application, passed on as it is. */
  | { readonly kind: 'tls' }
  /** The policy cannot be understood: nothing may pass. */
  | { readonly kind: 'invalid'; readonly reason: string };

export interface ServerPolicy {
  readonly ref: ResourceRef;
  readonly protocol: InboundProtocol;
  /** Of the server: they decide for connections without HTTP. */
  readonly authorizations: readonly Authorization[];
  /** Empty for opaque and TLS. */
  readonly routes: readonly InboundRoute[];
  readonly rateLimits: RateLimits | null;
}

/** Everything that could permit something on this port; a client that none of it permits may not stay connected. */
export function allAuthorizations(policy: ServerPolicy): readonly Authorization[] {
  return policy.routes.length === 0
    ? policy.authorizations
    : [...policy.authorizations, ...policy.routes.flatMap((route) => route.authorizations)];
}

/** The route of a port whose policy names none: everything, under the server's authorizations. */
export function defaultRoute(authorizations: readonly Authorization[]): InboundRoute {
  return {
    ref: { group: '', kind: 'default', name: 'default' },
    hosts: [],
    authorizations,
    rules: [{ matches: [], filters: [] }],
  };
}
