import { describe, expect, test } from 'vitest';
import { DEFAULT_RETRY_BUDGET, RetryBudget } from './retry-budget.ts';

describe('RetryBudget', () => {
  test('the floor alone allows ten a second over the ttl', () => {
    const budget = new RetryBudget(DEFAULT_RETRY_BUDGET);
    let allowed = 0;
    for (let index = 0; index < 1_000; index++) if (budget.withdraw(0)) allowed++;
    expect(allowed).toBe(100);
  });

  test('each answered request deposits its share', () => {
    const budget = new RetryBudget({ retryRatio: 0.2, minRetriesPerSecond: 0, ttlMs: 10_000 });
    for (let index = 0; index < 4; index++) budget.deposit(0);
    expect(budget.withdraw(0)).toBe(false);
    budget.deposit(0);
    expect(budget.withdraw(0)).toBe(true);
    expect(budget.withdraw(0)).toBe(false);
  });

  test('deposits and withdrawals are forgotten after the ttl', () => {
    const budget = new RetryBudget({ retryRatio: 1, minRetriesPerSecond: 1, ttlMs: 10_000 });
    for (let index = 0; index < 10; index++) expect(budget.withdraw(0)).toBe(true);
    expect(budget.withdraw(9_000)).toBe(false);
    for (let index = 0; index < 10; index++) expect(budget.withdraw(10_000)).toBe(true);
    expect(budget.withdraw(10_000)).toBe(false);
    for (let index = 0; index < 5; index++) budget.deposit(30_000);
    for (let index = 0; index < 15; index++) expect(budget.withdraw(30_500)).toBe(true);
    expect(budget.withdraw(30_500)).toBe(false);
  });
});
