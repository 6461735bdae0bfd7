import { describe, expect, test } from 'vitest';
import { parseDuration } from './duration.ts';

describe('a duration', () => {
  test.each([
    ['24h', 86_400_000],
    ['10s', 10_000],
    ['1m30s', 90_000],
    ['250ms', 250],
    ['1.5h', 5_400_000],
    ['365d', 31_536_000_000],
    ['0s', 0],
  ])('%s is %d ms', (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
  });

  test.each(['', '10', 's', '-1s', '10 s', '10s!', '1y', 'ms10'])('"%s" is refused', (text) => {
    expect(() => parseDuration(text)).toThrow(expect.objectContaining({ code: 'bad-duration' }));
  });
});
