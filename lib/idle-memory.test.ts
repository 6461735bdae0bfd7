import { afterEach, expect, test, vi } from 'vitest';
import { FakeClock } from './clock.ts';
import { type MemoryUser, releaseIdleMemory } from './idle-memory.ts';

const MIB = 1024 * 1024;
const original = globalThis.gc;
afterEach(() => {
  globalThis.gc = original;
});

class FakeProcess implements MemoryUser {
  cpu = 0;
  bytes = 40 * MIB;
  collections = 0;
  cpuMicroseconds = () => this.cpu;
  residentBytes = () => this.bytes;
  collect = () => {
    this.collections++;
    this.cpu += 30_000;
    this.bytes = 20 * MIB;
  };
}

function setUp() {
  const clock = new FakeClock();
  const process = new FakeProcess();
  releaseIdleMemory(clock, process);
  return { clock, process };
}

test('what the start left is given back once', () => {
  const { clock, process } = setUp();
  clock.advance(1_999);
  expect(process.collections).toBe(0);
  clock.advance(1);
  expect(process.collections).toBe(1);
  clock.advance(600_000);
  expect(process.collections).toBe(1);
});

test('a process at work is left alone until it is quiet', () => {
  const { clock, process } = setUp();
  for (let second = 0; second < 60; second++) {
    process.cpu += 15_000;
    clock.advance(1_000);
  }
  expect(process.collections).toBe(0);
  clock.advance(4_000);
  expect(process.collections).toBe(1);
});

test('a burst is given back when it is over; little growth stays', () => {
  const { clock, process } = setUp();
  clock.advance(2_000);
  process.bytes += 2 * MIB;
  clock.advance(60_000);
  expect(process.collections).toBe(1);
  process.bytes = 90 * MIB;
  process.cpu += 3_000_000;
  clock.advance(2_000);
  expect(process.collections).toBe(1);
  clock.advance(2_000);
  expect(process.collections).toBe(2);
  expect(process.bytes).toBe(20 * MIB);
});

test('the real process collects all there is', () => {
  const collect = vi.fn();
  globalThis.gc = collect as unknown as typeof globalThis.gc;
  const clock = new FakeClock();
  releaseIdleMemory(clock);
  clock.advance(2_000);
  expect(collect).toHaveBeenCalledExactlyOnceWith({ type: 'major', execution: 'sync', flavor: 'last-resort' });
});

test('finds the collector where it is not given by a flag', () => {
  globalThis.gc = undefined;
  const clock = new FakeClock();
  releaseIdleMemory(clock);
  expect(() => clock.advance(2_000)).not.toThrow();
});
