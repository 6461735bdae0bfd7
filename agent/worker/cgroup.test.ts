import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { findHierarchies, WorkerCgroups } from './cgroup.ts';

const HYBRID = `30 25 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime shared:1 - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
35 30 0:28 / /elsewhere rw,relatime - cgroup cgroup rw,memory
`;

describe('hierarchies', () => {
  test('each counts once, wherever it is mounted', () => {
    expect(findHierarchies(HYBRID)).toEqual([
      { mountPoint: '/sys/fs/cgroup/cpu,cpuacct', isUnified: false, controllers: ['cpu', 'cpuacct'] },
      { mountPoint: '/sys/fs/cgroup/memory', isUnified: false, controllers: ['memory'] },
      { mountPoint: '/sys/fs/cgroup/systemd', isUnified: false, controllers: ['xattr', 'name=systemd'] },
      { mountPoint: '/sys/fs/cgroup/unified', isUnified: true, controllers: [] },
    ]);
    expect(findHierarchies('')).toEqual([]);
  });
});

/** Plain directories in place of cgroup file systems: what is written where is the same. */
describe('cgroups of workers', () => {
  let root: string;
  let cgroups: WorkerCgroups;
  const limits = { memoryBytes: 1000, processes: 5 };
  beforeEach(() => {
    root = mkdtempSync(path.join(os.tmpdir(), 'heddle-cgroup-'));
    for (const name of ['unified', 'cpuset']) mkdirSync(path.join(root, name));
    // Directories that the kernel would fill; made by hand because the limits go only where a file is.
    const deep = path.join(root, 'unified/heddle/uid-1/3');
    mkdirSync(deep, { recursive: true });
    for (const at of ['unified', 'unified/heddle', 'unified/heddle/uid-1']) {
      writeFileSync(path.join(root, at, 'cgroup.controllers'), 'cpuset cpu memory pids\n');
      writeFileSync(path.join(root, at, 'cgroup.subtree_control'), 'memory\n');
    }
    for (const file of ['memory.max', 'pids.max']) writeFileSync(path.join(deep, file), 'max\n');
    writeFileSync(path.join(root, 'cpuset/cpuset.cpus'), '0-1\n');
    writeFileSync(path.join(root, 'cpuset/cpuset.mems'), '0\n');
    for (const at of ['cpuset/heddle', 'cpuset/heddle/uid-1', 'cpuset/heddle/uid-1/3']) {
      mkdirSync(path.join(root, at));
      for (const file of ['cpuset.cpus', 'cpuset.mems']) writeFileSync(path.join(root, at, file), '\n');
    }
    cgroups = new WorkerCgroups({
      hierarchies: [
        { mountPoint: path.join(root, 'cpuset'), isUnified: false, controllers: ['cpuset'] },
        { mountPoint: path.join(root, 'unified'), isUnified: true, controllers: [] },
      ],
      rootName: 'heddle',
      limits,
    });
  });
  afterEach(() => rmSync(root, { recursive: true }));

  test('have limits, what a cpuset needs, and controllers handed down', () => {
    const cgroup = cgroups.create('uid-1', 3);
    expect(cgroup.unifiedPath).toBe(path.join(root, 'unified/heddle/uid-1/3'));
    expect(readFileSync(path.join(cgroup.unifiedPath!, 'memory.max'), 'utf8')).toBe('1000');
    expect(readFileSync(path.join(cgroup.unifiedPath!, 'pids.max'), 'utf8')).toBe('5');
    expect(readFileSync(path.join(root, 'unified/heddle/cgroup.subtree_control'), 'utf8')).toBe('+pids');
    expect(readFileSync(path.join(root, 'cpuset/heddle/uid-1/3/cpuset.cpus'), 'utf8')).toBe('0-1');
    cgroups.enter(cgroup, 4711);
    for (const directory of cgroup.directories) {
      expect(readFileSync(path.join(directory, 'cgroup.procs'), 'utf8')).toBe('4711');
    }
    expect(cgroups.generations('uid-1')).toEqual([{ generation: 3, pids: [4711] }]);
    expect(cgroups.pods()).toEqual(['uid-1']);
  });

  test('a mount that cannot be written is named', () => {
    rmSync(path.join(root, 'unified/heddle/uid-1/3/pids.max'));
    mkdirSync(path.join(root, 'unified/heddle/uid-1/3/pids.max'));
    expect(() => cgroups.create('uid-1', 3)).toThrow(`uid-1/3/pids.max": expected a writable cgroup mount`);
  });

  test('one with a process in it stays, one that is gone is no trouble', () => {
    expect(cgroups.removePod('uid-9')).toBe(true);
    expect(cgroups.generations('uid-9')).toEqual([]);
    // A file in a plain directory keeps it as a process keeps a cgroup.
    expect(cgroups.remove(cgroups.find('uid-1', 3))).toBe(false);
    expect(cgroups.remove(cgroups.find('uid-1', 4))).toBe(true);
  });
});
