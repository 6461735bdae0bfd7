import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BpfMap, createMap, MapType, mapInfo, openPinned, pinObject } from './bpf.ts';
import { close } from './libc.ts';
import { FilesystemMagic, filesystemMagic, mountFilesystem, mounts, unmountFilesystem } from './mount.ts';

describe.runIf(process.getuid?.() === 0)('pinned maps', () => {
  const directory = `/run/heddle-bpf-test-${process.pid}`;

  beforeAll(() => {
    mkdirSync(directory);
    mountFilesystem({ type: 'bpf', path: directory, source: 'heddle-test' });
  });

  afterAll(() => {
    unmountFilesystem(directory);
    rmSync(directory, { recursive: true });
  });

  test('the mount is there and is a bpffs', () => {
    expect(filesystemMagic(directory)).toBe(FilesystemMagic.bpf);
    expect(mounts('bpf')).toContainEqual({ path: directory, root: '/', source: 'heddle-test' });
    expect(filesystemMagic(path.join(directory, 'missing'))).toBe(null);
  });

  test('elements are written, read, walked and deleted', () => {
    const shape = { type: MapType.hash, keyBytes: 4, valueBytes: 8, entriesMax: 4 };
    const map = new BpfMap(createMap({ ...shape, name: 'heddle_test' }), 'heddle_test');
    expect(mapInfo(map.fd)).toEqual(shape);
    const key = (n: number) => Buffer.from([n, 0, 0, 0]);
    const value = (n: number) => Buffer.alloc(8, n);
    expect(map.lookup(key(1))).toBe(null);
    expect(map.keys()).toEqual([]);
    for (const n of [1, 2, 3, 4]) map.update(key(n), value(n));
    expect(map.lookup(key(3))).toEqual(value(3));
    expect(map.keys().sort(Buffer.compare)).toEqual([1, 2, 3, 4].map(key));
    expect(() => map.update(key(5), value(5))).toThrow('map "heddle_test" key "05000000": E2BIG');
    expect(() => map.update(key(1), value(1), 'create')).toThrow('EEXIST');
    expect(map.delete(key(1))).toBe(true);
    expect(map.delete(key(1))).toBe(false);
    expect(() => map.lookup(Buffer.alloc(5))).toThrow('key of 4 bytes expected, got 5');
    map.close();
  });

  test('a pin keeps the map alive', () => {
    const pin = path.join(directory, 'map');
    const fd = createMap({ type: MapType.array, keyBytes: 4, valueBytes: 4, entriesMax: 1, name: 'heddle_pin' });
    pinObject(fd, pin);
    close(fd);
    const again = openPinned(pin);
    expect(mapInfo(again).entriesMax).toBe(1);
    close(again);
    rmSync(pin);
    expect(() => openPinned(pin)).toThrow(`open pinned object "${pin}": ENOENT`);
  });
});

test('mount points are read as the kernel writes them', () => {
  const mountinfo = [
    '30 25 0:26 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw',
    '31 25 0:27 /sub /run/with\\040space rw,relatime shared:5 - bpf bpf rw,mode=700',
    'garbage',
    '',
  ].join('\n');
  expect(mounts('cgroup2', mountinfo)).toEqual([{ path: '/sys/fs/cgroup', root: '/', source: 'cgroup2' }]);
  expect(mounts('bpf', mountinfo)).toEqual([{ path: '/run/with space', root: '/sub', source: 'bpf' }]);
  expect(mounts('ext4', mountinfo)).toEqual([]);
});
