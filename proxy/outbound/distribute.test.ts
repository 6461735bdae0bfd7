import { describe, expect, test } from 'vitest';
import { seededRandom } from '../balance/seeded-random.ts';
import { choose } from './distribute.ts';

describe('choose', () => {
  const choice = (name: string, weight: number, isUp = true) => ({ name, weight, isAvailable: () => isUp });
  const shares = (kind: 'first' | 'random', choices: ReturnType<typeof choice>[]) => {
    const random = seededRandom(5);
    const counts: Record<string, number> = {};
    for (let draw = 0; draw < 10_000; draw++) {
      const { name } = choose(kind, choices, random)!;
      counts[name] = (counts[name] ?? 0) + 1;
    }
    return counts;
  };

  test('first: the first available one', () => {
    expect(shares('first', [choice('a', 1, false), choice('b', 1), choice('c', 1)])).toEqual({ b: 10_000 });
  });

  test('random: by weight', () => {
    const { a, b } = shares('random', [choice('a', 9), choice('b', 1)]) as { a: number; b: number };
    expect(a / (a + b)).toBeCloseTo(0.9, 1);
  });

  test('random: those that are not available get nothing', () => {
    expect(Object.keys(shares('random', [choice('a', 9, false), choice('b', 1)]))).toEqual(['b']);
  });

  test('with none available one is chosen, with none at all none', () => {
    expect(Object.keys(shares('random', [choice('a', 1, false), choice('b', 1, false)])).sort()).toEqual(['a', 'b']);
    expect(choose('random', [], Math.random)).toBeNull();
    expect(choose('first', [], Math.random)).toBeNull();
  });
});
