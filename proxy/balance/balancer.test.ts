import { describe, expect, test } from 'vitest';
import { FakeClock } from '#lib/clock.ts';
import { Balancer, type Waiter } from './balancer.ts';
import { seededRandom } from './seeded-random.ts';

interface Member {
  name: string;
  cost(): number;
}

const member = (name: string, cost = 1): Member => ({ name, cost: () => cost });

function setUp({ queueMax = 10_000, failfastMs = 3_000 } = {}) {
  const clock = new FakeClock();
  const events: string[] = [];
  const balancer = new Balancer<Member>({
    clock,
    random: seededRandom(3),
    queueMax,
    failfastMs,
    name: 'logical service web:80',
    observer: {
      endpoints: (ready, pending) => events.push(`endpoints ${ready}+${pending}`),
      queueLength: () => {},
      dequeued: (waitMs) => events.push(`dequeued after ${waitMs}`),
      gate: (isOpen) => events.push(isOpen ? 'gate open' : 'gate shut'),
    },
  });
  const results: string[] = [];
  const wait = (name: string): Waiter<Member> & { refused: string | null } => {
    const waiter = {
      refused: null as string | null,
      ready: (chosen: Member) => results.push(`${name} -> ${chosen.name}`),
      fail: (error: Error & { code?: string }) => results.push(`${name} failed: ${error.code}`),
    };
    waiter.refused = balancer.wait(waiter)?.code ?? null;
    return waiter;
  };
  return { clock, events, balancer, results, wait };
}

describe('Balancer', () => {
  test('requests wait for the first ready member and are served in order', () => {
    const { clock, balancer, results, events, wait } = setUp();
    const a = member('a');
    balancer.insert(a, false);
    expect(balancer.pick()).toBeNull();
    wait('one');
    wait('two');
    clock.advance(500);
    balancer.setReady(a, true);
    expect(results).toEqual(['one -> a', 'two -> a']);
    expect(events).toContain('dequeued after 500');
    expect(balancer.pick()).toBe(a);
    clock.advance(10_000);
    expect(balancer.isAvailable).toBe(true);
  });

  test('fail-fast after the time limit: the queue and new requests fail until a member is ready', () => {
    const { clock, balancer, results, events, wait } = setUp();
    const a = member('a');
    balancer.insert(a, false);
    wait('one');
    clock.advance(2_000);
    wait('two');
    clock.advance(999);
    expect(results).toEqual([]);
    clock.advance(1);
    expect(results).toEqual(['one failed: failfast', 'two failed: failfast']);
    expect(balancer.isAvailable).toBe(false);
    expect(wait('three').refused).toBe('failfast');
    balancer.setReady(a, true);
    expect(balancer.isAvailable).toBe(true);
    expect(balancer.pick()).toBe(a);
    expect(events.filter((event) => event.startsWith('gate'))).toEqual(['gate shut', 'gate open']);
  });

  test('an empty set takes the same path', () => {
    const { clock, results, wait } = setUp();
    wait('one');
    clock.advance(3_000);
    expect(results).toEqual(['one failed: failfast']);
  });

  test('the time limit starts anew after the queue emptied by itself', () => {
    const { clock, balancer, results, wait } = setUp();
    balancer.cancel(wait('gives up'));
    clock.advance(2_900);
    wait('one');
    clock.advance(2_900);
    expect(results).toEqual([]);
    clock.advance(100);
    expect(results).toEqual(['one failed: failfast']);
  });

  test('the queue is bounded', () => {
    const { wait } = setUp({ queueMax: 2 });
    expect(wait('one').refused).toBeNull();
    expect(wait('two').refused).toBeNull();
    expect(wait('three').refused).toBe('load-shed');
  });

  test('a member that takes one request only serves one waiter', () => {
    const { balancer, results } = setUp();
    const a = member('a');
    balancer.insert(a, false);
    for (const name of ['one', 'two']) {
      balancer.wait({
        ready: (chosen) => {
          results.push(`${name} -> ${chosen.name}`);
          balancer.setReady(chosen, false);
        },
        fail: () => results.push(`${name} failed`),
      });
    }
    balancer.setReady(a, true);
    expect(results).toEqual(['one -> a']);
    balancer.setReady(a, true);
    expect(results).toEqual(['one -> a', 'two -> a']);
  });

  test('the time limit runs from when the last ready member went away', () => {
    const { clock, balancer, results } = setUp();
    const a = member('a');
    balancer.insert(a, false);
    balancer.wait({ ready: () => balancer.setReady(a, false), fail: () => {} });
    balancer.wait({ ready: () => results.push('served'), fail: () => results.push('failed') });
    clock.advance(2_000);
    balancer.setReady(a, true);
    clock.advance(2_999);
    expect(results).toEqual([]);
    clock.advance(1);
    expect(results).toEqual(['failed']);
  });

  test('removal keeps the others reachable', () => {
    const { balancer, events } = setUp();
    const members = ['a', 'b', 'c'].map((name) => member(name));
    for (const each of members) balancer.insert(each, true);
    balancer.remove(members[0]!);
    const seen = new Set(Array.from({ length: 50 }, () => balancer.pick()!.name));
    expect(seen).toEqual(new Set(['b', 'c']));
    expect(events.at(-1)).toBe('endpoints 2+0');
  });

  test('picks another one than the one that just failed', () => {
    const { balancer } = setUp();
    const [a, b] = [member('a', 1), member('b', 100)];
    balancer.insert(a, true);
    expect(balancer.pick(a)).toBeNull();
    balancer.insert(b, true);
    expect(balancer.pick(a)).toBe(b);
  });
});
