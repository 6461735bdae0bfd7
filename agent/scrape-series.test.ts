import { describe, expect, test } from 'vitest';
import { createLog } from '#lib/log.ts';
import { NODE_SERIES_MAX, POD_SERIES_MAX } from './family-merge.ts';
import { AgentMetrics } from './metrics.ts';
import { type ScrapeTarget, scrapeWorkers } from './scrape.ts';

const CHUNK_BYTES = 64 * 1024;

/** A worker that tells `values` distinct label values, in pieces as the link hands them over. */
function worker(pod: string, values: number): ScrapeTarget {
  const lines = Array.from({ length: values }, (_, value) => `requests_total{pod="${pod}",path="/${value}"} 1\n`);
  const text = Buffer.from(`# HELP requests_total R.\n# TYPE requests_total counter\n${lines.join('')}`);
  return {
    pod,
    scrape: async (onChunk) => {
      for (let at = 0; at < text.length; at += CHUNK_BYTES) {
        onChunk(text.subarray(at, at + CHUNK_BYTES));
        await Promise.resolve();
      }
    },
  };
}

function setUp() {
  const logged: Record<string, unknown>[] = [];
  const { log } = createLog({ sink: { write: (line) => logged.push(JSON.parse(line)) } });
  return { log, logged };
}

/** Samples by pod. */
function samplesOf(text: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const [, pod] of text.matchAll(/^requests_total\{pod="([^"]+)"/gm))
    counts.set(pod!, (counts.get(pod!) ?? 0) + 1);
  return counts;
}

describe('a scrape of the node', () => {
  test('100 pods, one of them with 100,000 label values: under the cap, in less than a second', async () => {
    const { log, logged } = setUp();
    const quiet = Array.from({ length: 99 }, (_, index) => worker(`shop/pod-${index}`, 500));
    const greedy = worker('shop/greedy', 100_000);
    const startedMs = performance.now();
    const { merge, failed, series } = await scrapeWorkers([greedy, ...quiet], log);
    const text = Buffer.concat([...merge.text()]).toString();
    const tookMs = performance.now() - startedMs;
    expect(tookMs).toBeLessThan(1_000);
    expect(failed).toEqual([]);
    // The others lose nothing.
    const expected = [['shop/greedy', POD_SERIES_MAX], ...quiet.map(({ pod }) => [pod, 500])];
    expect(Object.fromEntries(samplesOf(text))).toEqual(Object.fromEntries(expected));
    expect(series.find(({ pod }) => pod === 'shop/greedy')).toEqual({
      pod: 'shop/greedy',
      taken: POD_SERIES_MAX,
      dropped: 100_000 - POD_SERIES_MAX,
    });
    expect(logged).toEqual([
      expect.objectContaining({ message: 'a pod has too many series: the rest is missing', pod: 'shop/greedy' }),
    ]);
    // No line is cut in the middle.
    expect(text.endsWith('\n')).toBe(true);
    expect(text.split('\n').filter((line) => line !== '' && !/^(#|requests_total\{.*\} 1$)/.test(line))).toEqual([]);

    const metrics = new AgentMetrics({
      enrolments: () => [],
      relay: () => [],
      installation: null,
      redirection: () => ({}),
    });
    metrics.scraped(failed.length, series);
    const own = await metrics.text();
    expect(own).toMatch(/^heddle_metrics_series\{namespace="shop",pod="greedy"\} 20000$/m);
    expect(own).toMatch(/^heddle_metrics_series\{namespace="shop",pod="pod-0"\} 500$/m);
    expect(own).toMatch(/^heddle_metrics_series_dropped_total 80000$/m);
  });

  test('pods that are all at their bound end at the bound of the node', async () => {
    const { log } = setUp();
    const pods = NODE_SERIES_MAX / POD_SERIES_MAX + 1;
    const { series } = await scrapeWorkers(
      Array.from({ length: pods }, (_, index) => worker(`p/${index}`, POD_SERIES_MAX)),
      log,
    );
    expect(series.reduce((sum, { taken }) => sum + taken, 0)).toBe(NODE_SERIES_MAX);
    expect(series.reduce((sum, { dropped }) => sum + dropped, 0)).toBe(POD_SERIES_MAX);
  });
});
