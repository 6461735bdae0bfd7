// What happened between two scrapes of the node. Counters only grow; one that shrank belongs to a worker that started
// again, and then counts from zero (as Prometheus' increase() has it).

import type { Labels, Sample } from './exposition.ts';

export interface Scrape {
  atMs: number;
  samples: readonly Sample[];
}

/** Increases of counters and present values of gauges, by family. */
export class Window {
  readonly seconds: number;
  readonly #now = new Map<string, Sample[]>();
  readonly #before = new Map<string, number>();

  /** `before` is null for everything since the workers started. */
  constructor(now: Scrape, before: Scrape | null) {
    this.seconds = before ? (now.atMs - before.atMs) / 1000 : Number.NaN;
    for (const sample of now.samples) {
      const family = this.#now.get(sample.name);
      if (family) family.push(sample);
      else this.#now.set(sample.name, [sample]);
    }
    for (const sample of before?.samples ?? []) this.#before.set(keyOf(sample), sample.value);
  }

  /** The series of a family as they are now. */
  gauges(name: string): readonly Sample[] {
    return this.#now.get(name) ?? [];
  }

  /** The series of a counter (or of a histogram's buckets) with what they grew by. */
  increases(name: string): Sample[] {
    return this.gauges(name).map((sample) => {
      const before = this.#before.get(keyOf(sample)) ?? 0;
      return { ...sample, value: sample.value >= before ? sample.value - before : sample.value };
    });
  }
}

function keyOf({ name, labels }: Sample): string {
  return name + JSON.stringify(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Sums of `samples` by what `groupOf` says; samples it answers null for are left out. */
export function sumBy(samples: readonly Sample[], groupOf: (labels: Labels) => string | null): Map<string, number> {
  const sums = new Map<string, number>();
  for (const { labels, value } of samples) {
    const group = groupOf(labels);
    if (group !== null) sums.set(group, (sums.get(group) ?? 0) + value);
  }
  return sums;
}

/**
 * The quantile of a histogram from its cumulative buckets, linear within a bucket (as Prometheus'
 * histogram_quantile()); null without observations. In the last, open bucket it is that bucket's lower bound.
 */
export function histogramQuantile(buckets: ReadonlyMap<number, number>, quantile: number): number | null {
  const sorted = [...buckets].sort(([a], [b]) => a - b);
  const total = sorted.at(-1)?.[1] ?? 0;
  if (total === 0) return null;
  const rank = quantile * total;
  let lower = 0;
  let below = 0;
  for (const [upper, count] of sorted) {
    if (count >= rank) {
      if (upper === Number.POSITIVE_INFINITY) return lower;
      return count === below ? upper : lower + ((upper - lower) * (rank - below)) / (count - below);
    }
    lower = upper;
    below = count;
  }
  return lower;
}

/** Cumulative buckets of a histogram family, summed over the series that `accepts` takes. */
export function bucketsOf(samples: readonly Sample[], accepts: (labels: Labels) => boolean): Map<number, number> {
  const buckets = new Map<number, number>();
  for (const { labels, value } of samples) {
    if (!accepts(labels)) continue;
    const upper = labels.le === '+Inf' ? Number.POSITIVE_INFINITY : Number(labels.le);
    buckets.set(upper, (buckets.get(upper) ?? 0) + value);
  }
  return buckets;
}
