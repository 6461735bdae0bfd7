// What discovery's two answers say together about a target: the profile's word, the policy's, or a plain forward. Pure.
// Unknown targets go where the application sent them; but "unknown" must be an answer. While nobody answers nothing is
// forwarded: what might be a meshed peer would otherwise get its bytes in clear.

import type { DestinationProfile } from '#api/gen/destination.ts';
import type { OutboundPolicy as OutboundPolicyMessage } from '#api/gen/outbound.ts';
import type { LinkStatus } from '#api/worker-link.ts';
import { HeddleError } from '#lib/errors.ts';
import { formatAddress } from '../address.ts';
import { ABSENT } from '../control/watch.ts';
import { plainEndpoint, readEndpoint } from './endpoint-info.ts';
import { defaultRef, forwardPolicy, type OutboundPolicy, type TcpRoute } from './policy.ts';
import { isRouting, type Profile, translateProfile } from './profile.ts';
import { translatePolicy } from './translate.ts';

/** What a watch knows: see Watch. */
export interface Answer<T> {
  readonly value: T | undefined;
  readonly status: LinkStatus | null;
}

export interface Original {
  readonly address: string;
  readonly port: number;
}

export interface ResolveOptions {
  /** Tells the pod's own addresses. */
  isLocal(address: string): boolean;
  /** How long to wait for the first bytes where no policy says. */
  detectTimeoutMs(): number;
}

export type Resolution =
  /** Routes of the ServiceProfile; `policy` still says how opaque connections go. */
  | { readonly kind: 'profile'; readonly profile: Profile; readonly policy: OutboundPolicy; readonly authority: string }
  | {
      readonly kind: 'policy';
      readonly policy: OutboundPolicy;
      readonly authority: string;
      readonly isOpaque: boolean;
    };

function isAbsent<T>({ value, status }: Answer<T>): boolean {
  return value === undefined && status !== null && ABSENT.has(status.code);
}

/** Null: wait, one of the answers is still to come. */
export function resolve(
  original: Original,
  profile: Answer<DestinationProfile>,
  policy: Answer<OutboundPolicyMessage>,
  options: ResolveOptions,
): Resolution | null {
  if (profile.value === undefined && !isAbsent(profile)) return null;
  if (policy.value === undefined && !isAbsent(policy)) return null;
  return resolveNow(original, profile, policy, options);
}

/**
 * The same when waiting is over: a missing profile counts as none where the policy knows the target. Throws
 * `discovery-unavailable` where nothing can be said.
 */
export function resolveLate(
  original: Original,
  profile: Answer<DestinationProfile>,
  policy: Answer<OutboundPolicyMessage>,
  options: ResolveOptions,
): Resolution {
  const isKnown =
    policy.value !== undefined || (isAbsent(policy) && (profile.value !== undefined || isAbsent(profile)));
  if (isKnown) return resolveNow(original, profile, policy, options);
  const status = policy.status ?? profile.status;
  const reason = status ? `status ${status.code}, ${status.message}` : 'no answer';
  const target = formatAddress(original.address, original.port);
  throw new HeddleError(
    'discovery-unavailable',
    `discover "${target}": expected an answer of the control plane, got ${reason}`,
  );
}

function resolveNow(
  original: Original,
  { value: profileMessage }: Answer<DestinationProfile>,
  { value: policyMessage }: Answer<OutboundPolicyMessage>,
  options: ResolveOptions,
): Resolution {
  const profile = profileMessage ? translateProfile(profileMessage) : null;
  const authority = profile?.name ? `${profile.name}:${original.port}` : '';
  const policy = policyMessage
    ? translatePolicy(policyMessage, options.isLocal)
    : synthesize(original, profile, options);
  if (profile && profile.name !== '' && isRouting(profile)) return { kind: 'profile', profile, policy, authority };
  return { kind: 'policy', policy, authority, isOpaque: profile?.isOpaque ?? false };
}

/** The policy service does not know the target: the profile may know the one endpoint, such as a pod. */
function synthesize(original: Original, profile: Profile | null, options: ResolveOptions): OutboundPolicy {
  const { isLocal, detectTimeoutMs } = options;
  const endpoint = profile?.endpoint ? readEndpoint(profile.endpoint, isLocal) : null;
  if (endpoint) return forwardPolicy(defaultRef('endpoint'), endpoint, detectTimeoutMs());
  if (profile?.endpoint?.tlsIdentity) {
    const reason = 'read endpoint of the profile: expected an identity that can be checked';
    return { parent: defaultRef('endpoint'), protocol: { kind: 'invalid', reason } };
  }
  const reason = isLocal(original.address) ? 'loopback' : 'not_provided_by_service_discovery';
  return forwardPolicy(
    defaultRef('forward'),
    plainEndpoint(original.address, original.port, reason),
    detectTimeoutMs(),
  );
}

/** How a whole connection goes, whatever the policy's protocol: opaque routes, else where requests would go. */
export function opaqueRoutes({ parent, protocol }: OutboundPolicy): readonly TcpRoute[] {
  switch (protocol.kind) {
    case 'opaque':
    case 'tls':
      return protocol.routes;
    case 'detect':
      return protocol.opaque;
    case 'http1':
    case 'http2':
    case 'grpc': {
      // Without a request there is nothing to match: the last route is the default one.
      const rule = protocol.http.routes.at(-1)?.rules.at(-1);
      return rule ? [{ ref: parent, snis: [], distribution: rule.distribution, refusal: null }] : [];
    }
    case 'invalid':
      return [];
  }
}
