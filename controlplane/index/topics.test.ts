import { describe, expect, test } from 'vitest';
import { Topics } from './topics.ts';

function mkTopics() {
  const values = new Map<string, number>();
  let computed = 0;
  const topics = new Topics<string, { sum: number }>({
    compute: (target, depend) => {
      computed++;
      let sum = 0;
      for (const name of target.split('+')) {
        depend(name);
        sum += values.get(name) ?? 0;
        // What is negative leads on to something else.
        if (sum < 0) depend(`behind ${name}`);
      }
      return { sum };
    },
    keyOf: (target) => target,
  });
  return { topics, values, computed: () => computed };
}

describe('topics', () => {
  test('tell each subscriber of answers that differ, with a growing version', () => {
    const { topics, values } = mkTopics();
    const heard: unknown[] = [];
    const subscription = topics.subscribe('a+b', ({ sum }, version) => heard.push([sum, version]));
    expect(subscription.current).toEqual({ sum: 0 });
    values.set('a', 1);
    topics.refresh(['a', 'b']);
    topics.refresh(['a']);
    topics.refresh(['c']);
    values.set('b', 2);
    topics.refresh(['b']);
    expect(heard).toEqual([
      [1, 2],
      [3, 3],
    ]);
    expect(subscription.current).toEqual({ sum: 3 });
  });

  test('are computed once however many ask, and again only when they depend on it', () => {
    const { topics, computed } = mkTopics();
    topics.subscribe('a', () => {});
    topics.subscribe('a', () => {});
    expect(computed()).toBe(1);
    topics.refresh(['b']);
    expect(computed()).toBe(1);
    topics.refresh(['a', 'a']);
    expect(computed()).toBe(2);
  });

  test('follow dependencies as they come and go', () => {
    const { topics, values, computed } = mkTopics();
    topics.subscribe('a', () => {});
    topics.refresh(['behind a']);
    expect(computed()).toBe(1);
    values.set('a', -1);
    topics.refresh(['a']);
    topics.refresh(['behind a']);
    expect(computed()).toBe(3);
    values.set('a', 1);
    topics.refresh(['a']);
    topics.refresh(['behind a']);
    expect(computed()).toBe(4);
  });

  test('are forgotten with their last subscriber, also when it leaves while being told', () => {
    const { topics, values } = mkTopics();
    const heard: string[] = [];
    const first = topics.subscribe('a', () => {
      heard.push('first');
      first.close();
    });
    const second = topics.subscribe('a', () => heard.push('second'));
    values.set('a', 1);
    topics.refresh(['a']);
    values.set('a', 2);
    topics.refresh(['a']);
    second.close();
    second.close();
    expect(heard).toEqual(['first', 'second', 'second']);
    expect(topics.size).toBe(0);
    expect(topics.get('a')).toEqual({ sum: 2 });
    expect(topics.size).toBe(0);
  });
});
