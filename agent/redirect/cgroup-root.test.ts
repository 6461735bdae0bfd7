import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { checkCgroup, podsCgroup } from './cgroup-root.ts';

describe('the pods’ cgroup', () => {
  let root: string;

  beforeEach(() => {
    root = mkdtempSync(path.join(os.tmpdir(), 'heddle-cgroup-'));
    writeFileSync(path.join(root, 'cgroup.procs'), '1\n');
  });

  afterEach(() => {
    rmSync(root, { recursive: true });
  });

  function make(directory: string, processes: number[]): void {
    let made = root;
    for (const step of directory.split('/')) {
      made = path.join(made, step);
      mkdirSync(made, { recursive: true });
      writeFileSync(path.join(made, 'cgroup.procs'), '');
    }
    writeFileSync(path.join(made, 'cgroup.procs'), processes.map((pid) => `${pid}\n`).join(''));
  }

  test.each(['kubepods', 'kubepods.slice'])('is %s when the agent is in it', (name) => {
    make(`${name}/besteffort/pod1/container`, [41, 42]);
    expect(podsCgroup(root, 42)).toBe(path.join(root, name));
  });

  test('is the root when the agent is elsewhere, as on a node whose containers are in cgroup v1', () => {
    make('kubepods.slice/burstable/pod1/container', [142]);
    expect(podsCgroup(root, 42)).toBe(root);
  });

  test('is the root where there is no kubelet', () => {
    make('system.slice', [42]);
    expect(podsCgroup(root, 42)).toBe(root);
  });
});

test('a directory of another file system is refused', () => {
  expect(() => checkCgroup('/proc')).toThrow('use cgroup "/proc": expected a directory of a cgroup2 file system');
  expect(() => checkCgroup('/nowhere')).toThrow('use cgroup "/nowhere"');
});
