// The resources of policy.linkerd.io that decide who may talk to a workload, reduced to the fields Heddle reads.

import type { KubeObject, LabelSelector } from './resources.ts';

export const SERVER_PROTOCOLS = ['unknown', 'HTTP/1', 'HTTP/2', 'gRPC', 'opaque', 'TLS'] as const;
export type ServerProtocol = (typeof SERVER_PROTOCOLS)[number];

/** v1beta3; earlier versions lack `accessPolicy`, whose default (`deny`) is what they mean. */
export interface Server extends KubeObject {
  kind: 'Server';
  spec: {
    podSelector?: LabelSelector;
    externalWorkloadSelector?: LabelSelector;
    /** A number, or the name of container ports. */
    port: number | string;
    proxyProtocol?: ServerProtocol;
    accessPolicy?: string;
  };
}

export interface NetworkMatch {
  cidr: string;
  except?: string[];
}

export interface ServerAuthorization extends KubeObject {
  kind: 'ServerAuthorization';
  spec: {
    server: { name?: string; selector?: LabelSelector };
    client: {
      networks?: NetworkMatch[];
      unauthenticated?: boolean;
      meshTLS?: {
        unauthenticatedTLS?: boolean;
        identities?: string[];
        serviceAccounts?: { name: string; namespace?: string }[];
      };
    };
  };
}

export interface ObjectReference {
  group?: string;
  kind: string;
  name: string;
  namespace?: string;
}

export interface AuthorizationPolicy extends KubeObject {
  kind: 'AuthorizationPolicy';
  spec: {
    targetRef: ObjectReference;
    /** All must hold; an empty list allows everyone. */
    requiredAuthenticationRefs: ObjectReference[];
  };
}

export interface MeshTLSAuthentication extends KubeObject {
  kind: 'MeshTLSAuthentication';
  spec: {
    identities?: string[];
    /** ServiceAccounts, or Namespaces; without a name all of the namespace. */
    identityRefs?: { group?: string; kind: string; name?: string; namespace?: string }[];
  };
}

export interface NetworkAuthentication extends KubeObject {
  kind: 'NetworkAuthentication';
  spec: { networks: NetworkMatch[] };
}
