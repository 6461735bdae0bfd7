import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { PodStatusWriter } from './status.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), 'heddle-status-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const key = { namespace: 'shop', name: 'web-1' };

test('a report is a Pod manifest, replaced whole, with nothing left beside it', async () => {
  const writer = new PodStatusWriter(directory);
  await writer.write(key, { uid: 'u', nodeName: 'n', status: { phase: 'Pending' } });
  await writer.write(key, { uid: 'u', nodeName: 'n', status: { phase: 'Running', podIPs: [{ ip: '10.1.0.1' }] } });
  const file = path.join(directory, 'status/shop/web-1.json');
  expect(JSON.parse(readFileSync(file, 'utf8'))).toEqual({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { namespace: 'shop', name: 'web-1', uid: 'u' },
    spec: { containers: [], nodeName: 'n' },
    status: { phase: 'Running', podIPs: [{ ip: '10.1.0.1' }] },
  });
  expect(readdirSync(path.dirname(file))).toEqual(['web-1.json']);
});

test('reports are removed one by one or all', async () => {
  const writer = new PodStatusWriter(directory);
  await writer.clear();
  for (const name of ['a', 'b']) await writer.write({ ...key, name }, { status: {} });
  await writer.remove({ ...key, name: 'a' });
  await writer.remove({ ...key, name: 'a' });
  expect(readdirSync(path.join(directory, 'status/shop'))).toEqual(['b.json']);
  await writer.clear();
  expect(readdirSync(path.join(directory, 'status'))).toEqual([]);
});

test.each(['../x', 'a/b', '', 'A'])('the name "%s" is refused', async (name) => {
  await expect(new PodStatusWriter(directory).write({ namespace: 'shop', name }, { status: {} })).rejects.toThrow(
    'expected DNS names',
  );
});
