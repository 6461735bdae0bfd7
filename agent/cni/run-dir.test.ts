import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { CniRecord } from '#api/cni-message.ts';
import { markReady, readRecords, removeRecord, writeMeshedNamespaces } from './run-dir.ts';

let runDir: string;

beforeEach(() => {
  runDir = mkdtempSync(path.join(os.tmpdir(), 'heddle-rundir-'));
});

afterEach(() => rmSync(runDir, { recursive: true }));

function leave(folder: string, name: string, record: Partial<CniRecord> | string): void {
  const whole = {
    v: 1,
    kind: 'missed',
    containerId: 'c1',
    ifName: 'eth0',
    network: 'k8s',
    netnsPath: '/run/netns/p',
    netnsInode: 7,
    pod: { namespace: 'shop', name: 'web-1', uid: 'u' },
    annotations: null,
    ips: ['10.0.0.1'],
    cause: 'connection refused',
    timeMs: 5,
    pluginVersion: '0.1.0',
  };
  mkdirSync(path.join(runDir, folder), { recursive: true });
  const text = typeof record === 'string' ? record : JSON.stringify({ ...whole, ...record });
  writeFileSync(path.join(runDir, folder, name), text);
}

test('the set of meshed namespaces is replaced as a whole', () => {
  writeMeshedNamespaces(runDir, { meshed: { shop: {} }, unmeshed: ['batch'] }, 1);
  writeMeshedNamespaces(runDir, { meshed: { shop: { onAgentDown: 'open' } }, unmeshed: [] }, 2);
  const file = path.join(runDir, 'meshed-namespaces.json');
  expect(JSON.parse(readFileSync(file, 'utf8'))).toEqual({
    v: 1,
    writtenMs: 2,
    meshed: { shop: { onAgentDown: 'open' } },
    unmeshed: [],
  });
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(readdirSync(runDir)).toEqual(['meshed-namespaces.json']);
});

test('a set longer than the plugin reads loses the unmeshed, whose pods then ask', () => {
  const unmeshed = Array.from({ length: 70_000 }, (_, i) => `namespace-${i}-${'x'.repeat(50)}`);
  writeMeshedNamespaces(runDir, { meshed: { shop: {} }, unmeshed }, 1);
  expect(JSON.parse(readFileSync(path.join(runDir, 'meshed-namespaces.json'), 'utf8'))).toMatchObject({
    meshed: { shop: {} },
    unmeshed: [],
  });
});

test('records come oldest first, by kind, and go', () => {
  expect(readRecords(runDir, 'missed')).toEqual({ records: [], faults: [] });
  leave('missed', 'c1.json', { timeMs: 9 });
  leave('missed', 'c2.json', { containerId: 'c2', timeMs: 3 });
  leave('tombstones', 'c3.json', { containerId: 'c3', kind: 'tombstone' });
  expect(readRecords(runDir, 'missed').records.map((record) => record.containerId)).toEqual(['c2', 'c1']);
  expect(readRecords(runDir, 'tombstone').records).toHaveLength(1);
  removeRecord(runDir, 'missed', 'c1');
  removeRecord(runDir, 'missed', 'c1');
  expect(readRecords(runDir, 'missed').records.map((record) => record.containerId)).toEqual(['c2']);
});

test('what is no record is named and harms no other', () => {
  leave('open', 'c1.json', { kind: 'open' });
  leave('open', 'c2.json', '{"v":1,');
  leave('open', 'c3.json', { kind: 'open', containerId: 'other' });
  leave('open', 'c4.json', { kind: 'missed', containerId: 'c4' });
  leave('open', 'c5.json', { v: 2 as 1 });
  leave('open', '.new-123', 'half');
  const { records, faults } = readRecords(runDir, 'open');
  expect(records.map((record) => record.containerId)).toEqual(['c1']);
  expect(faults.map((fault) => path.basename(fault.file)).sort()).toEqual(['c2.json', 'c3.json', 'c4.json', 'c5.json']);
});

test('the ready marker carries the boot', () => {
  markReady(runDir);
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  expect(readdirSync(runDir)).toEqual([`ready-${bootId}`]);
});
