// Every metric family of a worker: names, kinds and buckets as Linkerd's proxy has them (milliseconds without a unit in
// the legacy latency families, seconds elsewhere), and a few of our own under `heddle_worker_`.

import type { FamilyDefinition, FamilyKind } from './registry.ts';

/** Legacy latency buckets in milliseconds. */
export const LATENCY_MS = [
  1, 2, 3, 4, 5, 10, 20, 30, 40, 50, 100, 200, 300, 400, 500, 1_000, 2_000, 3_000, 4_000, 5_000, 10_000, 20_000, 30_000,
  40_000, 50_000,
] as const;
const ROUTE_SECONDS = [0.05, 0.5, 1, 10] as const;
const BACKEND_SECONDS = [0.025, 0.05, 0.1, 0.25, 0.5, 1, 10] as const;
const QUEUE_SECONDS = [0.0005, 0.005, 0.05, 0.5, 1, 3] as const;
const DETECT_SECONDS = [0.001, 0.01, 0.1, 1, 10] as const;

const of = (kind: FamilyKind, name: string, help: string, buckets?: readonly number[]): FamilyDefinition =>
  buckets ? { name, kind, help, buckets } : { name, kind, help };
const counter = (name: string, help: string) => of('counter', name, help);
const gauge = (name: string, help: string) => of('gauge', name, help);
const histogram = (name: string, help: string, buckets: readonly number[]) => of('histogram', name, help, buckets);

const HTTP: FamilyDefinition[] = [
  counter('request_total', 'Total count of HTTP requests'),
  counter('response_total', 'Total count of HTTP responses'),
  histogram('response_latency_ms', 'Milliseconds from a request to the first frame of its response', LATENCY_MS),
  counter('route_request_total', 'Total count of HTTP requests of a profile route'),
  counter('route_response_total', 'Total count of HTTP responses of a profile route'),
  histogram('route_response_latency_ms', 'Milliseconds from a request to its response, by profile route', LATENCY_MS),
  counter('route_actual_request_total', 'Total count of attempts of a profile route'),
  counter('route_actual_response_total', 'Total count of responses to attempts of a profile route'),
  counter('route_retryable_total', 'Total count of retryable failures of a profile route'),
  counter('inbound_http_errors_total', 'Total count of inbound HTTP requests that failed in the proxy'),
  counter('outbound_http_errors_total', 'Total count of outbound HTTP requests that failed in the proxy'),
];

const TCP: FamilyDefinition[] = [
  counter('tcp_open_total', 'Total count of opened connections'),
  gauge('tcp_open_connections', 'Connections that are open now'),
  counter('tcp_read_bytes_total', 'Total bytes read from the peer'),
  counter('tcp_write_bytes_total', 'Total bytes written to the peer'),
  counter('tcp_close_total', 'Total count of closed connections'),
  counter('inbound_tcp_errors_total', 'Total count of inbound connections that failed in the proxy'),
  counter('outbound_tcp_errors_total', 'Total count of outbound connections that failed in the proxy'),
];

const POLICY: FamilyDefinition[] = [
  counter('inbound_http_authz_allow_total', 'Total count of inbound HTTP requests that a policy permitted'),
  counter('inbound_http_authz_deny_total', 'Total count of inbound HTTP requests that no policy permitted'),
  counter('inbound_http_route_not_found_total', 'Total count of inbound HTTP requests without a route'),
  counter('inbound_http_local_ratelimit_total', 'Total count of inbound HTTP requests above a rate limit'),
  counter('inbound_tcp_authz_allow_total', 'Total count of inbound connections that a policy permitted'),
  counter('inbound_tcp_authz_deny_total', 'Total count of inbound connections that no policy permitted'),
  counter('inbound_tcp_authz_terminate_total', 'Total count of connections cut because the policy changed'),
  counter('inbound_tcp_transport_header_connections_total', 'Total count of connections with a transport header'),
];

const DETECT: FamilyDefinition[] = (['inbound', 'outbound'] as const).flatMap((side) => [
  counter(`${side}_tcp_detect_http_results_total`, 'Total count of protocol detections by result'),
  histogram(`${side}_tcp_detect_http_duration_seconds`, 'Seconds until the protocol was known', DETECT_SECONDS),
]);

const INBOUND_ROUTES: FamilyDefinition[] = (['http', 'grpc'] as const).flatMap((protocol) => [
  counter(`inbound_${protocol}_requests_total`, 'Total count of inbound requests by route'),
  counter(`inbound_${protocol}_statuses_total`, 'Total count of inbound responses by route and status'),
  histogram(`inbound_${protocol}_request_duration_seconds`, 'Seconds from request to end of response', ROUTE_SECONDS),
]);

