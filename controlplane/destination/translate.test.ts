import { describe, expect, test } from 'vitest';
import { type Update, Update as UpdateCodec } from '#api/gen/destination.ts';
import type { Endpoint, EndpointSnapshot } from '../core/model.ts';
import { fromIpAddress } from '../wire.ts';
import { toProfile, toWeightedAddr, updatesBetween } from './translate.ts';

const endpoint = (ip: string, rest: Partial<Endpoint> = {}): Endpoint => ({
  ip,
  port: 8080,
  weight: 10_000,
  labels: { pod: ip },
  identity: null,
  isMeshed: false,
  protocol: 'unknown',
  transportPort: null,
  authorityOverride: null,
  zone: null,
  nodeName: null,
  forZones: null,
  targetKey: `pod:default/${ip}`,
  ...rest,
});
const snapshot = (endpoints: Endpoint[], clientZone: string | null = null): EndpointSnapshot => ({
  service: { namespace: 'shop', name: 'web' },
  endpoints,
  clientZone,
});

/** `add 10.1.0.1` and so on, in order. */
function outline(updates: Update[]): string[] {
  return updates.map(({ update }) => {
    const addresses =
      update?.$case === 'add'
        ? update.value.addrs.map(({ addr }) => addr)
        : update?.$case === 'remove'
          ? update.value.addrs
          : [];
    return [update?.$case, ...addresses.map((address) => fromIpAddress(address?.ip))].join(' ');
  });
}

describe('updates', () => {
  const [a, b, c] = [endpoint('10.1.0.1'), endpoint('10.1.0.2'), endpoint('10.1.0.3')];

  test('tell a new client everything, or nothing when there is nothing', () => {
    expect(outline(updatesBetween(null, snapshot([a, b])))).toEqual(['add 10.1.0.1 10.1.0.2']);
    expect(updatesBetween(null, snapshot([]))).toEqual([]);
  });

  test('tell what came, went or changed', () => {
    const changed = endpoint('10.1.0.2', { labels: { pod: 'other' } });
    expect(outline(updatesBetween(snapshot([a, b]), snapshot([a, endpoint('10.1.0.2')])))).toEqual([]);
    expect(outline(updatesBetween(snapshot([a, b]), snapshot([b, c])))).toEqual(['remove 10.1.0.1', 'add 10.1.0.3']);
    expect(outline(updatesBetween(snapshot([a, b]), snapshot([a, changed])))).toEqual(['add 10.1.0.2']);
    expect(outline(updatesBetween(snapshot([a, b]), snapshot([])))).toEqual(['remove 10.1.0.1 10.1.0.2']);
  });

  test('tell all again to a client whose zone changed', () =>
    expect(outline(updatesBetween(snapshot([a, b], 'x'), snapshot([a, b], 'y')))).toEqual(['add 10.1.0.1 10.1.0.2']));

  test('name the Service once for each set', () =>
    expect(updatesBetween(null, snapshot([a]))[0]!.update).toMatchObject({
      value: { metricLabels: { namespace: 'shop', service: 'web' } },
    }));

  test('are the same objects for streams that take the same step', () => {
    const [before, after] = [snapshot([a]), snapshot([a, b])];
    expect(updatesBetween(before, after)).toBe(updatesBetween(before, after));
    expect(updatesBetween(null, after)).toBe(updatesBetween(null, after));
  });

  test('of large services are split far below 4 MiB', () => {
    const labels = Object.fromEntries(Array.from({ length: 8 }, (_, index) => [`label-${index}`, 'x'.repeat(60)]));
    const many = Array.from({ length: 2500 }, (_, i) => endpoint(`10.1.${i >> 8}.${i & 255}`, { labels }));
    const updates = updatesBetween(null, snapshot(many));
    expect(updates.map(({ update }) => update?.$case === 'add' && update.value.addrs.length)).toEqual([
      1000, 1000, 500,
    ]);
    for (const update of updates) expect(UpdateCodec.encode(update).finish().length).toBeLessThan(1024 * 1024);
  });
});

