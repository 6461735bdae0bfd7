// From the messages of the outbound policy API to the worker's own words. Pure. What cannot be understood as a whole
// makes the policy invalid (every request is answered 500); one backend that cannot be used fails its own share only.

import type { Duration } from '#api/gen/google/protobuf/duration.ts';
import type {
  ExponentialBackoff,
  FailureAccrual,
  GrpcRoute,
  GrpcRoute_Retry,
  HttpRoute_Retry,
  HttpRoute as HttpRouteMessage,
  OpaqueRoute,
  OutboundPolicy as OutboundPolicyMessage,
  ProxyProtocol,
  TlsRoute,
} from '#api/gen/outbound.ts';
import type { BackoffOptions } from '#lib/backoff.ts';
import { describeError } from '#lib/errors.ts';
import { translateGrpcMatch, translateHost, translateHttpMatch } from '../policy/translate-route.ts';
import type { BreakerOptions } from './breaker.ts';
import {
  DEFAULT_DETECT_TIMEOUT_MS,
  type HttpRoute,
  type HttpRoutes,
  type OutboundPolicy,
  type OutboundProtocol,
  type RetryPolicy,
  type TcpRoute,
  type Timeouts,
} from './policy.ts';
import { translateDistribution, translateFilters } from './translate-backend.ts';
import { invalid, translateDuration, translateRef } from './translate-values.ts';

/** Retries with a body above this are not made. */
export const RETRY_REQUEST_BYTES_MAX = 64 * 1024;
const GRPC_CANCELLED = 1;
const GRPC_DEADLINE_EXCEEDED = 4;
const GRPC_RESOURCE_EXHAUSTED = 8;
const GRPC_INTERNAL = 13;
const GRPC_UNAVAILABLE = 14;

/** `isLocal` tells the pod's own addresses. */
export function translatePolicy(message: OutboundPolicyMessage, isLocal: (address: string) => boolean): OutboundPolicy {
  const parent = translateRef(message.metadata);
  try {
    return { parent, protocol: translateProtocol(message.protocol, isLocal) };
  } catch (error) {
    return { parent, protocol: { kind: 'invalid', reason: describeError(error) } };
  }
}

function translateProtocol(
  message: ProxyProtocol | undefined,
  isLocal: (address: string) => boolean,
): OutboundProtocol {
  const kind = message?.kind;
  switch (kind?.$case) {
    case 'detect': {
      const { timeout, opaque, http1, http2 } = kind.value;
      return {
        kind: 'detect',
        timeoutMs: translateDuration(timeout) ?? DEFAULT_DETECT_TIMEOUT_MS,
        http1: translateHttp(http1?.routes ?? [], http1?.failureAccrual, isLocal),
        http2: translateHttp(http2?.routes ?? [], http2?.failureAccrual, isLocal),
        opaque: (opaque?.routes ?? []).map((route) => translateTcp(route, isLocal)),
      };
    }
    case 'http1':
    case 'http2':
      return { kind: kind.$case, http: translateHttp(kind.value.routes, kind.value.failureAccrual, isLocal) };
    case 'grpc': {
      const routes = kind.value.routes.map((route) => translateGrpcRoute(route, isLocal));
      return { kind: 'grpc', http: { protocol: 'grpc', routes, breaker: translateAccrual(kind.value.failureAccrual) } };
    }
    case 'opaque':
    case 'tls':
      return { kind: kind.$case, routes: kind.value.routes.map((route) => translateTcp(route, isLocal)) };
    default:
      throw invalid('protocol', 'none', 'a kind of protocol');
  }
}

function translateHttp(
  routes: readonly HttpRouteMessage[],
  accrual: FailureAccrual | undefined,
  isLocal: (address: string) => boolean,
): HttpRoutes {
  return {
    protocol: 'http',
    routes: routes.map((route) => translateHttpRoute(route, isLocal)),
    breaker: translateAccrual(accrual),
  };
}

function translateHttpRoute(message: HttpRouteMessage, isLocal: (address: string) => boolean): HttpRoute {
  return {
    ref: translateRef(message.metadata),
    hosts: message.hosts.map(translateHost),
    rules: message.rules.map((rule) => ({
      matches: rule.matches.map(translateHttpMatch),
      filters: translateFilters(rule.filters),
      distribution: translateDistribution(rule.backends, isLocal),
      timeouts: translateTimeouts(rule.timeouts, rule.requestTimeout),
      retry: rule.retry ? translateHttpRetry(rule.retry) : null,
      allowsOverrides: rule.allowL5dRequestHeaders,
    })),
  };
}

