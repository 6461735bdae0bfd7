// Outbound policies as messages. Pure. Defaults are Linkerd's: detection for 10 s, a queue of 100 for 3 s, peak-EWMA
// with 30 ms and 10 s, retries with bodies up to 64 KiB and back-off from 25 to 250 ms.

import type { Metadata } from '#api/gen/meta.ts';
import type {
  Backend,
  FailureAccrual,
  HttpRoute,
  HttpRoute_Retry,
  OpaqueRoute,
  OpaqueRoute_Distribution,
  OutboundPolicy,
  ProxyProtocol,
} from '#api/gen/outbound.ts';
import { serviceFqdn } from '../core/authority.ts';
import type { OutboundProtocol, OutboundSnapshot, TrafficSettings } from '../core/model.ts';
import { serviceReference, toDuration, toDurationOrNone, toMetadata, toTcpAddress } from '../wire.ts';

const DETECT_TIMEOUT = toDuration(10_000);
const QUEUE = { capacity: 100, failfastTimeout: toDuration(3_000) };
const PEAK_EWMA = { defaultRtt: toDuration(30), decay: toDuration(10_000) };
const RETRY_REQUEST_BYTES_MAX = 64 * 1024;
const RETRY_BACKOFF = {
  minBackoff: toDuration(25),
  maxBackoff: toDuration(250),
  jitterRatio: 1,
  respectRetryAfterHint: false,
};

const NO_TRAFFIC: TrafficSettings = {
  timeouts: { requestMs: null, responseMs: null, idleMs: null },
  httpRetry: null,
  failureAccrual: null,
};

export function toOutboundPolicy(
  snapshot: Exclude<OutboundSnapshot, { kind: 'refused' }>,
  clusterDomain: string,
): OutboundPolicy {
  switch (snapshot.kind) {
    case 'service': {
      const { service, protocol, traffic } = snapshot;
      const metadata = toMetadata(serviceReference(service));
      const path = `${serviceFqdn(service, clusterDomain)}:${service.port}`;
      const backend = balancer(metadata, path);
      return { metadata, protocol: protocolOf(protocol, backend, { http: 'http', opaque: 'opaq' }, traffic) };
    }
    case 'undefined-port': {
      const route = refusingRoute('undefined-port');
      const metadata = toMetadata(serviceReference(snapshot.service));
      return { metadata, protocol: { kind: { $case: 'opaque', value: { routes: [route] } } } };
    }
    case 'egress': {
      const name = 'egress-fallback';
      const metadata = toMetadata({ kind: 'default', name });
      const backend = forward(metadata, snapshot.ip, snapshot.port);
      return { metadata, protocol: protocolOf('detect', backend, { http: name, opaque: name }, NO_TRAFFIC) };
    }
  }
}

function protocolOf(
  protocol: OutboundProtocol,
  backend: Backend,
  names: { http: string; opaque: string },
  traffic: TrafficSettings,
): ProxyProtocol {
  const opaque = { routes: [opaqueRoute(names.opaque, backend)] };
  const http = { routes: [httpRoute(names.http, backend, traffic)], failureAccrual: toAccrual(traffic.failureAccrual) };
  switch (protocol) {
    case 'opaque':
      return { kind: { $case: 'opaque', value: opaque } };
    case 'http1':
    case 'http2':
      return { kind: { $case: protocol, value: http } };
    case 'detect':
      return { kind: { $case: 'detect', value: { timeout: DETECT_TIMEOUT, opaque, http1: http, http2: http } } };
  }
}

function httpRoute(name: string, backend: Backend, { timeouts, httpRetry }: TrafficSettings): HttpRoute {
  const request = toDurationOrNone(timeouts.requestMs);
  const response = toDurationOrNone(timeouts.responseMs);
  const idle = toDurationOrNone(timeouts.idleMs);
  const hasTimeouts = request !== undefined || response !== undefined || idle !== undefined;
  return {
    metadata: toMetadata({ kind: 'default', name }),
    hosts: [],
    rules: [
      {
        matches: [{ path: { kind: { $case: 'prefix', value: '/' } }, headers: [], queryParams: [], method: undefined }],
        filters: [],
        backends: {
          kind: { $case: 'firstAvailable', value: { backends: [{ backend, filters: [], requestTimeout: undefined }] } },
        },
        requestTimeout: request,
        timeouts: hasTimeouts ? { request, response, idle } : undefined,
        retry: httpRetry ? toRetry(httpRetry) : undefined,
        allowL5dRequestHeaders: false,
      },
    ],
  };
}

function toRetry({ statuses, limit, timeoutMs }: NonNullable<TrafficSettings['httpRetry']>): HttpRoute_Retry {
  return {
    maxRetries: limit,
    maxRequestBytes: RETRY_REQUEST_BYTES_MAX,
    conditions: { statusRanges: statuses.map(([start, end]) => ({ start, end })) },
    timeout: toDurationOrNone(timeoutMs),
    backoff: RETRY_BACKOFF,
  };
}

function toAccrual(accrual: TrafficSettings['failureAccrual']): FailureAccrual | undefined {
  if (!accrual) return undefined;
  const { maxFailures, minPenaltyMs, maxPenaltyMs, jitterRatio, honorsRetryAfter } = accrual;
  const backoff = {
    minBackoff: toDuration(minPenaltyMs),
    maxBackoff: toDuration(maxPenaltyMs),
    jitterRatio,
    respectRetryAfterHint: honorsRetryAfter,
  };
  return { kind: { $case: 'consecutiveFailures', value: { maxFailures, backoff } }, ejection: undefined };
}

function opaqueRoute(name: string, backend: Backend): OpaqueRoute {
  const backends: OpaqueRoute_Distribution = {
    kind: { $case: 'firstAvailable', value: { backends: [{ backend, filters: [] }] } },
  };
  return { metadata: toMetadata({ kind: 'default', name }), rules: [{ backends, filters: [] }] };
}

function refusingRoute(name: string): OpaqueRoute {
  const backends = { kind: { $case: 'empty', value: {} } } as const;
  const filters = [{ kind: { $case: 'forbidden', value: {} } } as const];
  return { metadata: toMetadata({ kind: 'default', name }), rules: [{ backends, filters }] };
}

function balancer(metadata: Metadata, path: string): Backend {
  const discovery = { kind: { $case: 'dst', value: { path } } } as const;
  const load = { $case: 'peakEwma', value: PEAK_EWMA } as const;
  return { metadata, kind: { $case: 'balancer', value: { discovery, load } }, queue: QUEUE };
}

function forward(metadata: Metadata, ip: string, port: number): Backend {
  const value = {
    addr: toTcpAddress(ip, port),
    weight: 1,
    metricLabels: {},
    tlsIdentity: undefined,
    protocolHint: undefined,
    authorityOverride: undefined,
    http2: undefined,
    resourceRef: undefined,
  };
  return { metadata, kind: { $case: 'forward', value }, queue: QUEUE };
}
