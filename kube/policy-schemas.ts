// Schemas of policy.linkerd.io, with the rules that Linkerd's admission webhook enforces.

import { DEFAULT_INBOUND_POLICIES } from '#api/worker-config.ts';
import { contains, parseCidr } from '#lib/ip-address.ts';
import { fault } from './core-schemas.ts';
import { SERVER_PROTOCOLS } from './policy-resources.ts';
import {
  cidr,
  flag,
  label,
  labelSelector,
  list,
  named,
  object,
  oneOf,
  portOrName,
  subdomain,
  text,
} from './schema-parts.ts';

const networks = list(object({ cidr, except: list(cidr).optional() })).superRefine((entries, context) => {
  for (const [index, entry] of entries.entries()) {
    for (const [position, exception] of (entry.except ?? []).entries()) {
      const outer = parseCidr(entry.cidr);
      const inner = parseCidr(exception);
      if (!outer || !inner || (inner.bits > outer.bits && contains(outer, inner.bytes))) continue;
      fault(context, [index, 'except', position], `expected a part of ${entry.cidr}`);
    }
  }
});

const reference = object({
  group: text.optional(),
  kind: text,
  name: subdomain,
  namespace: label.optional(),
});

export const server = object({
  ...named,
  spec: object({
    podSelector: labelSelector.optional(),
    externalWorkloadSelector: labelSelector.optional(),
    port: portOrName,
    proxyProtocol: oneOf(...SERVER_PROTOCOLS).optional(),
    accessPolicy: oneOf(...DEFAULT_INBOUND_POLICIES).optional(),
  }).superRefine((spec, context) => {
    if ((spec.podSelector === undefined) !== (spec.externalWorkloadSelector === undefined)) return;
    fault(context, ['podSelector'], 'expected either podSelector or externalWorkloadSelector');
  }),
});

export const serverAuthorization = object({
  ...named,
  spec: object({
    server: object({ name: subdomain.optional(), selector: labelSelector.optional() }).superRefine((spec, context) => {
      if ((spec.name === undefined) === (spec.selector === undefined)) {
        fault(context, ['name'], 'expected either a name or a selector');
      }
    }),
    client: object({
      networks: networks.optional(),
      unauthenticated: flag.optional(),
      meshTLS: object({
        unauthenticatedTLS: flag.optional(),
        identities: list(text).optional(),
        serviceAccounts: list(object({ name: subdomain, namespace: label.optional() })).optional(),
      }).optional(),
    }).superRefine(({ unauthenticated, meshTLS }, context) => {
      if (unauthenticated && meshTLS) fault(context, ['meshTLS'], 'expected none together with unauthenticated: true');
      const isNamed = (meshTLS?.identities?.length ?? 0) + (meshTLS?.serviceAccounts?.length ?? 0) > 0;
      if (meshTLS?.unauthenticatedTLS && isNamed) {
        fault(context, ['meshTLS', 'unauthenticatedTLS'], 'expected no identities or serviceAccounts beside it');
      }
      if (!unauthenticated && !meshTLS?.unauthenticatedTLS && !isNamed) {
        fault(context, [], 'expected unauthenticated or meshTLS with clients');
      }
    }),
  }),
});

export const authorizationPolicy = object({
  ...named,
  spec: object({
    targetRef: reference,
    requiredAuthenticationRefs: list(reference).superRefine((references, context) => {
      const countOf = (...kinds: string[]) => references.filter(({ kind }) => kinds.includes(kind)).length;
      for (const [index, { kind }] of references.entries()) {
        if (['MeshTLSAuthentication', 'NetworkAuthentication', 'ServiceAccount'].includes(kind)) continue;
        fault(context, [index, 'kind'], 'expected MeshTLSAuthentication, NetworkAuthentication or ServiceAccount');
      }
      if (countOf('MeshTLSAuthentication', 'ServiceAccount') > 1) {
        fault(context, [], 'expected at most one MeshTLSAuthentication or ServiceAccount');
      }
      if (countOf('NetworkAuthentication') > 1) fault(context, [], 'expected at most one NetworkAuthentication');
    }),
  }),
});

export const meshTlsAuthentication = object({
  ...named,
  spec: object({
    identities: list(text).optional(),
    identityRefs: list(
      object({
        group: text.optional(),
        kind: oneOf('ServiceAccount', 'Namespace'),
        name: text.optional(),
        namespace: label.optional(),
      }),
    ).optional(),
  }).superRefine(({ identities, identityRefs }, context) => {
    if ((identities === undefined) === (identityRefs === undefined)) {
      fault(context, ['identities'], 'expected either identities or identityRefs');
    }
    for (const [index, { kind, namespace }] of (identityRefs ?? []).entries()) {
      if (kind === 'Namespace' && namespace !== undefined) {
        fault(context, ['identityRefs', index, 'namespace'], 'expected none for a Namespace');
      }
    }
  }),
});

export const networkAuthentication = object({
  ...named,
  spec: object({
    networks: networks.refine((entries) => entries.length > 0, 'expected at least one network'),
  }),
});
