import { describe, expect, test } from 'vitest';
import { GetDestination, Update, WeightedAddr } from '#api/gen/destination.ts';
import { TrafficSpec } from '#api/gen/outbound.ts';
import { FakeClock } from '#lib/clock.ts';
import { silentLog } from '#lib/log.ts';
import {
  type DiscoveryOptions,
  ENDPOINTS_MAX,
  encodeIp,
  foldUpdate,
  watchEndpoints,
  watchOutboundPolicy,
} from './discovery.ts';
import { FakeTransport } from './testing.ts';

const endpoint = (ip: string, port: number, labels: Record<string, string> = {}): WeightedAddr =>
  WeightedAddr.decode(
    WeightedAddr.encode({
      addr: { ip: encodeIp(ip), port },
      weight: 10_000,
      metricLabels: labels,
      tlsIdentity: undefined,
      protocolHint: undefined,
      authorityOverride: undefined,
      http2: undefined,
      resourceRef: undefined,
    }).finish(),
  );

const add = (...addrs: WeightedAddr[]) =>
  Update.encode({ update: { $case: 'add', value: { addrs, metricLabels: { service: 'web' } } } }).finish();
const remove = (...addrs: WeightedAddr[]) =>
  Update.encode({ update: { $case: 'remove', value: { addrs: addrs.map(({ addr }) => addr!) } } }).finish();

describe('foldUpdate', () => {
  const [a, b] = [endpoint('10.0.0.1', 80), endpoint('fd00::2', 80)];

  test('adds, replaces and removes by address', () => {
    const one = foldUpdate(add(a), undefined, true);
    const two = foldUpdate(add(b), one, false);
    expect(one.endpoints.size).toBe(1);
    expect(two.endpoints.size).toBe(2);
    expect(two.labels).toEqual({ service: 'web' });
    const replaced = foldUpdate(add(endpoint('10.0.0.1', 80, { pod: 'new' })), two, false);
    expect(replaced.endpoints.size).toBe(2);
    expect([...replaced.endpoints.values()][0]!.metricLabels).toEqual({ pod: 'new' });
    expect(foldUpdate(remove(a), replaced, false).endpoints.size).toBe(1);
  });

  test('the first message of a new stream starts anew', () => {
    const before = foldUpdate(add(a, b), undefined, true);
    expect(foldUpdate(add(b), before, true).endpoints.size).toBe(1);
  });

  test('more endpoints than are used are cut, and said', () => {
    const many = Array.from({ length: ENDPOINTS_MAX + 1 }, (_, index) =>
      endpoint(`10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`, 80),
    );
    const set = foldUpdate(add(...many), undefined, true);
    expect([set.endpoints.size, set.isTruncated]).toEqual([ENDPOINTS_MAX, true]);
    expect(foldUpdate(add(a), set, true).isTruncated).toBe(false);
  });

  test.each([true, false])('no_endpoints{exists:%s} clears the set', (exists) => {
    const before = foldUpdate(add(a, b), undefined, true);
    const none = Update.encode({ update: { $case: 'noEndpoints', value: { exists } } }).finish();
    expect(foldUpdate(none, before, false).endpoints.size).toBe(0);
  });
});

describe('questions', () => {
  const transport = new FakeTransport();
  const options: DiscoveryOptions = {
    transport,
    clock: new FakeClock(),
    log: silentLog,
    destinationContext: '{"ns":"shop"}',
    policyWorkload: '{"ns":"shop","pod":"web"}',
    idleMs: 5_000,
  };

  test('carry path, context and workload', () => {
    watchEndpoints('web.shop.svc.cluster.local:80', options).close();
    expect(GetDestination.decode(transport.streams[0]!.request)).toEqual({
      scheme: '',
      path: 'web.shop.svc.cluster.local:80',
      contextToken: '{"ns":"shop"}',
    });
    watchOutboundPolicy('10.1.2.3', 8080, options).close();
    expect(TrafficSpec.decode(transport.streams[1]!.request)).toEqual({
      sourceWorkload: '{"ns":"shop","pod":"web"}',
      target: { $case: 'addr', value: { ip: { ip: { $case: 'ipv4', value: 0x0a010203 } }, port: 8080 } },
    });
  });

  test('an address that is none is a mistake of the caller', () => {
    expect(() => encodeIp('web')).toThrow('encode address "web"');
  });
});
