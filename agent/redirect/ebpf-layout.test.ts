import { readFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LISTENER_NAMES } from '#api/worker-link.ts';
import { parseCidr } from '#lib/ip-address.ts';
import {
  addressKey,
  cookieOfSkipKey,
  Direction,
  decodePod,
  EXEMPT_LEVELS_MAX,
  encodePod,
  LISTENERS_PER_POD,
  listenerKey,
  networkKey,
  OUTCOMES,
  POD_UID_BYTES,
  PodFlag,
  PROGRAMS,
  portKeys,
  portPrefixes,
} from './ebpf-layout.ts';
import { POD_SLOTS_MAX } from './redirector.ts';

const bpf = path.resolve(import.meta.dirname, '../../bpf');
const header = readFileSync(path.join(bpf, 'heddle.h'), 'utf8');

function define(name: string): number {
  return Number(new RegExp(`#define ${name} (\\d+)`).exec(header)![1]);
}

function enumerators(name: string): string[] {
  const body = new RegExp(`enum ${name} \\{([^}]*)\\}`).exec(header)![1]!;
  return body
    .split(',')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

describe('the header and this side agree', () => {
  test('on limits', () => {
    expect(define('PODS_MAX')).toBe(POD_SLOTS_MAX + 1);
    expect(define('LISTENERS_PER_POD')).toBe(LISTENERS_PER_POD);
    expect(define('EXEMPT_LEVELS_MAX')).toBe(EXEMPT_LEVELS_MAX);
    expect(define('POD_UID_BYTES')).toBe(POD_UID_BYTES);
  });

  test('on the order of counters and listeners', () => {
    expect(enumerators('outcome').map((name) => name.toLowerCase())).toEqual([...OUTCOMES, 'outcomes']);
    const listeners = enumerators('listener').map((name) => name.replace('LISTENER_', '').toLowerCase());
    expect(listeners).toEqual([...LISTENER_NAMES]);
  });

  test('on flags and directions', () => {
    expect(define('POD_OUTBOUND')).toBe(PodFlag.outbound);
    expect(define('POD_INBOUND')).toBe(PodFlag.inbound);
    expect(define('POD_FAIL_OPEN')).toBe(PodFlag.failOpen);
    expect(define('POD_HAS_IPV4')).toBe(PodFlag.hasIpv4);
    expect(define('POD_HAS_IPV6')).toBe(PodFlag.hasIpv6);
    expect(enumerators('direction')).toEqual([
      `DIRECTION_OUTBOUND = ${Direction.outbound}`,
      `DIRECTION_INBOUND = ${Direction.inbound}`,
    ]);
  });

  test('on the programs', () => {
    const sources = ['bind', 'inbound', 'original', 'outbound'].map((name) =>
      readFileSync(path.join(bpf, `${name}.bpf.c`), 'utf8'),
    );
    const programs = sources.flatMap((text) => [...text.matchAll(/^int (\w+)\(/gm)].map((match) => match[1]!));
    expect(programs.sort()).toEqual([...PROGRAMS]);
  });
});

describe('keys and values', () => {
  test('a pod survives the round trip', () => {
    const pod = {
      flags: PodFlag.inbound | PodFlag.hasIpv4,
      slot: 1023,
      outboundPort: 4140,
      redirect4: addressKey('10.1.2.3'),
      redirect6: addressKey('fd00::7'),
      uid: '0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0',
    };
    expect(decodePod(encodePod(pod))).toEqual(pod);
    const onlyV6 = { ...pod, redirect4: Buffer.alloc(16) };
    expect(decodePod(encodePod(onlyV6))).toEqual(onlyV6);
    expect(encodePod(pod).toString('hex')).toBe(
      '0a000000ff0300001' + // flags, slot
        '02c0000' + // port 4140 in network order
        '0a010203' +
        'fd000000000000000000000000000007' +
        Buffer.from(pod.uid.padEnd(64, '\0')).toString('hex'),
    );
  });

  test.each(['', 'with.dot', 'a/b', 'x'.repeat(64)])('UID "%s" is refused', (uid) => {
    expect(() => encodePod({ ...decodePod(Buffer.alloc(96)), uid })).toThrow(`redirect pod "${uid}"`);
  });

  test('skip keys hold namespace, direction and prefix', () => {
    const [key] = portKeys(0x0102n, Direction.inbound, { from: 8064, to: 8127 });
    expect(key!.toString('hex')).toBe(`${'5a000000'}${'0201000000000000'}${'0200'}${'1f80'}`);
    expect(cookieOfSkipKey(key!)).toBe(0x0102n);
    const network = networkKey(7n, Direction.outbound, parseCidr('10.0.0.0/8')!);
    expect(network.toString('hex')).toBe(
      `${'c8000000'}${'0700000000000000'}${'01000000'}${'00000000000000000000ffff0a000000'}`,
    );
    expect(cookieOfSkipKey(network)).toBe(7n);
  });

  test('a slot out of range is refused', () => {
    expect(listenerKey(2, 3).readUInt32LE(0)).toBe(11);
    for (const slot of [-1, POD_SLOTS_MAX + 1, 1.5])
      expect(() => listenerKey(slot, 0)).toThrow('expected a number from 0');
  });
});

describe('port prefixes', () => {
  test.each([
    [{ from: 8064, to: 8127 }, [{ port: 8064, bits: 10 }]],
    [{ from: 25, to: 25 }, [{ port: 25, bits: 16 }]],
    [{ from: 0, to: 65535 }, [{ port: 0, bits: 0 }]],
    [
      { from: 4190, to: 4192 },
      [
        { port: 4190, bits: 15 },
        { port: 4192, bits: 16 },
      ],
    ],
  ])('%o', (range, expected) => {
    expect(portPrefixes(range)).toEqual(expected);
  });

  test('cover exactly the range, in at most 30 pieces', () => {
    fc.assert(
      fc.property(fc.nat(65535), fc.nat(65535), fc.nat(65535), (a, b, port) => {
        const range = { from: Math.min(a, b), to: Math.max(a, b) };
        const prefixes = portPrefixes(range);
        expect(prefixes.length).toBeLessThanOrEqual(30);
        const covers = prefixes.filter((prefix) => port >> (16 - prefix.bits) === prefix.port >> (16 - prefix.bits));
        expect(covers.length).toBe(port >= range.from && port <= range.to ? 1 : 0);
      }),
    );
  });
});