describe('an address', () => {
  const nothing = {
    tlsIdentity: undefined,
    protocolHint: undefined,
    authorityOverride: undefined,
    http2: undefined,
    resourceRef: undefined,
  };

  test('in clear text', () =>
    expect(toWeightedAddr(endpoint('10.1.0.1'), null)).toEqual({
      ...nothing,
      addr: { ip: { ip: { $case: 'ipv4', value: 0x0a010001 } }, port: 8080 },
      weight: 10_000,
      metricLabels: { pod: '10.1.0.1', zone_locality: 'unknown' },
    }));

  test('that is meshed', () => {
    const meshed = endpoint('10.1.0.1', {
      identity: 'id',
      isMeshed: true,
      protocol: 'h2',
      transportPort: 4143,
      zone: 'z',
    });
    expect(toWeightedAddr(meshed, 'z', 'shop')).toMatchObject({
      metricLabels: { zone_locality: 'local', namespace: 'shop' },
      tlsIdentity: { strategy: { $case: 'dnsLikeIdentity', value: { name: 'id' } }, serverName: { name: 'id' } },
      protocolHint: { protocol: { $case: 'h2', value: {} }, opaqueTransport: { inboundPort: 4143 } },
      http2: { keepAlive: { interval: { seconds: 10n }, timeout: { seconds: 3n }, whileIdle: true } },
    });
    expect(toWeightedAddr(meshed, 'y').metricLabels).toMatchObject({ zone_locality: 'remote' });
  });

  test('that is opaque, or behind a gateway, or known for its transport port only', () => {
    expect(toWeightedAddr(endpoint('10.1.0.1', { protocol: 'opaque' }), null).protocolHint).toEqual({
      protocol: { $case: 'opaque', value: {} },
      opaqueTransport: undefined,
    });
    expect(toWeightedAddr(endpoint('10.1.0.1', { transportPort: 4143 }), null).protocolHint).toEqual({
      protocol: undefined,
      opaqueTransport: { inboundPort: 4143 },
    });
    expect(toWeightedAddr(endpoint('10.1.0.1', { authorityOverride: 'x:80' }), null).authorityOverride).toEqual({
      authorityOverride: 'x:80',
    });
  });

  test('that nobody knows has no labels', () =>
    expect(toWeightedAddr(endpoint('10.1.0.1', { labels: {}, targetKey: null }), null).metricLabels).toEqual({}));
});

describe('profiles', () => {
  const retryBudget = { retryRatio: 0.2, minRetriesPerSecond: 10, ttl: { seconds: 10n, nanos: 0 } };
  const empty = {
    routes: [],
    retryBudget: undefined,
    dstOverrides: [],
    opaqueProtocol: false,
    fullyQualifiedName: '',
    endpoint: undefined,
    parentRef: undefined,
    profileRef: undefined,
  };
  const resource = (group: string, kind: string, name: string, port: number) => ({
    kind: { $case: 'resource', value: { group, kind, name, namespace: 'shop', section: '', port } },
  });

  test('of a Service', () =>
    expect(
      toProfile(
        { kind: 'service', service: { namespace: 'shop', name: 'web', port: 80 }, isOpaque: true },
        'cluster.local',
      ),
    ).toEqual({
      ...empty,
      retryBudget,
      opaqueProtocol: true,
      fullyQualifiedName: 'web.shop.svc.cluster.local',
      parentRef: resource('core', 'Service', 'web', 80),
      profileRef: resource('linkerd.io', 'ServiceProfile', 'web.shop.svc.cluster.local', 0),
    }));

  test('of an endpoint', () => {
    const one = endpoint('10.1.0.1');
    const source = { kind: 'endpoint', endpoint: one, namespace: 'shop', clientZone: null, isOpaque: false } as const;
    expect(toProfile(source, 'cluster.local')).toEqual({
      ...empty,
      retryBudget,
      endpoint: toWeightedAddr(one, null, 'shop'),
    });
  });

  test('of a port that is not there', () => expect(toProfile({ kind: 'empty' }, 'cluster.local')).toEqual(empty));
});
