// Durations as people write them: `24h`, `10s`, `1m30s`, `250ms` (Go's notation, which Kubernetes users know).

import { HeddleError } from './errors.ts';

const UNIT_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const PART = /(\d+(?:\.\d+)?)(ms|s|m|h|d)/gy;

/** Milliseconds. Throws `bad-duration` for anything but numbers with units ms, s, m, h or d. */
export function parseDuration(text: string): number {
  let totalMs = 0;
  let end = 0;
  PART.lastIndex = 0;
  for (let match = PART.exec(text); match; match = PART.exec(text)) {
    totalMs += Number(match[1]) * UNIT_MS[match[2]!]!;
    end = PART.lastIndex;
  }
  if (end === 0 || end !== text.length || !Number.isSafeInteger(Math.round(totalMs))) {
    throw new HeddleError(
      'bad-duration',
      `read the duration "${text}": expected a number with a unit, such as 24h or 10s`,
    );
  }
  return Math.round(totalMs);
}
