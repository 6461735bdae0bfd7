// What every load generator says at its end.

import { quantile } from '../row.ts';

export interface LoadResult {
  /** Answered in full and as expected; the unit is the test's: requests, messages, connections, MiB. */
  requests: number;
  /** The same per second. */
  rps: number;
  p50Ms: number | null;
  p99Ms: number | null;
  p999Ms: number | null;
  failures: number;
  /** The first failure in words. */
  failure?: string;
  gbps?: number;
}

/** Collects the latencies of one run, in milliseconds, and what failed. */
export class Recorder {
  readonly #latenciesMs: number[] = [];
  #failures = 0;
  #failure: string | undefined;

  succeeded(latencyMs: number): void {
    this.#latenciesMs.push(latencyMs);
  }

  failed(why: string): void {
    this.#failures += 1;
    this.#failure ??= why;
  }

  result(elapsedMs: number): LoadResult {
    const requests = this.#latenciesMs.length;
    return {
      requests,
      rps: (requests / elapsedMs) * 1000,
      ...percentiles(this.#latenciesMs),
      failures: this.#failures,
      ...(this.#failure === undefined ? {} : { failure: this.#failure }),
    };
  }
}

/** The three percentiles of latencies in milliseconds; null of none. */
export function percentiles(latenciesMs: readonly number[]): Pick<LoadResult, 'p50Ms' | 'p99Ms' | 'p999Ms'> {
  if (latenciesMs.length === 0) return { p50Ms: null, p99Ms: null, p999Ms: null };
  return {
    p50Ms: quantile(latenciesMs, 0.5),
    p99Ms: quantile(latenciesMs, 0.99),
    p999Ms: quantile(latenciesMs, 0.999),
  };
}
