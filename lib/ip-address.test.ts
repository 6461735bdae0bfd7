import net from 'node:net';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { contains, formatIp, parseCidr, parseIp } from './ip-address.ts';

describe('addresses', () => {
  test.each([
    ['10.1.2.3', '00000000000000000000ffff0a010203', '10.1.2.3'],
    ['::ffff:10.1.2.3', '00000000000000000000ffff0a010203', '10.1.2.3'],
    ['::', '00000000000000000000000000000000', '::'],
    ['::1', '00000000000000000000000000000001', '::1'],
    ['fd00::1:2', 'fd000000000000000000000000010002', 'fd00::1:2'],
    ['2001:DB8::', '20010db8000000000000000000000000', '2001:db8::'],
    ['64:ff9b::10.0.0.1', '0064ff9b00000000000000000a000001', '64:ff9b::a00:1'],
    ['1:2:3:4:5:6:7:8', '00010002000300040005000600070008', '1:2:3:4:5:6:7:8'],
    ['1:0:3:0:0:0:7:8', '00010000000300000000000000070008', '1:0:3::7:8'],
    ['1:2:3:4:5:6:1.2.3.4', '00010002000300040005000601020304', '1:2:3:4:5:6:102:304'],
  ])('%s', (text, hex, canonical) => {
    const bytes = parseIp(text)!;
    expect(bytes.toString('hex')).toBe(hex);
    expect(formatIp(bytes)).toBe(canonical);
  });

  test.each(['', '10.1.2', '10.1.2.256', 'fe80::1%eth0', ':::', 'g::', 'localhost'])('"%s" is none', (text) => {
    expect(parseIp(text)).toBe(null);
  });

  test('bytes to text and back are the same bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
        const text = formatIp(bytes);
        expect(net.isIP(text)).not.toBe(0);
        expect([...parseIp(text)!]).toEqual([...bytes]);
      }),
    );
  });
});

describe('networks', () => {
  test.each([
    ['10.0.0.0/8', '10.255.1.1', true],
    ['10.0.0.0/8', '11.0.0.1', false],
    ['10.1.2.3/8', '10.9.9.9', true],
    ['0.0.0.0/0', '203.0.113.9', true],
    ['0.0.0.0/0', '::1', false],
    ['::/0', 'fd00::1', true],
    ['fd00::/9', 'fd7f::1', true],
    ['fd00::/9', 'fd80::1', false],
    ['192.0.2.7', '192.0.2.7', true],
    ['192.0.2.7', '192.0.2.6', false],
  ])('%s holds %s: %s', (network, address, expected) => {
    expect(contains(parseCidr(network)!, parseIp(address)!)).toBe(expected);
  });

  test.each(['10.0.0.0/33', 'fd00::/129', '10.0.0.0/', '10.0.0.0/-1', '10.0.0.0/8/8', 'x/8'])(
    '"%s" is none',
    (text) => {
      expect(parseCidr(text)).toBe(null);
    },
  );
});
