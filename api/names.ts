// Names that users, Kubernetes and peers see: ports, annotations, labels, identities. One place, so that nothing is
// spelled twice. Linkerd's keys are honoured as they are; our own live under heddle.dev.

/** Listeners of the data plane, as Linkerd numbers them. */
export const Port = {
  outbound: 4140,
  inbound: 4143,
  tap: 4190,
  workerAdmin: 4191,
  /** The agent's metrics and health on the node. */
  agentAdmin: 4194,
  identity: 8080,
  destination: 8086,
  policy: 8090,
  injector: 8443,
} as const;

export const Annotation = {
  inject: 'linkerd.io/inject',
  skipInboundPorts: 'config.linkerd.io/skip-inbound-ports',
  skipOutboundPorts: 'config.linkerd.io/skip-outbound-ports',
  skipSubnets: 'config.linkerd.io/skip-subnets',
  opaquePorts: 'config.linkerd.io/opaque-ports',
  podInboundPorts: 'config.linkerd.io/pod-inbound-ports',
  defaultInboundPolicy: 'config.linkerd.io/default-inbound-policy',
  requireIdentityInboundPorts: 'config.linkerd.io/proxy-require-identity-inbound-ports',
  inboundConnectTimeout: 'config.linkerd.io/proxy-inbound-connect-timeout',
  outboundConnectTimeout: 'config.linkerd.io/proxy-outbound-connect-timeout',
  proxyLogLevel: 'config.linkerd.io/proxy-log-level',
  shutdownGracePeriod: 'config.linkerd.io/shutdown-grace-period',
  /** Stamp of a meshed pod: the namespace of its control plane. */
  meshed: 'heddle.dev/meshed',
  /** Destinations that connections leave for directly; `skip-subnets` is about sources, as in Linkerd. */
  skipOutboundSubnets: 'config.heddle.dev/skip-outbound-subnets',
  /** `closed` (default) or `open`: what happens to traffic when agent and worker are both gone. */
  onAgentDown: 'config.heddle.dev/on-agent-down',
  /** `node` or `sidecar`. */
  mode: 'config.heddle.dev/mode',
} as const;

export const Label = {
  controlPlaneNamespace: 'linkerd.io/control-plane-ns',
} as const;

export const DEFAULT_CLUSTER_DOMAIN = 'cluster.local';
export const DEFAULT_TRUST_DOMAIN = 'cluster.local';
export const DEFAULT_CONTROL_PLANE_NAMESPACE = 'heddle';
export const DEFAULT_OPAQUE_PORTS = '25,587,3306,4444,5432,6379,9300,11211';
export const DEFAULT_CLUSTER_NETWORKS = [
  '10.0.0.0/8',
  '100.64.0.0/10',
  '172.16.0.0/12',
  '192.168.0.0/16',
  'fd00::/8',
] as const;
/** Audience of ServiceAccount tokens that the identity service accepts. */
export const IDENTITY_AUDIENCE = 'identity.l5d.io';
/** gRPC metadata of a relayed Certify: the UID of the pod the certificate is for. */
export const POD_UID_METADATA = 'heddle-pod-uid';
/** TLS application protocol of connections that start with a transport header. */
export const TRANSPORT_ALPN = 'transport.l5d.io/v1';

/** A ServiceAccount and the mesh it belongs to. */
export interface IdentityParts {
  serviceAccount: string;
  namespace: string;
  controlPlaneNamespace: string;
  trustDomain: string;
}

/** The DNS form of a workload's identity, as Linkerd spells it. */
export function identityName(parts: IdentityParts): string {
  const { serviceAccount, namespace, controlPlaneNamespace, trustDomain } = parts;
  return `${serviceAccount}.${namespace}.serviceaccount.identity.${controlPlaneNamespace}.${trustDomain}`;
}

/** The SPIFFE form (SPIFFE-ID section 2): `spiffe://<trust-domain>/ns/<ns>/sa/<sa>`. */
export function spiffeId(parts: Pick<IdentityParts, 'serviceAccount' | 'namespace' | 'trustDomain'>): string {
  return `spiffe://${parts.trustDomain}/ns/${parts.namespace}/sa/${parts.serviceAccount}`;
}
