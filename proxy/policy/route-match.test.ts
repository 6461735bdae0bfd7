import { describe, expect, test } from 'vitest';
import type { RequestHead } from '../http.ts';
import { findRoute, type HostMatch, hostOf, type RequestMatch } from './route-match.ts';
import { requestHead } from './testing.ts';

interface Rule {
  name: string;
  matches: RequestMatch[];
}

const match = (part: Partial<RequestMatch>): RequestMatch => ({
  path: null,
  headers: [],
  query: [],
  method: null,
  ...part,
});
const exact = (path: string) => match({ path: { kind: 'exact', path } });
const prefix = (text: string) => match({ path: { kind: 'prefix', prefix: text } });
const regex = (source: string) => match({ path: { kind: 'regex', regex: new RegExp(`^(?:${source})$`) } });
const route = (name: string, matches: RequestMatch[], hosts: HostMatch[] = []) => ({
  hosts,
  rules: [{ name, matches }],
});
const routes = (...named: [string, ...RequestMatch[]][]) => named.map(([name, ...matches]) => route(name, matches));
const found = (all: { hosts: HostMatch[]; rules: Rule[] }[], request: RequestHead) =>
  findRoute<Rule, { hosts: HostMatch[]; rules: Rule[] }>(all, request)?.rule.name ?? null;

describe('paths', () => {
  test('one rule for everything takes every path, and nothing that is none', () => {
    const all = routes(['r', prefix('/')]);
    expect(findRoute(all, requestHead({ path: '/a?q=1' }))).toEqual({
      route: all[0],
      rule: all[0]!.rules[0],
      prefixLength: 1,
    });
    expect(findRoute(all, requestHead({ method: 'OPTIONS', path: '*' }))).toBeNull();
    expect(found(routes(['r', match({ path: { kind: 'prefix', prefix: '/' }, method: 'PUT' })]), requestHead())).toBe(
      null,
    );
    expect(found([route('r', [prefix('/')], [{ kind: 'exact', host: 'other' }])], requestHead())).toBe(null);
  });

  test.each([
    ['/a', '/a', true],
    ['/a', '/a?q=1', true],
    ['/a', '/a/b', true],
    ['/a', '/ab', false],
    ['/a/', '/a/b', true],
    ['/a/', '/a', false],
    ['/', '/anything', true],
  ])('prefix %s and %s', (text, path, isMatch) => {
    expect(found(routes(['r', prefix(text)]), requestHead({ path }))).toBe(isMatch ? 'r' : null);
  });

  test.each([
    [exact('/a'), '/a?x=1', true],
    [exact('/a'), '/a/', false],
    [regex('/v[0-9]+'), '/v12', true],
    [regex('/v[0-9]+'), '/v12/x', false],
    [regex('/v[0-9]+'), '/x/v12', false],
  ])('exact and regex take the whole path', (path, text, isMatch) => {
    expect(found(routes(['r', path]), requestHead({ path: text }))).toBe(isMatch ? 'r' : null);
  });

  test('the longest match wins, whatever its kind', () => {
    expect(found(routes(['short', prefix('/a')], ['long', prefix('/a/b')]), requestHead({ path: '/a/b/c' }))).toBe(
      'long',
    );
    expect(found(routes(['prefix', prefix('/a/b')], ['exact', exact('/a/b')]), requestHead({ path: '/a/b' }))).toBe(
      'prefix',
    );
    expect(found(routes(['prefix', prefix('/a')], ['regex', regex('/a.*')]), requestHead({ path: '/a/b' }))).toBe(
      'regex',
    );
  });
});

