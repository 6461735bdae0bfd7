import { describe, expect, test } from 'vitest';
import { parseAuthority, parseContextToken, parseServiceName, parseWorkload } from './authority.ts';
import { canonicalIp, isWithin } from './ip.ts';

describe('authorities', () => {
  test.each([
    ['web', { host: 'web', port: 80 }],
    ['web.default.svc.cluster.local:8080', { host: 'web.default.svc.cluster.local', port: 8080 }],
    ['10.1.0.1:1', { host: '10.1.0.1', port: 1 }],
    ['[fd00::1]:65535', { host: 'fd00::1', port: 65535 }],
    ['fd00::1', { host: 'fd00::1', port: 80 }],
  ])('%s', (text, authority) => expect(parseAuthority(text)).toEqual(authority));

  test.each(['', ':80', 'web:', 'web:0', 'web:65536', 'web:80:80', '[web]:80', 'we b:80', 'web:8e1', 'web/path'])(
    '"%s" is none',
    (text) => expect(parseAuthority(text)).toBeNull(),
  );
});

describe('names of Services', () => {
  test.each([
    ['web.shop.svc.cluster.local', { name: 'web', namespace: 'shop', hostname: null }],
    ['WEB.shop.svc.cluster.local.', { name: 'web', namespace: 'shop', hostname: null }],
    ['db-0.db.shop.svc.cluster.local', { name: 'db', namespace: 'shop', hostname: 'db-0' }],
  ])('%s', (host, name) => expect(parseServiceName(host, 'cluster.local')).toEqual(name));

  test.each([
    'web',
    'web.shop',
    'web.shop.svc',
    'web.shop.svc.other',
    'a.b.c.d.svc.cluster.local',
    '.shop.svc.cluster.local',
    'example.com',
  ])('%s is none', (host) => expect(parseServiceName(host, 'cluster.local')).toBeNull());
});

test.each([
  ['', null, null, false],
  ['{"ns":"shop","nodeName":"n","pod":"p"}', 'shop', 'n', false],
  ['{"ns":3}', null, null, false],
  ['ns:shop', 'shop', null, true],
  ['{junk', null, null, true],
  ['junk', null, null, true],
])('context token %s', (token, namespace, nodeName, isOdd) =>
  expect(parseContextToken(token)).toEqual({ namespace, nodeName, isOdd }),
);

test.each([
  ['{"ns":"shop","pod":"p"}', { namespace: 'shop', pod: 'p' }],
  ['{"ns":"shop","external_workload":"w"}', { namespace: 'shop', pod: null }],
  ['shop:p', { namespace: 'shop', pod: 'p' }],
  ['{"ns":"shop"}', null],
  ['{"pod":"p"}', null],
  ['shop', null],
  ['shop:p:q', null],
  ['{', null],
  ['', null],
])('workload %s', (text, workload) => expect(parseWorkload(text)).toEqual(workload));

test('addresses', () => {
  expect(canonicalIp('FD00:0:0::1')).toBe('fd00::1');
  expect(canonicalIp('no address')).toBe('no address');
  expect(isWithin('10.1.2.3', ['192.168.0.0/16', '10.0.0.0/8'])).toBe(true);
  expect(isWithin('fd00::1', ['10.0.0.0/8'])).toBe(false);
  expect(isWithin('x', ['0.0.0.0/0'])).toBe(false);
});
