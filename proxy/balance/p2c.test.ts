import { describe, expect, test } from 'vitest';
import { pickP2c } from './p2c.ts';
import { seededRandom } from './seeded-random.ts';

const member = (name: string, cost: number) => ({ name, cost: () => cost });

describe('pickP2c', () => {
  test('none and one need no dice', () => {
    const noDice = () => {
      throw new Error('asked for a random number');
    };
    expect(pickP2c([], 0, noDice)).toBeUndefined();
    expect(pickP2c([member('only', 5)], 0, noDice)?.name).toBe('only');
  });

  test('the dearest of all is never taken', () => {
    const members = [member('a', 1), member('b', 9), member('c', 2)];
    const random = seededRandom(1);
    const picks = Array.from({ length: 1_000 }, () => pickP2c(members, 0, random)!.name);
    expect(new Set(picks)).toEqual(new Set(['a', 'c']));
  });

  test('draws two different ones, and the first of two equal ones wins', () => {
    const members = [member('a', 1), member('b', 1)];
    const draws = [0, 0];
    expect(pickP2c(members, 0, () => draws.shift()!)?.name).toBe('a');
    const swapped = [0.9, 0];
    expect(pickP2c(members, 0, () => swapped.shift()!)?.name).toBe('b');
  });

  test('equal costs spread evenly', () => {
    const members = ['a', 'b', 'c', 'd'].map((name) => member(name, 1));
    const random = seededRandom(7);
    const counts: Record<string, number> = {};
    for (let draw = 0; draw < 40_000; draw++) {
      const { name } = pickP2c(members, 0, random)!;
      counts[name] = (counts[name] ?? 0) + 1;
    }
    for (const count of Object.values(counts)) expect(count).toBeGreaterThan(9_500);
    expect(Object.keys(counts)).toHaveLength(4);
  });
});
