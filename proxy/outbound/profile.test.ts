import { describe, expect, test } from 'vitest';
import type { DestinationProfile, RequestMatch, ResponseMatch } from '#api/gen/destination.ts';
import { requestHead } from '../policy/testing.ts';
import { isRouting, type Profile, translateProfile } from './profile.ts';
import { duration } from './testing.ts';

const path = (regex: string): RequestMatch => ({ match: { $case: 'path', value: { regex } } });
const method = (value: 0 | 1): RequestMatch => ({
  match: { $case: 'method', value: { type: { $case: 'registered', value } } },
});
const status = (min: number, max: number): ResponseMatch => ({ match: { $case: 'status', value: { min, max } } });

function profile(part: Partial<DestinationProfile> = {}): Profile {
  return translateProfile({
    routes: [],
    retryBudget: undefined,
    dstOverrides: [],
    opaqueProtocol: false,
    fullyQualifiedName: 'web.shop.svc.cluster.local',
    endpoint: undefined,
    parentRef: undefined,
    profileRef: undefined,
    ...part,
  });
}

function matches(condition: RequestMatch, request: Parameters<typeof requestHead>[0]): boolean {
  const { routes } = profile({
    routes: [{ condition, responseClasses: [], metricsLabels: {}, isRetryable: false, timeout: undefined }],
  });
  return routes[0]!.matches(requestHead(request));
}

describe('request conditions', () => {
  test.each([
    ['the whole path', path('/users/\\d+'), { path: '/users/7' }, true],
    ['not a part of it', path('/users'), { path: '/users/7' }, false],
    ['without the query', path('/users'), { path: '/users?id=7' }, true],
    ['method', method(1), { method: 'POST' }, true],
    ['another method', method(1), { method: 'GET' }, false],
    ['all', { match: { $case: 'all', value: { matches: [path('/a'), method(0)] } } }, { path: '/a' }, true],
    ['all but one', { match: { $case: 'all', value: { matches: [path('/b'), method(0)] } } }, { path: '/a' }, false],
    ['any', { match: { $case: 'any', value: { matches: [path('/b'), method(0)] } } }, { path: '/a' }, true],
    ['not', { match: { $case: 'not', value: path('/a') } }, { path: '/a' }, false],
  ] as [string, RequestMatch, Parameters<typeof requestHead>[0], boolean][])(
    '%s',
    (_name, condition, request, expected) => {
      expect(matches(condition, request)).toBe(expected);
    },
  );
});

test('the first response class that matches decides', () => {
  const { routes } = profile({
    routes: [
      {
        condition: path('/.*'),
        responseClasses: [
          { condition: status(503, 0), isFailure: false },
          { condition: { match: { $case: 'not', value: status(200, 499) } }, isFailure: true },
        ],
        metricsLabels: { route: 'all' },
        isRetryable: true,
        timeout: duration(250),
      },
    ],
  });
  const [route] = routes;
  expect([route!.classes(503), route!.classes(500), route!.classes(404)]).toEqual(['success', 'failure', null]);
  expect(route).toMatchObject({ isRetryable: true, timeoutMs: 250, labels: { route: 'all' } });
});

test('the budget is Linkerd\u2019s unless the profile says otherwise', () => {
  expect(profile().budget).toEqual({ retryRatio: 0.2, minRetriesPerSecond: 10, ttlMs: 10_000 });
  const retryBudget = { retryRatio: Number.NaN, minRetriesPerSecond: 5, ttl: undefined };
  expect(profile({ retryBudget }).budget).toEqual({ retryRatio: 0, minRetriesPerSecond: 5, ttlMs: 10_000 });
});

describe('who routes', () => {
  test('an implicit profile leaves that to the policy', () => {
    expect(isRouting(profile())).toBe(false);
  });

  test('overrides are routing; those without weight are none', () => {
    const override = (weight: number) => ({
      authority: 'web-v2.shop.svc.cluster.local',
      weight,
      backendRef: undefined,
    });
    expect(isRouting(profile({ dstOverrides: [override(0)] }))).toBe(false);
    const { overrides } = profile({ dstOverrides: [override(0), override(10)] });
    expect(overrides.map(({ weight }) => weight)).toEqual([10]);
  });

  test('a profile that cannot be understood takes the requests, to refuse them', () => {
    const broken = profile({
      routes: [
        { condition: undefined, responseClasses: [], metricsLabels: {}, isRetryable: false, timeout: undefined },
      ],
    });
    expect(isRouting(broken)).toBe(true);
    expect(broken.invalidReason).toContain('expected all, any, not, path or method');
  });
});
