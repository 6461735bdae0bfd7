import { afterEach, expect, test, vi } from 'vitest';
import { FakeClock } from './clock.ts';
import { releaseStartMemory } from './start-memory.ts';

const original = globalThis.gc;
afterEach(() => {
  globalThis.gc = original;
});

function setUp(connections: number[]) {
  const collect = vi.fn();
  globalThis.gc = collect as unknown as typeof globalThis.gc;
  const clock = new FakeClock();
  releaseStartMemory(clock, () => (connections.shift() ?? 0) > 0);
  return { collect, clock };
}

test('collects once, some time after the start', () => {
  const { collect, clock } = setUp([]);
  clock.advance(1_999);
  expect(collect).not.toHaveBeenCalled();
  clock.advance(100_000);
  expect(collect).toHaveBeenCalledTimes(1);
});

test('waits for a moment without connections, and gives up in the end', () => {
  const quiet = setUp([3, 1, 0]);
  quiet.clock.advance(4_000);
  expect(quiet.collect).not.toHaveBeenCalled();
  quiet.clock.advance(2_000);
  expect(quiet.collect).toHaveBeenCalledTimes(1);

  const busy = setUp([1, 1, 1, 1, 1, 1, 1]);
  busy.clock.advance(100_000);
  expect(busy.collect).not.toHaveBeenCalled();
});

test('finds the collector where it is not given by a flag', () => {
  globalThis.gc = undefined;
  const clock = new FakeClock();
  releaseStartMemory(clock, () => false);
  expect(() => clock.advance(2_000)).not.toThrow();
});
