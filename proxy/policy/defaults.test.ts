import { describe, expect, test } from 'vitest';
import type { DefaultInboundPolicy } from '#api/worker-config.ts';
import { parseCidr, parseIp } from '#lib/ip-address.ts';
import { authorize, type Client } from './authorization.ts';
import { defaultPolicy } from './defaults.ts';

const clusterNetworks = ['10.0.0.0/8', 'fd00::/8'].map((text) => parseCidr(text)!);
const client = (address: string, identity: string | null): Client => ({
  address: parseIp(address)!,
  isMeshTls: identity !== null,
  identity,
});
const CLIENTS = {
  'inside, meshed': client('10.1.1.1', 'web.x'),
  'inside, plain': client('fd00::1', null),
  'outside, meshed': client('192.0.2.1', 'web.x'),
  'outside, plain': client('2001:db8::1', null),
};
const make = (policy: DefaultInboundPolicy, isOpaque = false, requiresIdentity = false) =>
  defaultPolicy({ policy, clusterNetworks, isOpaque, requiresIdentity, detectTimeoutMs: 10_000 });

const allowedBy = (policy: ReturnType<typeof make>) =>
  Object.entries(CLIENTS)
    .filter(([, who]) => authorize(policy.authorizations, who) !== null)
    .map(([name]) => name);

const EVERYBODY = Object.keys(CLIENTS);

describe('default policies', () => {
  test.each<[DefaultInboundPolicy, string[]]>([
    ['all-unauthenticated', EVERYBODY],
    ['audit', EVERYBODY],
    ['all-authenticated', ['inside, meshed', 'outside, meshed']],
    ['cluster-unauthenticated', ['inside, meshed', 'inside, plain']],
    ['cluster-authenticated', ['inside, meshed']],
    ['deny', []],
  ])('%s', (name, allowed) => {
    const policy = make(name);
    expect(allowedBy(policy)).toEqual(allowed);
    expect(policy.ref).toEqual({ group: '', kind: 'default', name });
    expect(policy.protocol).toEqual({ kind: 'detect', timeoutMs: 10_000 });
    expect(policy.routes.map((route) => [route.ref.name, route.authorizations])).toEqual([
      ['default', policy.authorizations],
    ]);
  });

  test.each<[DefaultInboundPolicy, DefaultInboundPolicy]>([
    ['all-unauthenticated', 'all-authenticated'],
    ['audit', 'all-authenticated'],
    ['all-authenticated', 'all-authenticated'],
    ['cluster-unauthenticated', 'cluster-authenticated'],
    ['cluster-authenticated', 'cluster-authenticated'],
    ['deny', 'deny'],
  ])('%s on a port that requires identity is %s', (name, effective) => {
    expect(allowedBy(make(name, false, true))).toEqual(allowedBy(make(effective)));
    expect(make(name, false, true).ref.name).toBe(effective);
  });

  test('an opaque port is not looked into', () => {
    const policy = make('cluster-authenticated', true);
    expect([policy.protocol, policy.routes]).toEqual([{ kind: 'opaque' }, []]);
    expect(allowedBy(policy)).toEqual(['inside, meshed']);
  });

  test('audit can be told apart from what it lets in', () => {
    expect(authorize(make('audit').authorizations, CLIENTS['outside, plain'])?.ref.name).toBe('audit');
  });
});
