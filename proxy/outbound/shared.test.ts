import { describe, expect, test } from 'vitest';
import { FakeClock } from '#lib/clock.ts';
import { Shared } from './shared.ts';

describe('Shared', () => {
  test('closes a while after the last owner left, unless somebody comes back', () => {
    const clock = new FakeClock();
    const shared = new Shared<{ name: string; close(): void }>(clock, () => 5_000);
    const closed: string[] = [];
    const make = (name: string) => () => ({ name, close: () => closed.push(name) });
    const first = shared.acquire('a', make('one'));
    const second = shared.acquire('a', make('two'));
    expect(second.value.name).toBe('one');
    first.release();
    first.release();
    clock.advance(60_000);
    expect(closed).toEqual([]);
    second.release();
    clock.advance(4_999);
    const third = shared.acquire('a', make('three'));
    expect(third.value.name).toBe('one');
    clock.advance(60_000);
    third.release();
    clock.advance(5_000);
    expect(closed).toEqual(['one']);
    expect(shared.size).toBe(0);
  });
});
