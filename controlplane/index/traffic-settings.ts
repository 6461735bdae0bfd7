// Timeouts, retries and circuit breaking from the annotations of a Service (Linkerd's names and defaults). A value that
// cannot be read counts as absent, as Linkerd has it for Services.

import type { FailureAccrual, TrafficSettings } from '../core/model.ts';

type Annotations = Readonly<Record<string, string>>;

const ACCRUAL = 'balancer.linkerd.io/failure-accrual';

export function trafficSettings(annotations: Annotations): TrafficSettings {
  return {
    timeouts: {
      requestMs: durationOf(annotations, 'timeout.linkerd.io/request'),
      responseMs: durationOf(annotations, 'timeout.linkerd.io/response'),
      idleMs: durationOf(annotations, 'timeout.linkerd.io/idle'),
    },
    httpRetry: httpRetry(annotations),
    failureAccrual: failureAccrual(annotations),
  };
}

function httpRetry(annotations: Annotations): TrafficSettings['httpRetry'] {
  const list = annotations['retry.linkerd.io/http'];
  const statuses = list === undefined ? [] : statusRanges(list);
  if (!statuses || statuses.length === 0) return null;
  const limit = numberOf(annotations, 'retry.linkerd.io/limit', 0, 65_535);
  return { statuses, limit: limit || 1, timeoutMs: durationOf(annotations, 'retry.linkerd.io/timeout') };
}

/** `5xx`, `gateway-error`, `503`, `500-504`, separated by commas; null when an entry is none of these. */
function statusRanges(list: string): [number, number][] | null {
  const ranges: [number, number][] = [];
  for (const entry of list.split(',').map((part) => part.trim())) {
    const match = /^(\d{3})(?:-(\d{3}))?$/.exec(entry);
    if (entry === '5xx') ranges.push([500, 599]);
    else if (entry === 'gateway-error') ranges.push([502, 504]);
    else if (match && Number(match[1]) >= 100 && Number(match[2] ?? match[1]) >= Number(match[1])) {
      ranges.push([Number(match[1]), Number(match[2] ?? match[1])]);
    } else return null;
  }
  return ranges;
}

function failureAccrual(annotations: Annotations): FailureAccrual | null {
  if (annotations[ACCRUAL] !== 'consecutive') return null;
  const minPenaltyMs = durationOf(annotations, `${ACCRUAL}-consecutive-min-penalty`) ?? 1_000;
  const maxPenaltyMs = durationOf(annotations, `${ACCRUAL}-consecutive-max-penalty`) ?? 60_000;
  if (maxPenaltyMs === 0 || minPenaltyMs > maxPenaltyMs) return null;
  return {
    maxFailures: numberOf(annotations, `${ACCRUAL}-consecutive-max-failures`, 1, 0xffff_ffff) ?? 7,
    minPenaltyMs,
    maxPenaltyMs,
    jitterRatio: fractionOf(annotations, `${ACCRUAL}-consecutive-jitter-ratio`, 100) ?? 0.5,
    honorsRetryAfter: /^(1|t|true)$/i.test(annotations[`${ACCRUAL}-honor-retry-after`] ?? ''),
  };
}

const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** A whole number with one unit, or a bare 0; not Go's notation. */
function durationOf(annotations: Annotations, key: string): number | null {
  const text = annotations[key]?.trim();
  if (text === '0') return 0;
  const match = /^(\d{1,12})(ms|s|m|h|d)$/.exec(text ?? '');
  if (!match) return null;
  return Number(match[1]) * UNIT_MS[match[2] as keyof typeof UNIT_MS];
}

function numberOf(annotations: Annotations, key: string, from: number, to: number): number | null {
  const text = annotations[key]?.trim() ?? '';
  const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  return value >= from && value <= to ? value : null;
}

function fractionOf(annotations: Annotations, key: string, to: number): number | null {
  const text = annotations[key]?.trim() ?? '';
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  return value >= 0 && value <= to ? value : null;
}
