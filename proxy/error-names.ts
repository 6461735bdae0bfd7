// The values of the label `error`: one vocabulary for route metrics, another for the older endpoint metrics.

import { findCause, HeddleError } from '#lib/errors.ts';

const ROUTE_NAMES: ReadonlyMap<string, string> = new Map([
  ['failfast', 'FAIL_FAST'],
  ['load-shed', 'LOAD_SHED'],
  ['pool-queue-full', 'LOAD_SHED'],
  ['request-timeout', 'REQUEST_TIMEOUT'],
  ['profile-timeout', 'REQUEST_TIMEOUT'],
  ['response-headers-timeout', 'RESPONSE_HEADERS_TIMEOUT'],
  ['response-timeout', 'RESPONSE_STREAM_TIMEOUT'],
  ['idle-timeout', 'IDLE_TIMEOUT'],
]);

/** The client went away before the response ended. */
export const CANCELLED = 'CANCEL';

/** `error` of `outbound_http_route_*`. */
export function routeErrorName(error: HeddleError): string {
  const known = findCause(
    error,
    (candidate): candidate is HeddleError => candidate instanceof HeddleError && ROUTE_NAMES.has(candidate.code),
  );
  if (known) return ROUTE_NAMES.get(known.code) ?? 'UNKNOWN';
  return error.source === 'upstream' ? 'IO' : 'UNKNOWN';
}

/** `error` of `response_total`. */
export function endpointErrorName(error: HeddleError): string {
  return error.code.endsWith('timeout') ? 'timeout' : 'unclassified';
}
