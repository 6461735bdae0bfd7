// Reads Prometheus' text format 0.0.4 and holds it to its rules, as promtool does: one HELP and one TYPE before the
// samples of a family, families in one piece, no series twice, histograms that are whole and cumulative.
// Spec: prometheus.io/docs/instrumenting/exposition_formats.

import { parseExposition, type Sample } from '../../../demo/report/exposition.ts';

export interface Family {
  name: string;
  type: string;
  samples: Sample[];
}

const TYPES = ['counter', 'gauge', 'histogram', 'summary', 'untyped'];
const HEADER = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/;
const SUFFIXES: Record<string, string[]> = {
  histogram: ['_bucket', '_sum', '_count'],
  summary: ['_sum', '_count', ''],
};

/** Throws on the first thing that is against the rules. */
export function readStrictly(text: string): Map<string, Family> {
  if (!text.endsWith('\n')) throw new Error('metrics: expected a line feed at the end');
  const families = new Map<string, Family>();
  const helped = new Set<string>();
  const seen = new Set<string>();
  let current: Family | null = null;
  for (const line of text.split('\n')) {
    const fail = (why: string): never => {
      throw new Error(`metrics: line "${line.slice(0, 200)}": ${why}`);
    };
    if (line === '') continue;
    if (line.startsWith('#')) {
      const [, keyword, name, rest] = HEADER.exec(line) ?? fail('expected # HELP or # TYPE');
      if (keyword === 'HELP') {
        if (helped.has(name!)) fail('expected one HELP for each family');
        helped.add(name!);
        continue;
      }
      if (!TYPES.includes(rest!)) fail(`expected one of ${TYPES.join(', ')}`);
      if (families.has(name!)) fail('expected one TYPE for each family, its samples together');
      if (!helped.has(name!)) fail('expected HELP before TYPE');
      current = { name: name!, type: rest!, samples: [] };
      families.set(name!, current);
      continue;
    }
    const [sample] = parseExposition(line);
    if (!current || !belongs(sample!.name, current)) fail(`expected a sample of family "${current?.name}"`);
    const key = `${sample!.name} ${JSON.stringify(Object.entries(sample!.labels).sort())}`;
    if (seen.has(key)) fail('expected each series once');
    seen.add(key);
    if (current!.type === 'counter' && !(sample!.value >= 0)) fail('expected a counter of at least 0');
    current!.samples.push(sample!);
  }
  for (const family of families.values()) if (family.type === 'histogram') checkHistogram(family);
  return families;
}

function belongs(name: string, { name: family, type }: Family): boolean {
  return (SUFFIXES[type] ?? ['']).some((suffix) => name === family + suffix);
}

function checkHistogram({ name, samples }: Family): void {
  const series = new Map<string, { le: number[]; counts: number[]; count?: number; hasSum: boolean }>();
  for (const { name: sample, labels, value } of samples) {
    const { le, ...rest } = labels;
    const key = JSON.stringify(Object.entries(rest).sort());
    const entry = series.get(key) ?? { le: [], counts: [], hasSum: false };
    series.set(key, entry);
    if (sample === `${name}_sum`) entry.hasSum = true;
    else if (sample === `${name}_count`) entry.count = value;
    else {
      if (le === undefined) throw new Error(`metrics: bucket of "${name}" without le`);
      entry.le.push(le === '+Inf' ? Number.POSITIVE_INFINITY : Number(le));
      entry.counts.push(value);
    }
  }
  for (const [key, { le, counts, count, hasSum }] of series) {
    const isRising = (values: number[], isStrict: boolean) =>
      values.every(
        (value, index) => index === 0 || value > values[index - 1]! || (!isStrict && value === values[index - 1]),
      );
    const isWhole = hasSum && le.at(-1) === Number.POSITIVE_INFINITY && counts.at(-1) === count;
    if (!isWhole || !isRising(le, true) || !isRising(counts, false)) {
      throw new Error(`metrics: histogram "${name}" ${key}: expected rising buckets, +Inf, _sum and _count`);
    }
  }
}

/** The upper bounds of a histogram's buckets, +Inf last. */
export function bucketsOf(family: Family): number[] {
  const bounds = family.samples.flatMap(({ labels }) => (labels.le === undefined ? [] : [labels.le]));
  return [...new Set(bounds)].map((le) => (le === '+Inf' ? Number.POSITIVE_INFINITY : Number(le)));
}

/** The sum over the samples of a family that have all these labels. */
export function total(families: Map<string, Family>, name: string, labels: Record<string, string> = {}): number {
  const wanted = Object.entries(labels);
  return (families.get(name)?.samples ?? [])
    .filter((sample) => wanted.every(([label, value]) => sample.labels[label] === value))
    .reduce((sum, { value }) => sum + value, 0);
}
