// One replica is slow, later one flaps: how much traffic do they get, and what does the tail look like, beside round
// robin? Seeded; a failing seed can be run again.

import { expect, test } from 'vitest';
import type { Clock } from '#lib/clock.ts';
import { Balancer } from './balancer.ts';
import { Load } from './load.ts';
import { pickP2c } from './p2c.ts';
import { DEFAULT_PEAK_EWMA } from './peak-ewma.ts';
import { seededRandom } from './seeded-random.ts';

interface Replica {
  name: string;
  load: Load;
  cost(nowMs: number): number;
  /** Milliseconds of service at this time. */
  service(nowMs: number): number;
}

interface Outcome {
  share: Map<string, number>;
  p50Ms: number;
  p99Ms: number;
}

const REQUESTS = 120_000;
const EVERY_MS = 2;
const SEED = Number(process.env.HEDDLE_SEED ?? 20_260_801);

/** Open loop: a request every two milliseconds; each replica answers in its service time whatever its load. */
function simulate(replicas: Replica[], choose: (nowMs: number, index: number) => Replica): Outcome {
  const ends: { atMs: number; startedMs: number; replica: Replica }[] = [];
  const counts = new Map<string, number>(replicas.map(({ name }) => [name, 0]));
  const latencies: number[] = [];
  for (let index = 0; index < REQUESTS; index++) {
    const nowMs = index * EVERY_MS;
    ends.sort((a, b) => a.atMs - b.atMs);
    while (ends[0] && ends[0].atMs <= nowMs) {
      const { atMs, startedMs, replica } = ends.shift()!;
      replica.load.finish(startedMs, atMs);
    }
    const replica = choose(nowMs, index);
    const serviceMs = replica.service(nowMs);
    replica.load.start();
    ends.push({ atMs: nowMs + serviceMs, startedMs: nowMs, replica });
    counts.set(replica.name, counts.get(replica.name)! + 1);
    latencies.push(serviceMs);
  }
  latencies.sort((a, b) => a - b);
  return {
    share: new Map([...counts].map(([name, count]) => [name, count / REQUESTS])),
    p50Ms: latencies[REQUESTS * 0.5]!,
    p99Ms: latencies[REQUESTS * 0.99]!,
  };
}

function fleet(random: () => number, slow: (nowMs: number) => number): Replica[] {
  return Array.from({ length: 5 }, (_, index) => {
    const load = new Load(DEFAULT_PEAK_EWMA, 0);
    const base = index === 0 ? slow : () => 5;
    return {
      name: index === 0 ? 'slow' : `fast-${index}`,
      load,
      cost: (nowMs: number) => load.cost(nowMs),
      service: (nowMs: number) => base(nowMs) * (0.8 + 0.4 * random()),
    };
  });
}

function compare(title: string, slow: (nowMs: number) => number): { p2c: Outcome; roundRobin: Outcome } {
  const random = seededRandom(SEED);
  const balanced = fleet(random, slow);
  const p2c = simulate(balanced, (nowMs) => pickP2c(balanced, nowMs, random)!);
  const rotated = fleet(random, slow);
  const roundRobin = simulate(rotated, (_nowMs, index) => rotated[index % rotated.length]!);
  const row = (name: string, { share, p50Ms, p99Ms }: Outcome) =>
    `${name.padEnd(12)} share of the slow one ${(share.get('slow')! * 100).toFixed(1)} %, p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms`;
  process.stdout.write(`${title} (seed ${SEED})\n  ${row('peak-EWMA', p2c)}\n  ${row('round robin', roundRobin)}\n`);
  return { p2c, roundRobin };
}

test('a replica twenty times slower gets next to nothing', () => {
  const { p2c, roundRobin } = compare('slow replica', () => 100);
  expect(roundRobin.share.get('slow')).toBeCloseTo(0.2, 3);
  expect(p2c.share.get('slow')).toBeLessThan(0.03);
  expect(p2c.share.get('slow')).toBeGreaterThan(0);
  expect(p2c.p99Ms).toBeLessThan(roundRobin.p99Ms);
});

test('a replica that stalls for ten seconds every two minutes is left alone meanwhile and comes back', () => {
  const { p2c, roundRobin } = compare('flapping replica', (nowMs) => (nowMs % 120_000 < 10_000 ? 500 : 5));
  expect(p2c.p99Ms).toBeLessThan(roundRobin.p99Ms);
  expect(p2c.share.get('slow')).toBeGreaterThan(0.05);
});

test('an endpoint that arrives soon has its share, one that leaves gets nothing more', () => {
  const random = seededRandom(SEED);
  const replicas = fleet(random, () => 5);
  let nowMs = 0;
  const clock: Clock = { nowMs: () => nowMs, wallMs: () => nowMs, after: () => ({ cancel: () => {} }) };
  const balancer = new Balancer<Replica>({
    clock,
    random,
    queueMax: 1,
    failfastMs: 3_000,
    name: 'simulated',
    observer: { endpoints: () => {}, queueLength: () => {}, dequeued: () => {}, gate: () => {} },
  });
  const [leaving, arriving, ...staying] = replicas as [Replica, Replica, ...Replica[]];
  for (const replica of [leaving, ...staying]) balancer.insert(replica, true);
  const changeAt = REQUESTS / 2;
  const shares = new Map<string, number>();
  simulate(replicas, (atMs, index) => {
    nowMs = atMs;
    if (index === changeAt) {
      balancer.insert(arriving, true);
      balancer.remove(leaving);
    }
    const replica = balancer.pick()!;
    const when = index < changeAt ? 'before' : index < changeAt + 1_000 ? 'at once' : 'after';
    const key = `${replica.name} ${when}`;
    shares.set(key, (shares.get(key) ?? 0) + 1);
    return replica;
  });
  const share = (replica: Replica, when: string, of: number) => (shares.get(`${replica.name} ${when}`) ?? 0) / of;
  process.stdout.write(
    `arriving endpoint (seed ${SEED})\n  share of the first 1,000 requests ${(share(arriving, 'at once', 1_000) * 100).toFixed(1)} %, then ${(share(arriving, 'after', changeAt - 1_000) * 100).toFixed(1)} %; even would be 25 %\n`,
  );
  expect(share(arriving, 'after', changeAt - 1_000)).toBeCloseTo(0.25, 1);
  expect([share(leaving, 'at once', 1_000), share(leaving, 'after', 1)]).toEqual([0, 0]);
  expect(share(leaving, 'before', changeAt)).toBeCloseTo(0.25, 1);
});

test('equal replicas share equally', () => {
  const { p2c } = compare('equal replicas', () => 5);
  for (const share of p2c.share.values()) expect(share).toBeGreaterThan(0.15);
});
