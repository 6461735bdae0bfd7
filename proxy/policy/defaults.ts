// The six default inbound policies. They apply to a port until the policy service answers, and while it cannot be
// reached, so a worker never waits for the control plane to serve or to refuse.

import type { DefaultInboundPolicy } from '#api/worker-config.ts';
import { type IpNetwork, parseCidr } from '#lib/ip-address.ts';
import { ANY_IDENTITY_SUFFIX, type Authentication, type Authorization } from './authorization.ts';
import { defaultRoute, type ServerPolicy } from './server-policy.ts';

export interface DefaultPolicyOptions {
  policy: DefaultInboundPolicy;
  clusterNetworks: readonly IpNetwork[];
  /** The port must not be looked into: no detection and no TLS termination. */
  isOpaque: boolean;
  /** Clients of this port must have an identity, whatever the default says. */
  requiresIdentity: boolean;
  detectTimeoutMs: number;
}

const UNAUTHENTICATED: Authentication = { kind: 'unauthenticated' };
const AUTHENTICATED: Authentication = { kind: 'identities', exact: new Set(), suffixes: [ANY_IDENTITY_SUFFIX] };
const ALL_NETWORKS: readonly IpNetwork[] = [parseCidr('0.0.0.0/0')!, parseCidr('::/0')!];

/** `all-unauthenticated` and the like with the authentication that `requiresIdentity` asks for. */
const REQUIRING_IDENTITY: Record<DefaultInboundPolicy, DefaultInboundPolicy> = {
  'all-unauthenticated': 'all-authenticated',
  'all-authenticated': 'all-authenticated',
  'cluster-unauthenticated': 'cluster-authenticated',
  'cluster-authenticated': 'cluster-authenticated',
  audit: 'all-authenticated',
  deny: 'deny',
};

/** The policy of a port that nobody has described yet. Its labels name the default, as the control plane's would. */
export function defaultPolicy(options: DefaultPolicyOptions): ServerPolicy {
  const name = options.requiresIdentity ? REQUIRING_IDENTITY[options.policy] : options.policy;
  const authorizations = authorizationsOf(name, options.clusterNetworks);
  return {
    ref: { group: '', kind: 'default', name },
    protocol: options.isOpaque ? { kind: 'opaque' } : { kind: 'detect', timeoutMs: options.detectTimeoutMs },
    authorizations,
    routes: options.isOpaque ? [] : [defaultRoute(authorizations)],
    rateLimits: null,
  };
}

function authorizationsOf(name: DefaultInboundPolicy, clusterNetworks: readonly IpNetwork[]): Authorization[] {
  const make = (networks: readonly IpNetwork[], authentication: Authentication): Authorization[] => [
    {
      ref: { group: '', kind: 'default', name },
      networks: networks.map((network) => ({ network, except: [] })),
      authentication,
    },
  ];
  switch (name) {
    case 'all-unauthenticated':
    // Audit lets everybody in under a name of its own, by which its allowed connections can be told apart.
    case 'audit':
      return make(ALL_NETWORKS, UNAUTHENTICATED);
    case 'all-authenticated':
      return make(ALL_NETWORKS, AUTHENTICATED);
    case 'cluster-unauthenticated':
      return make(clusterNetworks, UNAUTHENTICATED);
    case 'cluster-authenticated':
      return make(clusterNetworks, AUTHENTICATED);
    case 'deny':
      return [];
  }
}
