import { expect, test } from 'vitest';
import { FakeClock } from '#lib/clock.ts';
import { type Replaceable, Rollout } from './rollout.ts';

class FakeWorker implements Replaceable {
  current: { version: string } | null = { version: 'old' };
  isUpgrading = false;
  canUpgrade = true;
  upgrades = 0;
  upgrade(): void {
    this.upgrades++;
    this.isUpgrading = true;
    this.canUpgrade = false;
  }
  done(version: string): void {
    this.current = { version };
    this.isUpgrading = false;
    this.canUpgrade = true;
  }
}

function setUp(count: number) {
  const workers = Array.from({ length: count }, () => new FakeWorker());
  const clock = new FakeClock();
  return { workers, clock, rollout: new Rollout({ workers: () => workers, version: 'new', clock }) };
}
const upgrades = (workers: FakeWorker[]) => workers.map((worker) => worker.upgrades);

test('one at a time, the next when the one before is done, and then no more looking', () => {
  const { workers, clock, rollout } = setUp(3);
  workers[1]!.done('new');
  rollout.look();
  clock.advance(10_000);
  expect(upgrades(workers)).toEqual([1, 0, 0]);
  workers[0]!.done('new');
  clock.advance(250);
  expect(upgrades(workers)).toEqual([1, 0, 1]);
  workers[2]!.done('new');
  clock.advance(10_000);
  workers[0]!.done('old');
  clock.advance(10_000);
  expect(upgrades(workers)).toEqual([1, 0, 1]);
});

test('passes over a worker that cannot be replaced now, and over a pod without one', () => {
  const { workers, clock, rollout } = setUp(3);
  workers[0]!.canUpgrade = false;
  workers[1]!.current = null;
  rollout.look();
  expect(upgrades(workers)).toEqual([0, 0, 1]);
  rollout.stop();
  workers[2]!.done('new');
  workers[0]!.canUpgrade = true;
  clock.advance(10_000);
  expect(upgrades(workers)).toEqual([0, 0, 1]);
});
