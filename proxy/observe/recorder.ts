// What the layers report, as narrow as they can: a handle is resolved from labels once per endpoint, route or
// connection target, and the calls on the hot path carry numbers and constant strings only. Implemented by metrics.ts;
// names and labels of the series follow Linkerd's proxy.

import type { Duplex } from '#lib/duplex.ts';

/** Label names and values of a series, without the pod's own labels. */
export type Labels = Readonly<Record<string, string>>;

export type Direction = 'inbound' | 'outbound';
export type Classification = 'success' | 'failure';

/** No gRPC status: not a gRPC response, or it ended without one. */
export const NO_GRPC_STATUS = -1;

/** HTTP of one endpoint: `request_total`, `response_total`, `response_latency_ms`. */
export interface HttpRecorder {
  request(): void;
  /** Milliseconds from the request to the first body bytes of the response, or to its end if it has none. */
  latency(status: number, latencyMs: number): void;
  /**
   * The response ended. `status` is 0 where no head came; `grpcStatus` {@link NO_GRPC_STATUS} where there is none;
   * `error` is a constant such as `timeout`, empty where the response ended in order.
   */
  response(status: number, classification: Classification, grpcStatus: number, error: string): void;
}

/** `route_*` and `route_actual_*` of ServiceProfile routes: per request and per attempt. */
export interface ProfileRouteRecorder {
  /** What the client saw. */
  readonly effective: HttpRecorder;
  /** Every attempt. */
  readonly actual: HttpRecorder;
  retryable(isBudgetSpent: boolean): void;
}

/** `outbound_http_route_request_*` and `_retry_*`, `inbound_http_*`: one policy route. */
export interface RouteRecorder {
  /** The exchange ended: `status` HTTP (0: none), `error` one of Linkerd's upper-case names or empty. */
  response(status: number, grpcStatus: number, error: string, durationMs: number): void;
  retry(): void;
  retrySuccess(): void;
  retryLimitExceeded(): void;
  retryOverflow(): void;
}

/** `outbound_http_route_backend_*`: one backend of a policy route. */
export interface BackendRecorder {
  request(): void;
  response(status: number, grpcStatus: number, error: string, durationMs: number): void;
}

export type BalancerUpdate = 'Reset' | 'Add' | 'Remove';

/** `outbound_{http,tcp}_balancer_*`: one balancer. */
export interface BalancerRecorder {
  endpoints(ready: number, pending: number): void;
  update(op: BalancerUpdate): void;
  /** Requests that wait now. */
  queueLength(length: number): void;
  /** A request left the queue after `waitMs`. */
  dequeued(waitMs: number): void;
  gate(isOpen: boolean): void;
}

/** `tcp_*` of one kind of connection. Bytes are read from the stream when metrics are scraped, not counted per call. */
export interface TransportRecorder {
  /**
   * A connection opened. The result must be called once when it is gone, with the errno (`ECONNRESET`) or an empty
   * string; the stream's counters must still be readable then.
   */
  opened(stream: Pick<Duplex, 'bytesRead' | 'bytesWritten'>): (errno: string) => void;
  /** A connection could not be established: counted as opened and closed with `errno`. */
  failed(errno: string): void;
}

/** Hands out handles. The same labels give the same series; handles stay valid for as long as they are held. */
export interface Recorder {
  http(direction: Direction, labels: Labels): HttpRecorder;
  profileRoute(direction: Direction, labels: Labels): ProfileRouteRecorder;
  /** `protocol` decides the family of names: `outbound_http_route`, `outbound_grpc_route`. */
  route(direction: Direction, protocol: 'http' | 'grpc', labels: Labels): RouteRecorder;
  backend(protocol: 'http' | 'grpc', labels: Labels): BackendRecorder;
  balancer(protocol: 'http' | 'tcp' | 'tls', labels: Labels): BalancerRecorder;
  /** `src`: the side of the application that dialled, `dst`: the side we dialled. */
  transport(direction: Direction, peer: 'src' | 'dst', labels: Labels): TransportRecorder;
  /** `{inbound,outbound}_http_errors_total`: `error` is a constant such as `failfast`. */
  httpError(direction: Direction, error: string, labels: Labels): void;
  /** `{inbound,outbound}_tcp_errors_total`. */
  tcpError(direction: Direction, error: string, labels: Labels): void;
  /** `*_tcp_detect_http_results_total` and `_duration_seconds`. */
  detected(direction: Direction, result: string, durationMs: number, labels: Labels): void;
}
