import { expect, test } from 'vitest';
import { fromIpAddress, toDuration, toIpAddress, toIpNetwork, toMetadata } from './wire.ts';

test.each(['0.0.0.0', '10.1.2.3', '255.255.255.255', '::', 'fd00::1', '2001:db8:1:2:3:4:5:6'])(
  '%s there and back',
  (ip) => expect(fromIpAddress(toIpAddress(ip))).toBe(ip),
);

test('addresses', () => {
  expect(toIpAddress('250.1.2.3')).toEqual({ ip: { $case: 'ipv4', value: 0xfa010203 } });
  expect(toIpAddress('fd00::2')).toEqual({ ip: { $case: 'ipv6', value: { first: 0xfd00n << 48n, last: 2n } } });
  expect(fromIpAddress(undefined)).toBeNull();
  expect(fromIpAddress({ ip: undefined })).toBeNull();
});

test('networks', () => {
  expect(toIpNetwork('10.1.2.3/8')).toEqual({ ip: { ip: { $case: 'ipv4', value: 0x0a000000 } }, prefixLen: 8 });
  expect(toIpNetwork('::/0')).toMatchObject({ prefixLen: 0 });
  expect(toIpNetwork('192.0.2.1')).toMatchObject({ prefixLen: 32 });
});

test.each([
  [0, 0n, 0],
  [30, 0n, 30_000_000],
  [10_000, 10n, 0],
  [1_500.5, 1n, 500_500_000],
])('%d ms', (ms, seconds, nanos) => expect(toDuration(ms)).toEqual({ seconds, nanos }));

test('references', () => {
  expect(toMetadata({ kind: 'default', name: 'x' })).toEqual({ kind: { $case: 'default', value: 'x' } });
  const reference = { kind: 'resource', group: 'g', resource: 'R', namespace: 'n', name: 'x' } as const;
  expect(toMetadata(reference)).toEqual({
    kind: { $case: 'resource', value: { group: 'g', kind: 'R', namespace: 'n', name: 'x', port: 0, section: '' } },
  });
});
