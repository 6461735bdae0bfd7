import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { CULPRITS, nameCulprit } from './culprit.ts';
import { parseEvents, WriterWatch } from './writer-watch.ts';

const nothing = { directory: { files: [], dropIns: new Map() }, types: [], writers: [] };
const file = (name: string) => ({ name, bytes: new Uint8Array(), isSymlink: false });

test.each([
  [
    'its process',
    { writers: [{ pid: 7, command: 'cilium-agent', podUid: 'u-1', file: 'x' }] },
    'cilium',
    /process "cilium-agent" \(7\) of pod "u-1".*cni.exclusive/,
  ],
  [
    'an unknown process',
    { writers: [{ pid: 7, command: 'vi', podUid: null, file: 'x' }] },
    'other',
    /process "vi" \(7\), which wrote "x"/,
  ],
  [
    'the last that can be named',
    {
      writers: [
        { pid: 7, command: 'calico-node', podUid: null, file: 'x' },
        { pid: 8, command: '', podUid: null, file: 'x' },
      ],
    },
    'calico',
    /calico-node/,
  ],
  [
    'a process that is gone',
    { writers: [{ pid: 8, command: '', podUid: null, file: 'x' }] },
    'other',
    /process "gone already" \(8\)/,
  ],
  [
    "cilium's backups",
    { directory: { files: [file('10-x.conflist.cilium_bak')], dropIns: new Map() } },
    'cilium',
    /renamed a file to "10-x.conflist.cilium_bak"/,
  ],
  ['whose list it is', { types: ['aws-cni', 'portmap'] }, 'aws', /probably aws, whose list it is/],
  ['nothing', { types: ['ptp'] }, 'unknown', /nobody/],
])('named by %s', (_name, found, by, text) => {
  const culprit = nameCulprit({ ...nothing, ...found });
  expect(culprit.by).toBe(by);
  expect(culprit.text).toMatch(text);
  expect(CULPRITS).toContain(culprit.by);
});

test('the kernel names who wrote, and never ourselves', () => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'heddle-writers-'));
  const watch = WriterWatch.open(directory);
  try {
    writeFileSync(path.join(directory, 'ours'), 'x');
    expect(watch.drain()).toEqual([]);
    execFileSync('sh', ['-c', `echo x > ${directory}/a && mv ${directory}/a ${directory}/theirs`]);
    const writers = watch.drain();
    expect(new Set(writers.map((writer) => writer.file))).toEqual(new Set(['a', 'theirs']));
    expect(writers.every((writer) => writer.pid !== process.pid && writer.pid > 0)).toBe(true);
    expect(watch.drain()).toEqual([]);
  } finally {
    watch.close();
    rmSync(directory, { recursive: true });
  }
});

test('a directory that is not there, or is none, cannot be watched', () => {
  expect(() => WriterWatch.open('/nonexistent')).toThrow(/ENOENT/);
  expect(() => WriterWatch.open('/proc/self/status')).toThrow(/ENOTDIR/);
});

test('events cut short or of nonsense lengths end the reading', () => {
  expect(parseEvents(Buffer.alloc(0))).toEqual([]);
  expect(parseEvents(Buffer.alloc(23))).toEqual([]);
  expect(parseEvents(Buffer.alloc(64))).toEqual([]);
  const long = Buffer.alloc(24);
  long.writeUInt32LE(4096, 0);
  expect(parseEvents(long)).toEqual([]);
  const bare = Buffer.alloc(24);
  bare.writeUInt32LE(24, 0);
  bare.writeUInt16LE(24, 6);
  bare.writeInt32LE(42, 20);
  expect(parseEvents(bare)).toEqual([{ pid: 42, file: '' }]);
});
