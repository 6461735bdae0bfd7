// `l5d-*` headers by which an application changes retries and timeouts of its own request, where the policy allows it.
// They are removed whether or not they can be read; what cannot be read changes nothing.

import type { Headers } from '../http.ts';
import type { HttpRule, RetryPolicy, Timeouts } from './policy.ts';
import { RETRY_REQUEST_BYTES_MAX } from './translate.ts';

const NAMES = [
  'l5d-retry-http',
  'l5d-retry-grpc',
  'l5d-retry-limit',
  'l5d-retry-timeout',
  'l5d-timeout',
  'l5d-request-timeout',
  'l5d-response-timeout',
] as const;

const GRPC_CODES: Readonly<Record<string, number>> = {
  cancelled: 1,
  'deadline-exceeded': 4,
  'resource-exhausted': 8,
  internal: 13,
  unavailable: 14,
};

const RETRY_LIMIT_MAX = 100;
const DEFAULT_RETRY: RetryPolicy = {
  maxRetries: 1,
  maxRequestBytes: RETRY_REQUEST_BYTES_MAX,
  statuses: [],
  grpcCodes: new Set(),
  perTryMs: null,
  backoff: { minMs: 25, maxMs: 250, jitter: 1 },
};

/** What the application asks for beside what the rule says; null where it asks for nothing. Removes the headers. */
export function takeOverrides(rule: HttpRule, headers: Headers): Pick<HttpRule, 'retry' | 'timeouts'> | null {
  const values = new Map<string, string>();
  for (const name of NAMES) {
    const value = headers.get(name);
    if (value === undefined) continue;
    values.set(name, value);
    headers.remove(name);
  }
  if (values.size === 0) return null;
  return { retry: overrideRetry(rule.retry, values), timeouts: overrideTimeouts(rule.timeouts, values) };
}

function overrideRetry(retry: RetryPolicy | null, values: ReadonlyMap<string, string>): RetryPolicy | null {
  const statuses = readStatuses(values.get('l5d-retry-http'));
  const grpcCodes = readGrpcCodes(values.get('l5d-retry-grpc'));
  const limit = readLimit(values.get('l5d-retry-limit'));
  const perTryMs = readDurationMs(values.get('l5d-retry-timeout'));
  // A limit or a time alone says nothing about what to retry.
  if (!retry && !statuses && !grpcCodes && perTryMs === null) return null;
  const base = retry ?? DEFAULT_RETRY;
  return {
    ...base,
    statuses: statuses ?? base.statuses,
    grpcCodes: grpcCodes ?? base.grpcCodes,
    maxRetries: limit ?? base.maxRetries,
    perTryMs: perTryMs ?? base.perTryMs,
  };
}

function overrideTimeouts(timeouts: Timeouts, values: ReadonlyMap<string, string>): Timeouts {
  const requestMs = readDurationMs(values.get('l5d-timeout') ?? values.get('l5d-request-timeout'));
  const responseMs = readDurationMs(values.get('l5d-response-timeout'));
  return {
    ...timeouts,
    requestMs: requestMs ?? timeouts.requestMs,
    responseMs: responseMs ?? timeouts.responseMs,
  };
}

/** `5xx`, `gateway-error`, `503`, `500-504`, comma separated. */
function readStatuses(text: string | undefined): [number, number][] | null {
  if (text === undefined) return null;
  const ranges: [number, number][] = [];
  for (const part of text.split(',').map((each) => each.trim())) {
    const range = /^(\d{3})(?:-(\d{3}))?$/.exec(part);
    if (part === '5xx') ranges.push([500, 599]);
    else if (part === 'gateway-error') ranges.push([502, 504]);
    else if (range) ranges.push([Number(range[1]), Number(range[2] ?? range[1])]);
    else return null;
  }
  return ranges;
}

function readGrpcCodes(text: string | undefined): Set<number> | null {
  if (text === undefined) return null;
  const codes = text.split(',').map((each) => GRPC_CODES[each.trim().toLowerCase()]);
  return codes.every((code): code is number => code !== undefined) ? new Set(codes) : null;
}

function readLimit(text: string | undefined): number | null {
  return text !== undefined && /^\d{1,9}$/.test(text) ? Math.min(Number(text), RETRY_LIMIT_MAX) : null;
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** `500ms`, `10s`, `1m`; null for anything else, and for zero. */
function readDurationMs(text: string | undefined): number | null {
  const match = text === undefined ? null : /^(\d{1,9})(ms|s|m|h)$/.exec(text.trim());
  if (!match) return null;
  return Number(match[1]) * UNITS[match[2]!]! || null;
}
