import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createLog } from '#lib/log.ts';
import { type Sandbox, SandboxStore } from './sandboxes.ts';

const sandbox: Sandbox = {
  v: 1,
  containerId: 'c1',
  ifName: 'eth0',
  network: 'net',
  netnsPath: '/run/netns/x',
  netnsInode: '18446744073709551615',
  pod: { namespace: 'shop', name: 'web', uid: 'u1' },
  annotations: null,
  ips: ['10.0.0.1'],
  slot: 3,
};

describe('remembered sandboxes', () => {
  let runDir: string;
  const logged: Record<string, unknown>[] = [];
  const { log } = createLog({ sink: { write: (line) => logged.push(JSON.parse(line)) } });
  beforeEach(() => {
    runDir = mkdtempSync(path.join(os.tmpdir(), 'heddle-sandboxes-'));
    logged.length = 0;
  });
  afterEach(() => rmSync(runDir, { recursive: true }));

  test('are there for the next agent until they are removed', () => {
    const store = new SandboxStore(runDir, log);
    store.save(sandbox);
    store.save({ ...sandbox, slot: null });
    const directory = path.join(runDir, 'pods');
    expect(statSync(path.join(directory, 'c1.json')).mode & 0o777).toBe(0o600);
    expect(new SandboxStore(runDir, log).load()).toEqual([{ ...sandbox, slot: null }]);
    store.remove('c1');
    store.remove('c1');
    expect(readdirSync(directory)).toEqual([]);
  });

  test('one that cannot be read is named and left alone; the others count', () => {
    const store = new SandboxStore(runDir, log);
    store.save(sandbox);
    const broken = {
      'half.json': '{"v":1',
      'future.json': JSON.stringify({ ...sandbox, v: 2 }),
      'path.json': JSON.stringify({ ...sandbox, pod: { ...sandbox.pod, uid: '../../etc' } }),
      'list.json': '[]',
    };
    for (const [name, text] of Object.entries(broken)) writeFileSync(path.join(runDir, 'pods', name), text);
    expect(store.load()).toEqual([sandbox]);
    expect(logged.map(({ file }) => path.basename(file as string)).sort()).toEqual(Object.keys(broken).sort());
    expect(readdirSync(path.join(runDir, 'pods'))).toHaveLength(5);
  });

  test('a container ID that is no file name is refused', () => {
    const store = new SandboxStore(runDir, log);
    expect(() => store.save({ ...sandbox, containerId: '../x' })).toThrow('use the container ID "../x"');
  });
});
