import { expect, test } from 'vitest';
import { RepairPacer } from './repair-pacer.ts';

const pace = { freeRepairs: 3, windowMs: 10_000, minMs: 1_000, maxMs: 8_000 };

test('the first repairs are free, then each waits twice as long as the one before, up to the bound', () => {
  const pacer = new RepairPacer(pace, () => 0);
  let nowMs = 0;
  const waits: number[] = [];
  for (let i = 0; i < 9; i++) {
    const waitMs = pacer.waitMs(nowMs);
    waits.push(waitMs);
    nowMs += waitMs;
    pacer.repaired(nowMs);
    nowMs += 10;
  }
  expect(waits).toEqual([0, 0, 0, 990, 1_990, 3_990, 7_990, 7_990, 7_990]);
});

test('repairs now and then are no war', () => {
  const pacer = new RepairPacer(pace, () => 0);
  for (let nowMs = 0; nowMs < 100_000; nowMs += 5_000) {
    expect(pacer.waitMs(nowMs)).toBe(0);
    pacer.repaired(nowMs);
  }
});

test('a delay longer than the window does not end the war by itself; quiet does, and the next war starts small', () => {
  const pacer = new RepairPacer({ ...pace, windowMs: 2_000 }, () => 0);
  let nowMs = 0;
  for (let i = 0; i < 8; i++) {
    nowMs += pacer.waitMs(nowMs);
    pacer.repaired(nowMs);
  }
  expect(pacer.waitMs(nowMs)).toBe(8_000);
  expect(pacer.isWar(nowMs + 8_000)).toBe(true);
  nowMs += 17_000;
  expect(pacer.isWar(nowMs)).toBe(false);
  for (let i = 0; i < 3; i++) {
    expect(pacer.waitMs(nowMs)).toBe(0);
    pacer.repaired(nowMs);
  }
  expect(pacer.waitMs(nowMs)).toBe(1_000);
});
