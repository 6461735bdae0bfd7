// Who may talk to a port: the six default policies, and what ServerAuthorizations and AuthorizationPolicies add to a
// Server (policy.linkerd.io). A reference that leads nowhere makes its policy authorize nobody.

import { identityName } from '#api/names.ts';
import type { DefaultInboundPolicy } from '#api/worker-config.ts';
import type { AuthorizationPolicy, ObjectReference, Server, ServerAuthorization } from '#kube/policy-resources.ts';
import { matchesSelector } from '#kube/selector.ts';
import type { MeshConfig } from '../core/config.ts';
import type { Authorization, AuthorizedClients, NetworkMatch, Reference } from '../core/model.ts';
import type { Cluster } from './cluster.ts';
import { tag } from './tags.ts';

const ALL_NETWORKS: readonly NetworkMatch[] = ['0.0.0.0/0', '::/0'].map((cidr) => ({ cidr, except: [] }));
const ANY_IDENTITY: AuthorizedClients = { kind: 'identities', names: [], suffixes: [[]] };
const POLICY_GROUP = 'policy.linkerd.io';

/** What a default policy allows; `deny` nothing. `audit` allows all and says so by its name. */
export function defaultAuthorizations(policy: DefaultInboundPolicy, config: MeshConfig): Authorization[] {
  if (policy === 'deny') return [];
  const networks = policy.startsWith('cluster-') ? networksOf(config.clusterNetworks) : ALL_NETWORKS;
  const clients: AuthorizedClients = policy.endsWith('-authenticated') ? ANY_IDENTITY : { kind: 'unauthenticated' };
  return [{ reference: { kind: 'default', name: policy }, networks, clients }];
}

/** The policy of a port that asks for identities: what allows everyone asks for a certificate. */
export function requireIdentity(policy: DefaultInboundPolicy): DefaultInboundPolicy {
  if (policy === 'all-unauthenticated' || policy === 'audit') return 'all-authenticated';
  return policy === 'cluster-unauthenticated' ? 'cluster-authenticated' : policy;
}

/** Everyone, from these networks. */
export function openTo(cidrs: readonly string[], reference: Reference): Authorization {
  return { reference, networks: networksOf(cidrs), clients: { kind: 'unauthenticated' } };
}

/** What applies to a Server, by name; its access policy comes last. */
export function serverAuthorizations(
  cluster: Cluster,
  config: MeshConfig,
  server: Server,
  depend: (tag: string) => void,
): Authorization[] {
  const namespace = server.metadata.namespace ?? 'default';
  depend(tag.policy(namespace));
  depend(tag.authentications);
  const inNamespace = <T extends { metadata: { namespace?: string; name: string } }>(all: Iterable<T>) =>
    [...all]
      .filter(({ metadata }) => metadata.namespace === namespace)
      .sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
  return [
    ...inNamespace(cluster.serverAuthorizations.values())
      .filter(({ spec }) => authorizes(spec.server, server))
      .map((authorization) => ofServerAuthorization(authorization, config)),
    ...inNamespace(cluster.authorizationPolicies.values())
      .filter(({ spec }) => targets(spec.targetRef, server))
      .flatMap((policy) => ofAuthorizationPolicy(policy, cluster, config) ?? []),
    ...defaultAuthorizations((server.spec.accessPolicy as DefaultInboundPolicy | undefined) ?? 'deny', config),
  ];
}

function authorizes({ name, selector }: ServerAuthorization['spec']['server'], server: Server): boolean {
  if (name !== undefined) return name === server.metadata.name;
  return selector !== undefined && matchesSelector(selector, server.metadata.labels);
}

function targets({ group, kind, name }: ObjectReference, server: Server): boolean {
  if (kind === 'Server') return group === POLICY_GROUP && name === server.metadata.name;
  return kind === 'Namespace' && name === server.metadata.namespace;
}

