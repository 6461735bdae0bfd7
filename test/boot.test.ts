// Every main.ts loads under the real Node with type stripping: the test runner accepts code that Node cannot load.

import { execFileSync, spawnSync } from 'node:child_process';
import path from 'node:path';
import { describe, expect, test } from 'vitest';

const root = path.resolve(import.meta.dirname, '..');
const node = path.join(root, 'node_modules/.bin/node');
const mains = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '--', '*main.ts'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter(Boolean);

describe('boot', () => {
  test.each(mains)('%s starts with --check-config', (main) => {
    const { status, stderr } = spawnSync(node, ['--disable-warning=ExperimentalWarning', main, '--check-config'], {
      cwd: root,
      encoding: 'utf8',
      timeout: 30_000,
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  });
});
