import { describe, expect, test } from 'vitest';
import { requestHead } from '../policy/testing.ts';
import { takeOverrides } from './override-headers.ts';
import { type HttpRule, NO_FILTERS, NO_TIMEOUTS } from './policy.ts';

describe('takeOverrides', () => {
  const rule: HttpRule = {
    matches: [],
    filters: NO_FILTERS,
    distribution: { kind: 'first', backends: [] },
    timeouts: NO_TIMEOUTS,
    retry: null,
    allowsOverrides: true,
  };
  const take = (...fields: [string, string][]) => {
    const { headers } = requestHead({}, fields);
    return { overrides: takeOverrides(rule, headers), left: headers.length };
  };

  test('nothing asked, nothing changed', () => {
    expect(take(['accept', '*/*'])).toEqual({ overrides: null, left: 1 });
  });

  test('statuses, codes, limits and durations', () => {
    const { overrides, left } = take(
      ['l5d-retry-http', '5xx, 429,502-504'],
      ['l5d-retry-grpc', 'cancelled, unavailable'],
      ['l5d-retry-limit', '3'],
      ['l5d-retry-timeout', '250ms'],
      ['l5d-timeout', '10s'],
      ['l5d-response-timeout', '1m'],
    );
    expect(left).toBe(0);
    expect(overrides?.retry).toMatchObject({
      statuses: [
        [500, 599],
        [429, 429],
        [502, 504],
      ],
      maxRetries: 3,
      perTryMs: 250,
    });
    expect([...overrides!.retry!.grpcCodes]).toEqual([1, 14]);
    expect(overrides?.timeouts).toEqual({ requestMs: 10_000, responseMs: 60_000, idleMs: null });
  });

  test('what cannot be read is removed and changes nothing', () => {
    const { overrides, left } = take(['l5d-retry-http', 'often'], ['l5d-timeout', 'soon'], ['l5d-retry-limit', '-1']);
    expect(left).toBe(0);
    expect(overrides).toEqual({ retry: null, timeouts: NO_TIMEOUTS });
  });
});