function ofServerAuthorization({ metadata, spec }: ServerAuthorization, config: MeshConfig): Authorization {
  const namespace = metadata.namespace ?? 'default';
  const { networks = [], unauthenticated, meshTLS } = spec.client;
  const names = (meshTLS?.serviceAccounts ?? []).map((account) => accountIdentity(account, namespace, config));
  return {
    reference: resource('serverauthorization', namespace, metadata.name),
    networks: networks.length > 0 ? networks.map(networkOf) : networksOf(config.clusterNetworks),
    clients: unauthenticated
      ? { kind: 'unauthenticated' }
      : meshTLS?.unauthenticatedTLS
        ? { kind: 'tls' }
        : clientsOf([...(meshTLS?.identities ?? []), ...names]),
  };
}

/** Null when an authentication it asks for is not there: then it authorizes nobody. */
function ofAuthorizationPolicy(
  policy: AuthorizationPolicy,
  cluster: Cluster,
  config: MeshConfig,
): Authorization | null {
  const namespace = policy.metadata.namespace ?? 'default';
  let networks: readonly NetworkMatch[] = ALL_NETWORKS;
  let clients: AuthorizedClients = { kind: 'unauthenticated' };
  for (const reference of policy.spec.requiredAuthenticationRefs) {
    const key = `${reference.namespace ?? namespace}/${reference.name}`;
    if (reference.kind === 'ServiceAccount') {
      clients = clientsOf([accountIdentity(reference, namespace, config)]);
    } else if (reference.kind === 'NetworkAuthentication') {
      const found = cluster.networkAuthentications.get(key);
      if (!found) return null;
      networks = found.spec.networks.map(networkOf);
    } else {
      const found = cluster.meshTlsAuthentications.get(key);
      if (!found) return null;
      const owner = found.metadata.namespace ?? 'default';
      const referred = (found.spec.identityRefs ?? []).map((target) => referredIdentity(target, owner, config));
      clients = clientsOf([...(found.spec.identities ?? []), ...referred]);
    }
  }
  return { reference: resource('authorizationpolicy', namespace, policy.metadata.name), networks, clients };
}

interface IdentityReference {
  kind: string;
  name?: string;
  namespace?: string;
}

/** A ServiceAccount, or all of a namespace. */
function referredIdentity({ kind, name, namespace }: IdentityReference, owner: string, config: MeshConfig): string {
  if (kind === 'ServiceAccount' && name) {
    return accountIdentity({ name, ...(namespace === undefined ? {} : { namespace }) }, owner, config);
  }
  const { controlPlaneNamespace, trustDomain } = config;
  const of = kind === 'Namespace' ? (name ?? owner) : (namespace ?? owner);
  return `*.${of}.serviceaccount.identity.${controlPlaneNamespace}.${trustDomain}`;
}

function accountIdentity(
  { name, namespace }: { name: string; namespace?: string },
  owner: string,
  config: MeshConfig,
): string {
  const { controlPlaneNamespace, trustDomain } = config;
  return identityName({ serviceAccount: name, namespace: namespace ?? owner, controlPlaneNamespace, trustDomain });
}

/** `*` is every identity, `*.a.b` those that end so, everything else is exact. */
function clientsOf(identities: readonly string[]): AuthorizedClients {
  const isSuffix = (identity: string) => identity === '*' || identity.startsWith('*.');
  return {
    kind: 'identities',
    names: identities.filter((identity) => !isSuffix(identity)),
    suffixes: identities.filter(isSuffix).map((identity) => identity.split('.').slice(1)),
  };
}

function networkOf({ cidr, except = [] }: { cidr: string; except?: string[] }): NetworkMatch {
  return { cidr, except };
}

function networksOf(cidrs: readonly string[]): NetworkMatch[] {
  return cidrs.map((cidr) => ({ cidr, except: [] }));
}

function resource(kind: string, namespace: string, name: string): Reference {
  return { kind: 'resource', group: POLICY_GROUP, resource: kind, namespace, name };
}
