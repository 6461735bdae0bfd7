// May this client speak here? Pure: authorizations come from the policy stream or from the defaults, clients from the
// transport. An authorization permits when one of its networks holds the client's address and its authentication is
// satisfied; the first that permits is the one that metrics name.

import { contains, type IpNetwork, isIpv4, V4_MAPPED_BITS } from '#lib/ip-address.ts';

/** What a label set points at: a Kubernetes resource, or an implicit default (`group` empty, `kind` "default"). */
export interface ResourceRef {
  readonly group: string;
  readonly kind: string;
  readonly name: string;
}

export interface NetworkRule {
  readonly network: IpNetwork;
  readonly except: readonly IpNetwork[];
}

export type Authentication =
  /** Anyone, with or without TLS. */
  | { readonly kind: 'unauthenticated' }
  /** Mesh TLS, with or without a client certificate. */
  | { readonly kind: 'mesh' }
  /** Mesh TLS with one of these identities. */
  | { readonly kind: 'identities'; readonly exact: ReadonlySet<string>; readonly suffixes: readonly string[] };

export interface Authorization {
  readonly ref: ResourceRef;
  readonly networks: readonly NetworkRule[];
  readonly authentication: Authentication;
}

/** What the transport knows about the peer. */
export interface Client {
  /** 16 bytes, see lib/ip-address.ts. */
  readonly address: Uint8Array;
  /** The connection is TLS that this worker terminated for its own identity. */
  readonly isMeshTls: boolean;
  /** The verified identity of the client's certificate; null without one. */
  readonly identity: string | null;
}

/** Matches every identity of the DNS form, as well as SPIFFE ids. */
export const ANY_IDENTITY_SUFFIX = '';

const SPIFFE_SCHEME = 'spiffe://';

/** The first authorization that permits the client, or null: then the answer is no. */
export function authorize(authorizations: readonly Authorization[], client: Client): Authorization | null {
  for (const authorization of authorizations) {
    if (isAuthenticated(authorization.authentication, client) && isInNetworks(authorization.networks, client.address)) {
      return authorization;
    }
  }
  return null;
}

function isInNetworks(networks: readonly NetworkRule[], address: Uint8Array): boolean {
  for (const { network, except } of networks) {
    if (!holds(network, address)) continue;
    if (!except.some((excluded) => holds(excluded, address))) return true;
  }
  return false;
}

/** `::/0` and other short IPv6 networks hold the v4-mapped range as bytes, but they do not speak of IPv4. */
function holds(network: IpNetwork, address: Uint8Array): boolean {
  return contains(network, address) && (network.bits >= V4_MAPPED_BITS || !isIpv4(address));
}

function isAuthenticated(authentication: Authentication, client: Client): boolean {
  switch (authentication.kind) {
    case 'unauthenticated':
      return true;
    case 'mesh':
      return client.isMeshTls;
    case 'identities':
      return client.isMeshTls && client.identity !== null && hasIdentity(authentication, client.identity);
  }
}

/** Suffixes name parts of a DNS name, so a SPIFFE id matches only as a whole, or where any identity will do. */
function hasIdentity(authentication: Extract<Authentication, { kind: 'identities' }>, identity: string): boolean {
  if (authentication.exact.has(identity)) return true;
  const isSpiffe = identity.startsWith(SPIFFE_SCHEME);
  for (const suffix of authentication.suffixes) {
    if (suffix === ANY_IDENTITY_SUFFIX) return true;
    // A suffix begins with its dot, so that `.ns.example` is never found inside `evilns.example`.
    if (!isSpiffe && identity.length > suffix.length && identity.endsWith(suffix)) return true;
  }
  return false;
}
