// What the control plane tells proxies, in its own words: neither Kubernetes resources nor protobuf messages. Values are
// immutable; equal content means nothing has to be sent.

/** Where a piece of configuration comes from. */
export type Reference =
  | { kind: 'default'; name: string }
  | {
      kind: 'resource';
      group: string;
      resource: string;
      namespace: string;
      name: string;
      port?: number;
      section?: string;
    };

/** A question that has no answer; `code` decides whether a client asks again. */
export interface Refusal {
  kind: 'refused';
  code: 'not-found' | 'invalid-argument' | 'failed-precondition';
  message: string;
}

/** One address of a destination and how to talk to it. */
export interface Endpoint {
  readonly ip: string;
  readonly port: number;
  readonly weight: number;
  /** Labels of metrics, without those that depend on the client. */
  readonly labels: Readonly<Record<string, string>>;
  /** What the peer's certificate must say; null for clear text. */
  readonly identity: string | null;
  readonly isMeshed: boolean;
  readonly protocol: 'unknown' | 'h2' | 'opaque';
  /** Where connections with a transport header are taken; null for none. */
  readonly transportPort: number | null;
  /** Name to send in place of the client's, for gateways. */
  readonly authorityOverride: string | null;
  readonly zone: string | null;
  readonly nodeName: string | null;
  /** Zones this endpoint is meant for; null without hints. */
  readonly forZones: readonly string[] | null;
  /** The pod or other object behind it: addresses of both families share it. */
  readonly targetKey: string | null;
}

/** The endpoints of a Service's port as one client sees them. */
export interface EndpointSnapshot {
  readonly service: { readonly namespace: string; readonly name: string };
  /** In order of address. */
  readonly endpoints: readonly Endpoint[];
  /** Zone of the client's node; null when not known. */
  readonly clientZone: string | null;
}

export interface ServicePortRef {
  namespace: string;
  name: string;
  port: number;
}

/** How to talk to a destination that a client named. */
export type ProfileSnapshot =
  | { kind: 'service'; service: ServicePortRef; isOpaque: boolean }
  | { kind: 'endpoint'; endpoint: Endpoint; namespace: string | null; clientZone: string | null; isOpaque: boolean }
  /** A Service that has no such port. */
  | { kind: 'empty' }
  | Refusal;

/** How clients treat traffic to a target. */
export type OutboundSnapshot =
  | { kind: 'service'; service: ServicePortRef; protocol: OutboundProtocol; traffic: TrafficSettings }
  /** A Service that has no such port: refuse connections. */
  | { kind: 'undefined-port'; service: ServicePortRef }
  /** Outside the cluster: go where the application wanted. */
  | { kind: 'egress'; ip: string; port: number }
  | Refusal;

export type OutboundProtocol = 'detect' | 'opaque' | 'http1' | 'http2';

/** Settings of a Service's default route. */
export interface TrafficSettings {
  timeouts: { requestMs: number | null; responseMs: number | null; idleMs: number | null };
  httpRetry: { statuses: [from: number, to: number][]; limit: number; timeoutMs: number | null } | null;
  failureAccrual: FailureAccrual | null;
}

export interface FailureAccrual {
  maxFailures: number;
  minPenaltyMs: number;
  maxPenaltyMs: number;
  jitterRatio: number;
  honorsRetryAfter: boolean;
}

/** Who may talk to a port of a workload, and how its traffic is treated there. */
export type InboundSnapshot =
  | {
      kind: 'server';
      reference: Reference;
      protocol: InboundProtocol;
      authorizations: readonly Authorization[];
      routes: readonly InboundRoute[];
    }
  | Refusal;

export type InboundProtocol = 'detect' | 'http1' | 'http2' | 'grpc' | 'opaque' | 'tls';

export interface InboundRoute {
  reference: Reference;
  /** Beside those of the server. */
  authorizations: readonly Authorization[];
  matches: readonly RouteMatch[];
}

export interface RouteMatch {
  path: { kind: 'prefix' | 'exact'; value: string };
  method: 'GET' | null;
}

export interface NetworkMatch {
  cidr: string;
  except: readonly string[];
}

export interface Authorization {
  reference: Reference;
  /** Never empty: a proxy ignores an authorization without networks. */
  networks: readonly NetworkMatch[];
  clients: AuthorizedClients;
}

export type AuthorizedClients =
  | { kind: 'unauthenticated' }
  /** Mesh TLS, with or without a client certificate. */
  | { kind: 'tls' }
  | {
      kind: 'identities';
      /** Exact names. */
      names: readonly string[];
      /** Labels of name suffixes; an empty list matches every identity. */
      suffixes: readonly (readonly string[])[];
    };
