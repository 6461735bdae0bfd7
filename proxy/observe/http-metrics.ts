// HTTP counters behind the recorder: one object for an endpoint or a route, which finds its series by small numbers.
// Nothing here builds a string after the first response of a kind.

import { joinLabels, renderLabels } from './exposition.ts';
import type { Classification, HttpRecorder, RouteRecorder } from './recorder.ts';
import { NO_GRPC_STATUS } from './recorder.ts';
import { OVERFLOW_LABELS, type Registry, type Series } from './registry.ts';

/** Kinds of response that one endpoint or route keeps apart; a server that invents statuses gets one series for the rest. */
export const RESPONSE_KINDS_MAX = 64;

const GRPC_STATUS_MAX = 16;
const GRPC_UNKNOWN = 2;

/** The series of one label set that differ in how the response ended, found without building a key. */
class ResponseSeries {
  readonly #make: (status: number, isFailure: boolean, grpcStatus: number, error: string) => Series;
  readonly #byError = new Map<string, Map<number, Series>>();
  #overflow: Series | null = null;
  readonly #makeOverflow: () => Series;
  #size = 0;

  constructor(
    make: (status: number, isFailure: boolean, grpcStatus: number, error: string) => Series,
    makeOverflow: () => Series,
  ) {
    this.#make = make;
    this.#makeOverflow = makeOverflow;
  }

  find(status: number, isFailure: boolean, grpcStatus: number, error: string): Series {
    const grpc = grpcStatus > GRPC_STATUS_MAX ? GRPC_UNKNOWN : grpcStatus;
    const key = (status * (GRPC_STATUS_MAX + 2) + grpc - NO_GRPC_STATUS) * 2 + (isFailure ? 1 : 0);
    let byKey = this.#byError.get(error);
    const known = byKey?.get(key);
    if (known) return known;
    if (this.#size >= RESPONSE_KINDS_MAX) {
      this.#overflow ??= this.#makeOverflow();
      return this.#overflow;
    }
    if (!byKey) {
      byKey = new Map();
      this.#byError.set(error, byKey);
    }
    const series = this.#make(status, isFailure, grpc, error);
    byKey.set(key, series);
    this.#size++;
    return series;
  }
}

export interface HttpFamilies {
  request: string;
  response: string;
  /** Null where the family does not exist, as for attempts. */
  latency: string | null;
}

/** `request_total`, `response_total`, `response_latency_ms`, or the three of profile routes. */
export function httpMetrics(registry: Registry, families: HttpFamilies, labels: string): HttpRecorder {
  const request = registry.series(families.request, labels);
  const { response, latency } = families;
  const responses = new ResponseSeries(
    (status, isFailure, grpcStatus, error) =>
      registry.series(response, joinLabels(labels, responseLabels(status, isFailure, grpcStatus, error))),
    () => registry.series(response, joinLabels(labels, OVERFLOW_LABELS)),
  );
  const latencies =
    latency === null
      ? null
      : new ResponseSeries(
          (status) => registry.series(latency, joinLabels(labels, renderLabels({ status_code: formatStatus(status) }))),
          () => registry.series(latency, joinLabels(labels, OVERFLOW_LABELS)),
        );
  return {
    request: () => request.add(1),
    latency: (status, latencyMs) => latencies?.find(status, false, NO_GRPC_STATUS, '').observe(latencyMs),
    response: (status, classification: Classification, grpcStatus, error) =>
      responses.find(status, classification === 'failure', grpcStatus, error).add(1),
  };
}

function responseLabels(status: number, isFailure: boolean, grpcStatus: number, error: string): string {
  return renderLabels({
    status_code: formatStatus(status),
    classification: isFailure ? 'failure' : 'success',
    grpc_status: formatGrpcStatus(grpcStatus),
    error,
  });
}

function formatStatus(status: number): string {
  return status === 0 ? '' : String(status);
}

function formatGrpcStatus(grpcStatus: number): string {
  return grpcStatus === NO_GRPC_STATUS ? '' : String(grpcStatus);
}

const nothing = (): void => {};

/** `inbound_{http,grpc}_*`: routes of the inbound side are never retried. */
export function inboundRouteMetrics(registry: Registry, protocol: 'http' | 'grpc', labels: string): RouteRecorder {
  const name = `inbound_${protocol}`;
  const requests = registry.series(`${name}_requests_total`, labels);
  const duration = registry.series(`${name}_request_duration_seconds`, labels);
  const statuses = statusSeries(registry, `${name}_statuses_total`, protocol, labels, 'status');
  return {
    response: (status, grpcStatus, error, durationMs) => {
      requests.add(1);
      duration.observe(durationMs / 1000);
      statuses
        .find(protocol === 'grpc' ? 0 : status, false, protocol === 'grpc' ? grpcStatus : NO_GRPC_STATUS, error)
        .add(1);
    },
    retry: nothing,
    retrySuccess: nothing,
    retryLimitExceeded: nothing,
    retryOverflow: nothing,
  };
}

/** `outbound_{http,grpc}_route_*`. */
export function outboundRouteMetrics(registry: Registry, protocol: 'http' | 'grpc', labels: string): RouteRecorder {
  const name = `outbound_${protocol}_route`;
  const counter = (suffix: string) => registry.series(`${name}_${suffix}`, labels);
  const [retries, successes, exceeded, overflow] = [
    counter('retry_requests_total'),
    counter('retry_successes_total'),
    counter('retry_limit_exceeded_total'),
    counter('retry_overflow_total'),
  ];
  const duration = counter('request_duration_seconds');
  const statuses = statusSeries(registry, `${name}_request_statuses_total`, protocol, labels, `${protocol}_status`);
  return {
    response: (status, grpcStatus, error, durationMs) => {
      duration.observe(durationMs / 1000);
      statuses
        .find(protocol === 'grpc' ? 0 : status, false, protocol === 'grpc' ? grpcStatus : NO_GRPC_STATUS, error)
        .add(1);
    },
    retry: () => retries.add(1),
    retrySuccess: () => successes.add(1),
    retryLimitExceeded: () => exceeded.add(1),
    retryOverflow: () => overflow.add(1),
  };
}

/** `outbound_{http,grpc}_route_backend_*`. */
export function backendMetrics(
  registry: Registry,
  protocol: 'http' | 'grpc',
  labels: string,
): { request(): void; response(status: number, grpcStatus: number, error: string, durationMs: number): void } {
  const name = `outbound_${protocol}_route_backend`;
  const requests = registry.series(`${name}_requests_total`, labels);
  const duration = registry.series(`${name}_response_duration_seconds`, labels);
  const statuses = statusSeries(registry, `${name}_response_statuses_total`, protocol, labels, `${protocol}_status`);
  return {
    request: () => requests.add(1),
    response: (status, grpcStatus, error, durationMs) => {
      duration.observe(durationMs / 1000);
      statuses
        .find(protocol === 'grpc' ? 0 : status, false, protocol === 'grpc' ? grpcStatus : NO_GRPC_STATUS, error)
        .add(1);
    },
  };
}

function statusSeries(
  registry: Registry,
  family: string,
  protocol: 'http' | 'grpc',
  labels: string,
  label: string,
): ResponseSeries {
  return new ResponseSeries(
    (status, _isFailure, grpcStatus, error) => {
      const value = protocol === 'grpc' ? formatGrpcStatus(grpcStatus) : formatStatus(status);
      return registry.series(family, joinLabels(labels, renderLabels({ [label]: value, error })));
    },
    () => registry.series(family, joinLabels(labels, OVERFLOW_LABELS)),
  );
}