describe('methods, headers and queries', () => {
  test.each<[string, RequestMatch, Partial<RequestHead> & { fields?: [string, string][] }, boolean]>([
    ['method', match({ method: 'PUT' }), { method: 'PUT' }, true],
    ['other method', match({ method: 'PUT' }), { method: 'put' }, false],
    [
      'header',
      match({ headers: [{ name: 'x-a', value: { kind: 'exact', text: '1' } }] }),
      { fields: [['X-A', '1']] },
      true,
    ],
    [
      'header value',
      match({ headers: [{ name: 'x-a', value: { kind: 'exact', text: '1' } }] }),
      { fields: [['x-a', '2']] },
      false,
    ],
    [
      'second of two headers',
      match({ headers: [{ name: 'x-a', value: { kind: 'exact', text: '2' } }] }),
      {
        fields: [
          ['x-a', '1'],
          ['x-a', '2'],
        ],
      },
      true,
    ],
    [
      'header regex',
      match({ headers: [{ name: 'x-a', value: { kind: 'regex', regex: /^(?:a+)$/ } }] }),
      { fields: [['x-a', 'aab']] },
      false,
    ],
    [
      'query',
      match({ query: [{ name: 'q', value: { kind: 'exact', text: 'a b' } }] }),
      { path: '/?p=1&q=a%20b' },
      true,
    ],
    ['query value', match({ query: [{ name: 'q', value: { kind: 'exact', text: 'a' } }] }), { path: '/?q=b' }, false],
    ['no query', match({ query: [{ name: 'q', value: { kind: 'exact', text: 'a' } }] }), { path: '/q=a' }, false],
  ])('%s', (_name, rule, request, isMatch) => {
    expect(found(routes(['r', rule]), requestHead(request, request.fields))).toBe(isMatch ? 'r' : null);
  });

  test('more of them win at equal paths: headers, then query, then method', () => {
    const header = match({ headers: [{ name: 'h', value: { kind: 'exact', text: '1' } }] });
    const query = match({ query: [{ name: 'q', value: { kind: 'exact', text: '1' } }] });
    const method = match({ method: 'GET' });
    const request = requestHead({ path: '/?q=1' }, [['h', '1']]);
    expect(found(routes(['none', match({})], ['method', method], ['query', query], ['header', header]), request)).toBe(
      'header',
    );
    expect(found(routes(['none', match({})], ['method', method], ['query', query]), request)).toBe('query');
    expect(found(routes(['none', match({})], ['method', method]), request)).toBe('method');
  });

  test('the first of equals wins', () => {
    expect(found(routes(['first', prefix('/')], ['second', prefix('/')]), requestHead({}))).toBe('first');
  });

  test('a rule without matches takes what nothing else takes', () => {
    expect(found(routes(['rest'], ['a', prefix('/a')]), requestHead({ path: '/a' }))).toBe('a');
    expect(found(routes(['rest'], ['a', prefix('/a')]), requestHead({ path: '/b' }))).toBe('rest');
  });
});

describe('hosts', () => {
  const host = (name: string): HostMatch => ({ kind: 'exact', host: name });
  const suffix = (text: string): HostMatch => ({ kind: 'suffix', suffix: text });

  test('exact before the longest suffix before none', () => {
    const all = [
      route('none', []),
      route('short', [], [suffix('.example.com')]),
      route('long', [], [suffix('.b.example.com')]),
      route('exact', [], [host('a.b.example.com')]),
    ];
    const at = (authority: string) => found(all, requestHead({ authority }));
    expect([
      at('a.b.example.com:80'),
      at('c.b.example.com'),
      at('c.example.com'),
      at('example.com'),
      at('other'),
    ]).toEqual(['exact', 'long', 'short', 'none', 'none']);
  });

  test('a route with hosts never takes another host', () => {
    const all = [route('r', [], [host('a.com')])];
    expect([found(all, requestHead({ authority: 'A.com.' })), found(all, requestHead({ authority: 'b.com' }))]).toEqual(
      ['r', null],
    );
  });

  test.each([
    ['a.com', 'a.com'],
    ['A.Com:8080', 'a.com'],
    ['[::1]:80', '[::1]'],
    ['[::1]', '[::1]'],
    ['a.com.', 'a.com'],
  ])('the host of %s is %s', (authority, expected) => {
    expect(hostOf(authority)).toBe(expected);
  });
});

describe('gRPC calls', () => {
  const rpc = (service: string, method: string) => match({ path: { kind: 'rpc', service, method } });
  const call = (path: string, method = 'POST') => requestHead({ path, method });

  test('match by service and method', () => {
    const all = routes(
      ['any', rpc('', '')],
      ['service', rpc('a.B', '')],
      ['method', rpc('', 'Get')],
      ['both', rpc('a.B', 'Get')],
    );
    expect(['/a.B/Get', '/a.B/Put', '/c.D/Get', '/c.D/Put'].map((path) => found(all, call(path)))).toEqual([
      'both',
      'service',
      'method',
      'any',
    ]);
  });

  test.each([
    ['/a.B/Get', 'GET'],
    ['/a.B', 'POST'],
    ['*', 'POST'],
  ])('%s by %s is no call', (path, method) => {
    expect(found(routes(['any', rpc('', '')]), call(path, method))).toBeNull();
  });
});
