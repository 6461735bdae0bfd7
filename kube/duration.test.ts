import { expect, test } from 'vitest';
import { parseDurationMs } from './duration.ts';

test.each([
  ['0', 0],
  ['0s', 0],
  ['100ms', 100],
  ['1.5s', 1500],
  ['.5s', 500],
  ['1h30m', 5_400_000],
  ['1h2m3s4ms', 3_723_004],
  ['250us', 0.25],
])('%s', (text, ms) => expect(parseDurationMs(text)).toBe(ms));

test.each(['', '5', '-1s', 's', '1 s', '1d', '1s2', '1..5s', 'Infinitys', '9e9h', '99999999999999999h'])(
  '"%s" is none',
  (text) => expect(parseDurationMs(text)).toBeNull(),
);
