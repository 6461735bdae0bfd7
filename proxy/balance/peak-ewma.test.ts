import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Load } from './load.ts';
import { DEFAULT_PEAK_EWMA, PeakEwma } from './peak-ewma.ts';

describe('PeakEwma', () => {
  test('starts with the default and decays to 1/e of it in the time constant', () => {
    const ewma = new PeakEwma(DEFAULT_PEAK_EWMA, 0);
    expect(ewma.estimate(0)).toBe(30);
    expect(ewma.estimate(10_000)).toBeCloseTo(30 / Math.E, 6);
  });

  test('decays the same however often it is asked', () => {
    const often = new PeakEwma(DEFAULT_PEAK_EWMA, 0);
    for (let nowMs = 0; nowMs < 10_000; nowMs += 7) often.estimate(nowMs);
    expect(often.estimate(10_000)).toBeCloseTo(30 / Math.E, 6);
  });

  test('a peak replaces the estimate at once, a fast answer pulls it down slowly', () => {
    const ewma = new PeakEwma(DEFAULT_PEAK_EWMA, 0);
    ewma.observe(500, 100);
    expect(ewma.estimate(100)).toBe(500);
    ewma.observe(10, 1_100);
    expect(ewma.estimate(1_100)).toBeCloseTo(500 * Math.exp(-0.1) + 10 * (1 - Math.exp(-0.1)), 6);
  });

  test('stays between zero and the highest observation', () => {
    const steps = fc.array(fc.record({ afterMs: fc.integer({ min: 0, max: 60_000 }), rttMs: fc.integer({ min: 0 }) }));
    fc.assert(
      fc.property(steps, (observations) => {
        const ewma = new PeakEwma(DEFAULT_PEAK_EWMA, 0);
        let nowMs = 0;
        let peak = DEFAULT_PEAK_EWMA.defaultRttMs;
        for (const { afterMs, rttMs } of observations) {
          nowMs += afterMs;
          peak = Math.max(peak, rttMs);
          ewma.observe(rttMs, nowMs);
          const estimate = ewma.estimate(nowMs);
          expect(estimate).toBeGreaterThanOrEqual(0);
          expect(estimate).toBeLessThanOrEqual(peak);
        }
      }),
    );
  });
});

describe('Load', () => {
  test('multiplies the estimate by the requests in flight plus one', () => {
    const load = new Load(DEFAULT_PEAK_EWMA, 0);
    expect(load.cost(0)).toBe(30);
    load.start();
    load.start();
    expect(load.cost(0)).toBe(90);
    load.finish(0, 0);
    expect(load.pending).toBe(1);
    expect(load.cost(0)).toBe(60);
  });

  test('a penalty outweighs a fast failure', () => {
    const load = new Load(DEFAULT_PEAK_EWMA, 0);
    load.penalize(5_000, 1);
    expect(load.cost(1)).toBe(5_000);
  });
});
