// The series of inbound connections that share target, server policy and client. Labels are rendered when the first
// such connection comes; requests and decisions find their counters by the policy objects themselves.

import type { Metrics } from '../observe/metrics.ts';
import type { HttpRecorder, Labels, RouteRecorder, TransportRecorder } from '../observe/recorder.ts';
import type { Authorization, ResourceRef } from '../policy/authorization.ts';
import type { RateLimitScope } from '../policy/rate-limit.ts';
import type { InboundRoute, ServerPolicy } from '../policy/server-policy.ts';
import { refLabels, serverLabels, type Target, type TlsStatus, targetLabels, tlsLabels } from './labels.ts';

/** Kinds of clients of one policy that are kept; beyond it all are made anew, which costs time, not memory. */
const CLIENT_KINDS_MAX = 512;

/** What a permitted request reports to. */
export interface RequestMetrics {
  readonly http: HttpRecorder;
  readonly route: RouteRecorder;
  readonly allowed: { add(amount: number): void };
}

type TcpDecision = 'allow' | 'deny' | 'terminate';

/** Of one target, policy and kind of client. */
export class ClientMetrics {
  readonly #metrics: Metrics;
  readonly #labels: Labels;
  readonly #source: TransportRecorder;
  readonly #protocol: 'http' | 'grpc';
  readonly #requests = new Map<InboundRoute, Map<Authorization, RequestMetrics>>();

  constructor(metrics: Metrics, target: Target, policy: ServerPolicy, tls: TlsStatus) {
    this.#metrics = metrics;
    this.#labels = { ...targetLabels(target), ...tlsLabels(tls), ...serverLabels(policy.ref, target.port) };
    this.#source = metrics.transport('inbound', 'src', this.#labels);
    this.#protocol = policy.protocol.kind === 'grpc' ? 'grpc' : 'http';
  }

  /** Connections of clients: `tcp_*` with `peer="src"`. */
  get source(): TransportRecorder {
    return this.#source;
  }

  /** Of requests on `route` that `authorization` permits. */
  request(route: InboundRoute, authorization: Authorization): RequestMetrics {
    let byAuthorization = this.#requests.get(route);
    if (!byAuthorization) {
      byAuthorization = new Map();
      this.#requests.set(route, byAuthorization);
    }
    let found = byAuthorization.get(authorization);
    if (!found) {
      const labels = {
        ...this.#labels,
        ...refLabels('route', route.ref),
        ...refLabels('authz', authorization.ref),
      };
      found = {
        http: this.#metrics.http('inbound', labels),
        route: this.#metrics.route('inbound', this.#protocol, labels),
        allowed: this.#metrics.counter('inbound_http_authz_allow_total', labels),
      };
      byAuthorization.set(authorization, found);
    }
    return found;
  }

  denied(route: InboundRoute): void {
    const labels = { ...this.#labels, ...refLabels('route', route.ref) };
    this.#metrics.counter('inbound_http_authz_deny_total', labels).add(1);
  }

  routeNotFound(): void {
    this.#metrics.counter('inbound_http_route_not_found_total', this.#labels).add(1);
  }

  rateLimited(ref: ResourceRef, scope: RateLimitScope): void {
    const labels = { ...this.#labels, ...refLabels('ratelimit', ref), ratelimit_scope: scope };
    this.#metrics.counter('inbound_http_local_ratelimit_total', labels).add(1);
  }

  /** A connection without HTTP; `authorization` is null where none permitted it. */
  connection(decision: TcpDecision, authorization: Authorization | null): void {
    const labels = authorization ? { ...this.#labels, ...refLabels('authz', authorization.ref) } : this.#labels;
    this.#metrics.counter(`inbound_tcp_authz_${decision}_total`, labels).add(1);
  }

  httpError(label: string): void {
    this.#metrics.httpError('inbound', label, this.#labels);
  }

  tcpError(label: string): void {
    this.#metrics.tcpError('inbound', label, this.#labels);
  }

  detected(result: string, durationMs: number): void {
    this.#metrics.detected('inbound', result, durationMs, this.#labels);
  }
}

/** Finds the series of a connection, made once for each kind of client of a policy. */
export class InboundMetrics {
  readonly #metrics: Metrics;
  readonly #byPolicy = new WeakMap<ServerPolicy, Map<string, ClientMetrics>>();

  constructor(metrics: Metrics) {
    this.#metrics = metrics;
  }

  of(target: Target, policy: ServerPolicy, tls: TlsStatus): ClientMetrics {
    let byClient = this.#byPolicy.get(policy);
    if (!byClient) {
      byClient = new Map();
      this.#byPolicy.set(policy, byClient);
    }
    const key = `${target.address} ${target.port} ${tlsKey(tls)}`;
    let found = byClient.get(key);
    if (!found) {
      if (byClient.size >= CLIENT_KINDS_MAX) byClient.clear();
      found = new ClientMetrics(this.#metrics, target, policy, tls);
      byClient.set(key, found);
    }
    return found;
  }

  /** `tcp_*` with `peer="dst"`: connections to the application. */
  application(target: Target): TransportRecorder {
    const labels = { ...targetLabels(target), ...tlsLabels({ kind: 'none', reason: 'loopback' }) };
    return this.#metrics.transport('inbound', 'dst', labels);
  }

  /** A connection that was refused before any policy was asked. */
  refused(reason: string): void {
    this.#metrics.counter('heddle_worker_connections_refused_total', { reason }).add(1);
  }

  transportHeader(session: string, port: number, clientId: string): void {
    this.#metrics
      .counter('inbound_tcp_transport_header_connections_total', {
        session_protocol: session,
        target_port: String(port),
        target_name: '',
        client_id: clientId,
      })
      .add(1);
  }

  /** A failure before the connection's policy is known. */
  tcpError(label: string, target: Target): void {
    this.#metrics.tcpError('inbound', label, targetLabels(target));
  }
}

function tlsKey(tls: TlsStatus): string {
  switch (tls.kind) {
    case 'mesh':
      return `m${tls.clientIdentity ?? ''}`;
    case 'opaque':
      return `o${tls.serverName ?? ''}`;
    case 'none':
      return `n${tls.reason}`;
    case 'disabled':
      return 'd';
  }
}
