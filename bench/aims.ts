// What Heddle wants to be beside its peers, as ratios of numbers of one run.

import type { Row } from './row.ts';

export interface Aim {
  aim: string;
  /** Heddle's number over the other one; null when a number is missing. */
  ratio: number | null;
  /** At most, or at least with `atLeast`. */
  bound: number;
  isAtLeast: boolean;
  isMet: boolean;
}

const WORKER_KIB = 26 * 1024;

/** States every aim from the rows of one run of the peers' suite. */
export function stateAims(rows: readonly Row[]): Aim[] {
  const value = (test: string, system: string, measure: string): number => {
    const found = rows.find((row) => row.test === test && row.system === system)?.[measure];
    return typeof found === 'number' ? found : Number.NaN;
  };
  const against = (peer: string, test: string, measure: string) =>
    value(test, 'heddle', measure) / value(test, peer, measure);
  /** The latency that a system adds to the direct way. */
  const added = (system: string, measure: string) =>
    value('rate-1000', system, measure) - value('rate-1000', 'direct', measure);
  const addedRatio = (measure: string) =>
    added('haproxy', measure) > 0 ? added('heddle', measure) / added('haproxy', measure) : Number.NaN;
  const tests = [...new Set(rows.map(({ test }) => test))];
  const heddleKib = rows.flatMap(({ system, pssKiB }) =>
    system === 'heddle' ? [typeof pssKiB === 'number' ? pssKiB : Number.NaN] : [],
  );
  return [
    atMost('CPU of http1-16, haproxy', against('haproxy', 'http1-16', 'cpuUsPerRequest'), 1.15),
    atMost('CPU of http1-128, haproxy', against('haproxy', 'http1-128', 'cpuUsPerRequest'), 0.95),
    ...['http2', 'grpc-unary', 'grpc-stream'].map((test) =>
      atMost(`CPU of ${test}, haproxy`, against('haproxy', test, 'cpuUsPerRequest'), 1.3),
    ),
    ...tests.map((test) => atMost(`CPU of ${test}, envoy`, against('envoy', test, 'cpuUsPerRequest'), 1)),
    atLeast('throughput of tcp, haproxy', against('haproxy', 'tcp', 'gbps'), 1),
    atLeast('new connections per second by HTTP, haproxy', against('haproxy', 'connections', 'rps'), 1.7),
    atLeast('new opaque connections per second, haproxy', against('haproxy', 'connections', 'opaqueRps'), 1),
    atMost('p50 added at 1,000 per second, haproxy', addedRatio('p50Ms'), 1.2),
    atMost('p99 added at 1,000 per second, haproxy', addedRatio('p99Ms'), 1.3),
    atMost('proportional memory of a worker, 26 MiB', Math.max(...heddleKib) / WORKER_KIB, 1),
  ];
}

/** One line each. */
export function formatAims(aims: readonly Aim[]): string {
  const width = Math.max(...aims.map(({ aim }) => aim.length));
  return aims
    .map(({ aim, ratio, bound, isAtLeast, isMet }) => {
      const state = isMet ? 'met' : 'MISSED';
      return `${aim.padEnd(width)}  ${(ratio?.toFixed(2) ?? '-').padStart(6)}  ${isAtLeast ? '>=' : '<='} ${bound.toFixed(2)}  ${ratio === null ? 'UNKNOWN' : state}`;
    })
    .join('\n');
}

function atMost(aim: string, ratio: number, bound: number): Aim {
  return state(aim, ratio, bound, false);
}

function atLeast(aim: string, ratio: number, bound: number): Aim {
  return state(aim, ratio, bound, true);
}

function state(aim: string, ratio: number, bound: number, isAtLeast: boolean): Aim {
  if (!Number.isFinite(ratio)) return { aim, ratio: null, bound, isAtLeast, isMet: false };
  return { aim, ratio, bound, isAtLeast, isMet: isAtLeast ? ratio >= bound : ratio <= bound };
}
