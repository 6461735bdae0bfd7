import { describe, expect, test } from 'vitest';
import { KeyedLock } from './keyed-lock.ts';

describe('keyed lock', () => {
  test('runs one at a time for each key, in order, and other keys meanwhile', async () => {
    const lock = new KeyedLock();
    const log: string[] = [];
    const gate = Promise.withResolvers<void>();
    const first = lock.run('a', async () => {
      log.push('a1 begins');
      await gate.promise;
      log.push('a1 ends');
      throw new Error('a1 failed');
    });
    const second = lock.run('a', async () => {
      log.push('a2');
      return 2;
    });
    await lock.run('b', async () => {
      log.push('b');
    });
    gate.resolve();
    await expect(first).rejects.toThrow('a1 failed');
    expect(await second).toBe(2);
    expect(log).toEqual(['a1 begins', 'b', 'a1 ends', 'a2']);
  });
});
