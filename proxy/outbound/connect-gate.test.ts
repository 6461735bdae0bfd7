import { describe, expect, test } from 'vitest';
import { ConnectGate } from './connect-gate.ts';

describe('ConnectGate', () => {
  const gate = () => new ConnectGate({ minMs: 100, maxMs: 400, jitter: 0 }, () => 0);

  test('failures side by side count once, and each trial decides anew', () => {
    const connect = gate();
    connect.onFailed(0);
    connect.onFailed(0);
    let nowMs = 0;
    for (const delayMs of [100, 200, 400, 400]) {
      expect(connect.isReady).toBe(false);
      expect(connect.nextDeadlineMs()).toBe(nowMs + delayMs);
      nowMs += delayMs;
      connect.onDeadline(nowMs);
      expect(connect.isReady).toBe(true);
      connect.onAttempt();
      expect(connect.isReady).toBe(false);
      connect.onFailed(nowMs);
    }
    connect.onDeadline(nowMs + 400);
    connect.onAttempt();
    connect.onConnected();
    expect(connect.isReady).toBe(true);
    connect.onFailed(nowMs);
    expect(connect.nextDeadlineMs()).toBe(nowMs + 100);
  });

  test('an attempt that was given up leaves the trial to the next', () => {
    const connect = gate();
    connect.onFailed(0);
    connect.onDeadline(100);
    connect.onAttempt();
    connect.onAborted();
    expect(connect.isReady).toBe(true);
  });
});
