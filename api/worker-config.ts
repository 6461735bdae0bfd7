// What the agent tells a worker. Everything that a sidecar would read from LINKERD2_PROXY_* variables; field names say
// the unit. JSON, so every field is a string, number, boolean, null, array or object of these.

export type DefaultInboundPolicy =
  | 'all-unauthenticated'
  | 'all-authenticated'
  | 'cluster-unauthenticated'
  | 'cluster-authenticated'
  | 'deny'
  | 'audit';

export const DEFAULT_INBOUND_POLICIES: readonly DefaultInboundPolicy[] = [
  'all-unauthenticated',
  'all-authenticated',
  'cluster-unauthenticated',
  'cluster-authenticated',
  'deny',
  'audit',
];

export interface WorkerConfig {
  pod: {
    uid: string;
    namespace: string;
    name: string;
    serviceAccount: string;
    node: string;
    /** The pod's own addresses; inbound connections to others are refused, outbound ones to these stay local. */
    ips: string[];
  };
  /** Labels put on every series, exactly as Linkerd's relabelling would: namespace, pod, deployment, … */
  metricLabels: Record<string, string>;
  /** Null: a workload without identity. It is served at once, in plain text only. */
  identity: {
    /** `<sa>.<ns>.serviceaccount.identity.<control-plane ns>.<trust domain>`. */
    name: string;
    /** PEM certificates; peers must chain to one of them. Changes take effect for new handshakes. */
    trustAnchorsPem: string;
  } | null;
  inbound: {
    /** The port of mesh connections with a transport header. */
    proxyPort: number;
    /** Watched from the start; other ports on first use. */
    ports: number[];
    opaquePorts: [from: number, to: number][];
    requireIdentityPorts: [from: number, to: number][];
    /** Applies until the policy service answers, and when it cannot be reached. */
    defaultPolicy: DefaultInboundPolicy;
    clusterNetworks: string[];
    detectTimeoutMs: number;
    connectTimeoutMs: number;
    /** A policy that no connection used for this long is dropped. */
    discoveryIdleMs: number;
  };
  outbound: {
    proxyPort: number;
    detectTimeoutMs: number;
    connectTimeoutMs: number;
    discoveryIdleMs: number;
    /** Sent verbatim as GetDestination.context_token. */
    destinationContext: string;
    /** Sent verbatim as TrafficSpec.source_workload and PortSpec.workload. */
    policyWorkload: string;
    /** Service names end with this, without a leading dot. */
    clusterDomain: string;
  };
  drainGraceMs: number;
  logLevel: 'error' | 'warn' | 'info' | 'debug';
}
