import { closeSync, openSync } from 'node:fs';
import os from 'node:os';
import { describe, expect, test } from 'vitest';
import { setns, unshare } from './libc.ts';
import { createVethPair, setInterfaceAddress, setInterfaceUp } from './network-interface.ts';

describe.runIf(process.getuid?.() === 0)('interfaces of a new namespace', () => {
  test('are made, addressed and brought up', () => {
    const home = openSync('/proc/thread-self/ns/net', 'r');
    let found: NodeJS.Dict<os.NetworkInterfaceInfo[]>;
    unshare();
    try {
      setInterfaceUp('lo');
      createVethPair('warp0');
      setInterfaceAddress('warp0', '192.0.2.1');
      setInterfaceUp('warp0');
      expect(() => createVethPair('warp0')).toThrow('make interface "warp0": EEXIST');
      expect(() => setInterfaceUp('weft0')).toThrow('read the flags of interface "weft0": ENODEV');
      setInterfaceAddress('lo:0', '192.0.2.9');
      found = os.networkInterfaces();
    } finally {
      setns(home);
      closeSync(home);
    }
    const addresses = Object.values(found).flatMap((infos) => infos!.map(({ address }) => address));
    expect(addresses).toContain('127.0.0.1');
    expect(addresses).toContain('192.0.2.9');
  });

  test('have short names', () => {
    expect(() => setInterfaceUp('a-name-that-is-too-long')).toThrow('expected a name of less than 16 bytes');
  });
});
