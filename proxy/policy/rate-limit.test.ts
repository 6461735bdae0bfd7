import { describe, expect, test } from 'vitest';
import { type RateLimitRules, RateLimits } from './rate-limit.ts';

const ref = { group: 'policy.linkerd.io', kind: 'httplocalratelimitpolicy', name: 'limit' };
const limits = (rules: Partial<RateLimitRules>, cellsMax?: number) =>
  new RateLimits(ref, { totalPerSecond: 0, identityPerSecond: 0, overrides: [], ...rules }, cellsMax);

/** How many of `count` requests pass when they all come at `nowMs`. */
function passed(limit: RateLimits, identity: string | null, count: number, nowMs: number): number {
  let taken = 0;
  for (let index = 0; index < count; index++) if (limit.take(identity, nowMs) === null) taken++;
  return taken;
}

describe('rate limits', () => {
  test('admit a burst of the rate, then one each interval', () => {
    const limit = limits({ totalPerSecond: 10 });
    expect(passed(limit, null, 50, 1000)).toBe(10);
    expect(passed(limit, null, 50, 1099)).toBe(0);
    expect(passed(limit, null, 50, 1100)).toBe(1);
    expect(passed(limit, null, 50, 1350)).toBe(2);
    expect(passed(limit, null, 50, 9000)).toBe(10);
  });

  test.each([1, 3, 7, 60, 997])('let a steady %i per second pass and refuse the one above it', (perSecond) => {
    const limit = limits({ totalPerSecond: perSecond });
    for (let index = 0; index < 3 * perSecond; index++) {
      expect(limit.take(null, (index * 1000) / perSecond)).toBeNull();
    }
    expect(passed(limit, null, 3 * perSecond, 3000)).toBeLessThanOrEqual(perSecond);
  });

  test('count each identity by itself, and those without one together', () => {
    const limit = limits({ identityPerSecond: 2 });
    expect([passed(limit, 'a', 9, 0), passed(limit, 'b', 9, 0), passed(limit, null, 9, 0)]).toEqual([2, 2, 2]);
    expect(limit.take(null, 0)).toBe('identity');
  });

  test('say which limit refused, the total first', () => {
    const limit = limits({ totalPerSecond: 3, identityPerSecond: 2 });
    expect([0, 0, 0, 0, 0].map((nowMs) => limit.take('a', nowMs))).toEqual([null, null, 'identity', 'total', 'total']);
  });

  test('put an override in the place of the identity limit, one cell for those it names', () => {
    const overrides = [{ perSecond: 5, identities: new Set(['a', 'b']) }];
    const limit = limits({ identityPerSecond: 1, overrides });
    expect([passed(limit, 'a', 3, 0), passed(limit, 'b', 9, 0), passed(limit, 'c', 9, 0)]).toEqual([3, 2, 1]);
    expect(limit.take('a', 0)).toBe('identity');
  });

  test('do nothing where no limit is set', () => {
    expect(passed(limits({}), 'a', 1000, 0)).toBe(1000);
  });

  test('keep a bounded number of cells, forgetting full ones first', () => {
    const limit = limits({ identityPerSecond: 1 }, 2);
    expect(limit.take('old', 0)).toBeNull();
    expect(limit.take('busy', 5000)).toBeNull();
    expect(limit.take('new', 5000)).toBeNull();
    expect(limit.take('busy', 5000)).toBe('identity');
  });
});