function translateGrpcRoute(message: GrpcRoute, isLocal: (address: string) => boolean): HttpRoute {
  return {
    ref: translateRef(message.metadata),
    hosts: message.hosts.map(translateHost),
    rules: message.rules.map((rule) => ({
      matches: rule.matches.map(translateGrpcMatch),
      filters: translateFilters(rule.filters),
      distribution: translateDistribution(rule.backends, isLocal),
      timeouts: translateTimeouts(rule.timeouts, rule.requestTimeout),
      retry: rule.retry ? translateGrpcRetry(rule.retry) : null,
      allowsOverrides: rule.allowL5dRequestHeaders,
    })),
  };
}

function translateTcp(message: OpaqueRoute | TlsRoute, isLocal: (address: string) => boolean): TcpRoute {
  const [rule] = message.rules;
  if (!rule) throw invalid('rules', 'none', 'one rule');
  const filter = rule.filters[0]?.kind?.$case ?? null;
  return {
    ref: translateRef(message.metadata),
    snis: 'snis' in message ? message.snis.map(translateHost) : [],
    distribution: translateDistribution(rule.backends, isLocal),
    refusal: filter,
  };
}

function translateTimeouts(
  message: { response: Duration | undefined; request: Duration | undefined; idle: Duration | undefined } | undefined,
  deprecatedRequest: Duration | undefined,
): Timeouts {
  return {
    requestMs: translateDuration(message?.request ?? deprecatedRequest),
    responseMs: translateDuration(message?.response),
    idleMs: translateDuration(message?.idle),
  };
}

function translateHttpRetry(message: HttpRoute_Retry): RetryPolicy {
  const ranges = message.conditions?.statusRanges ?? [];
  return {
    ...translateRetry(message),
    statuses: ranges.map(({ start, end }) => [start, end || start] as const),
    grpcCodes: new Set(),
  };
}

function translateGrpcRetry(message: GrpcRoute_Retry): RetryPolicy {
  const { cancelled, deadineExceeded, resourceExhausted, internal, unavailable } = message.conditions ?? {};
  const codes: [boolean | undefined, number][] = [
    [cancelled, GRPC_CANCELLED],
    [deadineExceeded, GRPC_DEADLINE_EXCEEDED],
    [resourceExhausted, GRPC_RESOURCE_EXHAUSTED],
    [internal, GRPC_INTERNAL],
    [unavailable, GRPC_UNAVAILABLE],
  ];
  return {
    ...translateRetry(message),
    statuses: [],
    grpcCodes: new Set(codes.filter(([isSet]) => isSet).map(([, code]) => code)),
  };
}

function translateRetry(message: HttpRoute_Retry | GrpcRoute_Retry) {
  return {
    maxRetries: message.maxRetries,
    maxRequestBytes: Math.min(message.maxRequestBytes || RETRY_REQUEST_BYTES_MAX, RETRY_REQUEST_BYTES_MAX),
    perTryMs: translateDuration(message.timeout),
    backoff: message.backoff ? translateBackoff(message.backoff) : null,
  };
}

function translateAccrual(message: FailureAccrual | undefined): BreakerOptions | null {
  const kind = message?.kind;
  switch (kind?.$case) {
    case 'consecutiveFailures': {
      const { maxFailures, backoff } = kind.value;
      return {
        maxFailures: maxFailures || 7,
        backoff: translateBackoff(backoff),
        respectRetryAfter: backoff?.respectRetryAfterHint ?? false,
        successRate: null,
      };
    }
    case 'unified': {
      const { successRateThreshold, decay, minRequests, maxConsecutiveFailures, backoff } = kind.value;
      return {
        maxFailures: maxConsecutiveFailures || 7,
        backoff: translateBackoff(backoff),
        respectRetryAfter: backoff?.respectRetryAfterHint ?? false,
        successRate: {
          threshold: successRateThreshold || 0.8,
          windowMs: translateDuration(decay) || 10_000,
          minRequests: minRequests || 5,
        },
      };
    }
    default:
      return null;
  }
}

const ACCRUAL_BACKOFF: BackoffOptions = { minMs: 1_000, maxMs: 60_000, jitter: 0.5 };

function translateBackoff(message: ExponentialBackoff | undefined): BackoffOptions {
  if (!message) return ACCRUAL_BACKOFF;
  const minMs = translateDuration(message.minBackoff) ?? ACCRUAL_BACKOFF.minMs;
  const maxMs = translateDuration(message.maxBackoff) ?? ACCRUAL_BACKOFF.maxMs;
  if (minMs <= 0 || maxMs < minMs) throw invalid('backoff', `${minMs} to ${maxMs} ms`, 'a growing range above 0');
  if (!(message.jitterRatio >= 0 && message.jitterRatio <= 100)) {
    throw invalid('jitter_ratio', String(message.jitterRatio), 'a number from 0 to 100');
  }
  return { minMs, maxMs, jitter: message.jitterRatio };
}
