import { describe, expect, test } from 'vitest';
import { applyFilters, type HttpFilter } from './filters.ts';
import { fieldsOf, requestHead } from './testing.ts';

const never = () => 1 - Number.EPSILON;

describe('header filters', () => {
  test('add, then set, then remove', () => {
    const request = requestHead({}, [
      ['keep', '1'],
      ['x', 'old'],
      ['gone', '1'],
    ]);
    const filter: HttpFilter = {
      kind: 'request-headers',
      add: [
        { name: 'keep', value: '2' },
        { name: 'x', value: 'added' },
      ],
      set: [{ name: 'x', value: 'set' }],
      remove: ['gone'],
    };
    expect(applyFilters([filter], request, null, never)).toBeNull();
    expect(fieldsOf(request.headers)).toEqual([
      ['keep', '1'],
      ['keep', '2'],
      ['x', 'set'],
    ]);
  });
});

describe('redirects', () => {
  const redirect = (part: Partial<Extract<HttpFilter, { kind: 'redirect' }>>): HttpFilter => ({
    kind: 'redirect',
    scheme: null,
    host: null,
    port: null,
    path: null,
    status: 301,
    ...part,
  });
  const request = (path: string) => requestHead({ path, authority: 'app.example:8080' });

  test.each<[string, HttpFilter, string, number | null, string | null]>([
    ['scheme', redirect({ scheme: 'https' }), '/a?q=1', null, 'https://app.example:8080/a?q=1'],
    ['host keeps the port', redirect({ host: 'other' }), '/a', null, 'http://other:8080/a'],
    ['port keeps the host', redirect({ port: 81 }), '/a', null, 'http://app.example:81/a'],
    ['host and port', redirect({ host: 'o', port: 1 }), '/a', null, 'http://o:1/a'],
    [
      'full path keeps the query',
      redirect({ path: { kind: 'full', path: '/b' } }),
      '/a/c?q=1',
      2,
      'http://app.example:8080/b?q=1',
    ],
    ['prefix', redirect({ path: { kind: 'prefix', path: '/b' } }), '/a/c?q=1', 2, 'http://app.example:8080/b/c?q=1'],
    [
      'prefix with slashes',
      redirect({ path: { kind: 'prefix', path: '/b/' } }),
      '/a/c',
      3,
      'http://app.example:8080/b/c',
    ],
    ['prefix that is all', redirect({ path: { kind: 'prefix', path: '/b' } }), '/a', 2, 'http://app.example:8080/b'],
    ['prefix by nothing', redirect({ path: { kind: 'prefix', path: '/' } }), '/a/c', 2, 'http://app.example:8080/c'],
    ['itself', redirect({ host: 'app.example' }), '/a', null, null],
  ])('%s', (_name, filter, path, prefixLength, location) => {
    const answer = applyFilters([filter], request(path), prefixLength, never);
    expect(answer).toEqual(location === null ? null : { kind: 'redirect', status: 301, location });
  });

  test('a prefix without a prefix match is a fault', () => {
    const filter = redirect({ path: { kind: 'prefix', path: '/b' } });
    expect(applyFilters([filter], request('/a'), null, never)?.kind).toBe('invalid');
  });
});

describe('failures on purpose', () => {
  const failure = (ratio: { numerator: number; denominator: number } | null): HttpFilter => ({
    kind: 'http-failure',
    status: 503,
    message: 'chaos',
    ratio,
  });

  test.each([
    [null, 0.999, true],
    [{ numerator: 1, denominator: 4 }, 0.24, true],
    [{ numerator: 1, denominator: 4 }, 0.25, false],
    [{ numerator: 0, denominator: 4 }, 0, false],
  ])('%o at %d: %s', (ratio, random, isHit) => {
    const answer = applyFilters([failure(ratio)], requestHead(), null, () => random);
    expect(answer).toEqual(isHit ? { kind: 'http-failure', status: 503, message: 'chaos' } : null);
  });

  test('end the chain', () => {
    const request = requestHead();
    const filters: HttpFilter[] = [
      { kind: 'grpc-failure', code: 14, message: 'no', ratio: null },
      { kind: 'request-headers', add: [{ name: 'x', value: '1' }], set: [], remove: [] },
    ];
    expect(applyFilters(filters, request, null, never)).toEqual({ kind: 'grpc-failure', code: 14, message: 'no' });
    expect(request.headers.has('x')).toBe(false);
  });
});