const OUTBOUND_ROUTES: FamilyDefinition[] = (['http', 'grpc'] as const).flatMap((protocol) => {
  const name = `outbound_${protocol}_route`;
  return [
    histogram(`${name}_request_duration_seconds`, 'Seconds from request to end of response, by route', ROUTE_SECONDS),
    counter(`${name}_request_statuses_total`, 'Total count of responses by route and status'),
    counter(`${name}_retry_requests_total`, 'Total count of retried requests'),
    counter(`${name}_retry_successes_total`, 'Total count of retries that succeeded'),
    counter(`${name}_retry_limit_exceeded_total`, 'Total count of requests that used up their retries'),
    counter(`${name}_retry_overflow_total`, 'Total count of requests too large to be retried'),
    counter(`${name}_backend_requests_total`, 'Total count of requests to a backend of a route'),
    histogram(`${name}_backend_response_duration_seconds`, 'Seconds until a backend has answered', BACKEND_SECONDS),
    counter(`${name}_backend_response_statuses_total`, 'Total count of responses of a backend by status'),
  ];
});

const BALANCERS: FamilyDefinition[] = (['http', 'tcp', 'tls'] as const).flatMap((protocol) => {
  const name = `outbound_${protocol}_balancer`;
  return [
    gauge(`${name}_endpoints`, 'Endpoints of a balancer by state'),
    counter(`${name}_p2c_updates_total`, 'Total count of changes to a balancer by kind'),
    gauge(`${name}_p2c_endpoints`, 'Endpoints that a balancer chooses from'),
    gauge(`${name}_queue_length`, 'Requests that wait for an endpoint now'),
    counter(`${name}_queue_requests_total`, 'Total count of requests that passed the queue of a balancer'),
    histogram(`${name}_queue_latency_seconds`, 'Seconds that requests waited for an endpoint', QUEUE_SECONDS),
    counter(`${name}_queue_gate_open_total`, 'Total count of times that a balancer became ready'),
    counter(`${name}_queue_gate_shut_total`, 'Total count of times that a balancer went to fail-fast'),
    gauge(`${name}_queue_gate_open_time`, 'Unix time when the balancer last became ready'),
    gauge(`${name}_queue_gate_shut_time`, 'Unix time when the balancer last went to fail-fast'),
  ];
});

const PROCESS: FamilyDefinition[] = [
  gauge('control_identity_cert_expiration_timestamp_seconds', 'Unix time when the certificate of the pod expires'),
  gauge('control_identity_cert_refresh_timestamp_seconds', 'Unix time when the certificate was last renewed'),
  counter('control_identity_cert_refreshes_total', 'Total count of attempts to renew the certificate by result'),
  gauge('process_start_time_seconds', 'Unix time when the process started'),
  counter('process_cpu_seconds_total', 'Total user and system CPU time of the process in seconds'),
  gauge('process_resident_memory_bytes', 'Resident memory of the process in bytes'),
  gauge('process_virtual_memory_bytes', 'Virtual memory of the process in bytes'),
  gauge('process_open_fds', 'Open descriptors of the process'),
  gauge('process_max_fds', 'Descriptors that the process may open'),
  gauge('process_clock_time_seconds', 'Unix time of the clock of the process'),
  { ...gauge('proxy_build_info', 'Version of the proxy'), ownLabels: ['version'] },
];

const WORKER: FamilyDefinition[] = [
  gauge('heddle_worker_agent_disconnected_seconds', 'Seconds since the agent was last connected, 0 while it is'),
  gauge('heddle_worker_state', 'Whether the worker is in this state'),
  gauge('heddle_worker_watches', 'Watches on the control plane that a stream feeds'),
  gauge('heddle_worker_watch_stale_seconds', 'Seconds since the most neglected watch was last fed'),
  gauge('heddle_worker_series', 'Series in this exposition'),
  counter('heddle_worker_series_overflows_total', 'Total count of label sets that found no room'),
  counter('heddle_worker_link_errors_total', 'Total count of link connections closed for breaking the protocol'),
  counter('heddle_worker_connections_refused_total', 'Total count of connections refused before any policy by reason'),
];

/** All of them; the registry sorts. */
export const FAMILIES: readonly FamilyDefinition[] = [
  ...HTTP,
  ...TCP,
  ...POLICY,
  ...DETECT,
  ...INBOUND_ROUTES,
  ...OUTBOUND_ROUTES,
  ...BALANCERS,
  ...PROCESS,
  ...WORKER,
];
