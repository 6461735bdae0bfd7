import { describe, expect, test } from 'vitest';
import { Breaker, type BreakerOptions } from './breaker.ts';

const options: BreakerOptions = {
  maxFailures: 3,
  backoff: { minMs: 1_000, maxMs: 4_000, jitter: 0 },
  respectRetryAfter: false,
  successRate: null,
};

function failures(breaker: Breaker, count: number, nowMs: number): void {
  for (let index = 0; index < count; index++) breaker.onOutcome('failure', breaker.onDispatch(), nowMs);
}

describe('consecutive failures', () => {
  test('shut the gate; one probe decides; the back-off doubles up to its maximum', () => {
    const breaker = new Breaker(options, () => 0);
    failures(breaker, 2, 0);
    expect(breaker.isReady).toBe(true);
    failures(breaker, 1, 0);
    expect(breaker.isReady).toBe(false);
    let nowMs = 0;
    for (const backoffMs of [1_000, 2_000, 4_000, 4_000]) {
      expect(breaker.nextDeadlineMs()).toBe(nowMs + backoffMs);
      expect(breaker.onDeadline(nowMs + backoffMs - 1)).toBe(false);
      nowMs += backoffMs;
      expect(breaker.onDeadline(nowMs)).toBe(true);
      expect(breaker.isReady).toBe(true);
      expect(breaker.onDispatch()).toBe(true);
      expect(breaker.isReady).toBe(false);
      expect(breaker.onDispatch()).toBe(false);
      expect(breaker.onOutcome('failure', true, nowMs)).toBe(true);
    }
    nowMs += 4_000;
    breaker.onDeadline(nowMs);
    expect(breaker.onDispatch()).toBe(true);
    expect(breaker.onOutcome('success', true, nowMs)).toBe(true);
    expect(breaker.isReady).toBe(true);
    failures(breaker, 3, nowMs);
    expect(breaker.nextDeadlineMs()).toBe(nowMs + 1_000);
  });

  test('a success in between starts the count anew, a limited answer neither counts nor resets', () => {
    const breaker = new Breaker(options, () => 0);
    failures(breaker, 2, 0);
    breaker.onOutcome('success', false, 0);
    failures(breaker, 2, 0);
    breaker.onOutcome('limited', false, 0);
    expect(breaker.isReady).toBe(true);
    failures(breaker, 1, 0);
    expect(breaker.isReady).toBe(false);
  });

  test('answers of requests from before the gate shut decide nothing', () => {
    const breaker = new Breaker(options, () => 0);
    failures(breaker, 3, 0);
    expect(breaker.onOutcome('success', false, 500)).toBe(false);
    expect(breaker.isReady).toBe(false);
    breaker.onDeadline(1_000);
    breaker.onDispatch();
    expect(breaker.onOutcome('failure', false, 1_000)).toBe(false);
    expect(breaker.onOutcome('success', true, 1_000)).toBe(true);
    expect(breaker.isReady).toBe(true);
  });

  test('a probe that nobody waits for any more makes room for the next', () => {
    const breaker = new Breaker(options, () => 0);
    failures(breaker, 3, 0);
    breaker.onDeadline(1_000);
    breaker.onDispatch();
    expect(breaker.onProbeAbandoned()).toBe(true);
    expect(breaker.isReady).toBe(true);
    expect(breaker.onDispatch()).toBe(true);
  });

  test('jitter comes on top of the back-off', () => {
    const breaker = new Breaker({ ...options, backoff: { minMs: 1_000, maxMs: 4_000, jitter: 0.5 } }, () => 0.5);
    failures(breaker, 3, 0);
    expect(breaker.nextDeadlineMs()).toBe(1_250);
  });
});

describe('success rate', () => {
  const rated: BreakerOptions = {
    ...options,
    maxFailures: 100,
    successRate: { threshold: 0.8, windowMs: 10_000, minRequests: 5 },
  };

  test('shuts the gate once there are enough requests and too few succeed', () => {
    const breaker = new Breaker(rated, () => 0);
    for (const outcome of ['success', 'failure', 'success', 'limited'] as const) breaker.onOutcome(outcome, false, 0);
    expect(breaker.isReady).toBe(true);
    expect(breaker.onOutcome('success', false, 0)).toBe(true);
    expect(breaker.isReady).toBe(false);
  });

  test('at the threshold it stays open', () => {
    const breaker = new Breaker(rated, () => 0);
    for (let round = 0; round < 10; round++) {
      for (let success = 0; success < 4; success++) breaker.onOutcome('success', false, round * 100);
      breaker.onOutcome('failure', false, round * 100);
    }
    expect(breaker.isReady).toBe(true);
  });

  test('forgets what is older than the window', () => {
    const breaker = new Breaker(rated, () => 0);
    for (let index = 0; index < 4; index++) breaker.onOutcome('failure', false, 0);
    for (let index = 0; index < 5; index++) breaker.onOutcome('success', false, 10_500);
    expect(breaker.isReady).toBe(true);
    breaker.onOutcome('failure', false, 10_500);
    expect(breaker.isReady).toBe(true);
    breaker.onOutcome('failure', false, 10_500);
    expect(breaker.isReady).toBe(false);
  });

  test('the first back-off is what the server asked for, up to the maximum', () => {
    const breaker = new Breaker({ ...options, respectRetryAfter: true }, () => 0);
    failures(breaker, 2, 0);
    breaker.onOutcome('failure', false, 0, 3_000);
    expect(breaker.nextDeadlineMs()).toBe(3_000);
    const patient = new Breaker({ ...options, respectRetryAfter: true }, () => 0);
    failures(patient, 2, 0);
    patient.onOutcome('failure', false, 0, 3_600_000);
    expect(patient.nextDeadlineMs()).toBe(4_000);
  });
});
