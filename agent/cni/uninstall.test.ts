import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { silentLog } from '#lib/log.ts';
import { pluginSection } from './conflist.ts';
import { CniInstaller } from './install.ts';
import type { InstallMode } from './install-plan.ts';
import { podsOfPlugin, uninstallCni } from './uninstall.ts';

let root: string;
let confDir: string;
let binDir: string;
let cacheDir: string;
let source: string;
const kindnet = readFileSync(path.join(import.meta.dirname, 'testdata/10-kindnet.conflist'));

beforeEach(() => {
  root = mkdtempSync(path.join(os.tmpdir(), 'heddle-uninstall-'));
  [confDir, binDir, cacheDir, source] = ['net.d', 'bin', 'cache', 'source'].map((name) => path.join(root, name)) as [
    string,
    string,
    string,
    string,
  ];
  mkdirSync(confDir);
  mkdirSync(path.join(cacheDir, 'results'), { recursive: true });
  writeFileSync(path.join(confDir, '10-kindnet.conflist'), kindnet);
  writeFileSync(source, `#!/bin/sh\necho '{"supportedVersions":["1.0.0"]}'\n`, { mode: 0o755 });
});

afterEach(() => rmSync(root, { recursive: true }));

async function install(mode: InstallMode): Promise<void> {
  const runtime = { kind: 'containerd', supportsDropIns: true, defaultNetwork: null, isInstalled: () => true } as const;
  const options = { confDir, binDir, source, mode, runtime, section: pluginSection(), log: silentLog };
  expect(await new CniInstaller(options).install()).toMatchObject({ isInstalled: true });
}

function note(containerId: string, list: string): string {
  const file = path.join(cacheDir, 'results', `k8s-${containerId}-eth0`);
  const config = Buffer.from(list).toString('base64');
  writeFileSync(file, JSON.stringify({ kind: 'cniCacheV1', containerId, config, ifName: 'eth0', networkName: 'k8s' }));
  return file;
}

const binary = (): string => path.join(binDir, 'heddle-cni');

test.each(['chained', 'drop-in', 'owned'] as const)('%s: the node is as it was before', async (mode) => {
  await install(mode);
  const order: string[] = [];
  const confirmReload = async (): Promise<void> => {
    // The configuration is gone and the executable is not: a runtime that reads now loses nothing.
    order.push(
      `reload ${readFileSync(path.join(confDir, '10-kindnet.conflist')).equals(kindnet)} ${existsSync(binary())}`,
    );
  };
  const result = await uninstallCni({ confDir, binDirs: [binDir], cacheDir, log: silentLog, confirmReload });
  expect(order).toEqual(['reload true true']);
  expect(result).toMatchObject({ pods: [], binaryRemoved: true });
  expect(execFileSync('ls', ['-A', confDir], { encoding: 'utf8' })).toBe('10-kindnet.conflist\n');
  expect(execFileSync('ls', ['-A', binDir], { encoding: 'utf8' })).toBe('');
  expect(await uninstallCni({ confDir, binDirs: [binDir], cacheDir, log: silentLog })).toMatchObject({
    changed: [],
    binaryRemoved: true,
  });
});

test('the executable stays while a pod is left whose removal would call it', async () => {
  await install('chained');
  const list = readFileSync(path.join(confDir, '10-kindnet.conflist'), 'utf8');
  const pod = note('with', list);
  note('without', kindnet.toString());
  const options = { confDir, binDirs: [binDir], cacheDir, log: silentLog, confirmReload: async () => {} };
  expect(await uninstallCni(options)).toEqual({
    changed: ['10-kindnet.conflist'],
    pods: ['with'],
    binaryRemoved: false,
  });
  expect(existsSync(binary())).toBe(true);
  rmSync(pod);
  expect(await uninstallCni(options)).toEqual({ changed: [], pods: [], binaryRemoved: true });
  expect(existsSync(binary())).toBe(false);
});

test('by force it goes at once', async () => {
  await install('chained');
  note('with', readFileSync(path.join(confDir, '10-kindnet.conflist'), 'utf8'));
  const options = { confDir, binDirs: [binDir], cacheDir, log: silentLog, confirmReload: async () => {}, force: true };
  expect(await uninstallCni(options)).toMatchObject({ pods: ['with'], binaryRemoved: true });
});

test('notes that cannot be read count as pods; absent notes do not', () => {
  writeFileSync(path.join(cacheDir, 'results', 'broken'), '{"kind":"cniCa');
  writeFileSync(path.join(cacheDir, 'results', 'foreign'), '{"kind":"other"}');
  writeFileSync(path.join(cacheDir, 'results', 'strange'), '{"kind":"cniCacheV1","config":7}');
  expect(podsOfPlugin(cacheDir)).toEqual(['broken', 'strange']);
  expect(podsOfPlugin(path.join(root, 'none'))).toEqual([]);
});

test('a node where nothing is installed, or no directory is', async () => {
  rmSync(confDir, { recursive: true });
  const result = await uninstallCni({ confDir, binDirs: [path.join(root, 'nowhere')], cacheDir, log: silentLog });
  expect(result).toEqual({ changed: [], pods: [], binaryRemoved: true });
});

describe('as commands', () => {
  const main = path.join(import.meta.dirname, 'main.ts');
  function run(...args: string[]): { status: number | null; answer: Record<string, unknown>; stderr: string } {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', main, ...args],
      { encoding: 'utf8', timeout: 20_000 },
    );
    return { status, answer: stdout === '' ? {} : JSON.parse(stdout), stderr };
  }

  test('status, install, status, uninstall', { timeout: 60_000 }, () => {
    const node = path.join(root, 'node');
    mkdirSync(path.join(node, 'etc/cni'), { recursive: true });
    mkdirSync(path.join(node, 'opt/cni/bin'), { recursive: true });
    execFileSync('cp', ['-r', confDir, path.join(node, 'etc/cni/net.d')]);
    const options = ['--host-root', node, '--source', source, '--runtime', 'containerd@2.1.4', '--cache-dir', '/cache'];
    expect(run('status', ...options)).toMatchObject({
      status: 1,
      answer: { isInstalled: false, mode: 'drop-in', network: 'kindnet', missing: ['write kindnet/99-heddle.conf'] },
    });
    expect(run('install', ...options)).toMatchObject({ status: 0, answer: { isInstalled: true, mode: 'drop-in' } });
    expect(run('status', ...options)).toMatchObject({ status: 0, answer: { isInstalled: true, missing: [] } });
    expect(run('uninstall', ...options)).toMatchObject({ status: 0, answer: { binaryRemoved: true } });
    expect(existsSync(path.join(node, 'etc/cni/net.d/kindnet'))).toBe(false);
    expect(existsSync(path.join(node, 'opt/cni/bin/heddle-cni'))).toBe(false);
  });

  test('a bad runtime is refused', () => {
    const { status, stderr } = run('status', '--runtime', 'containerd');
    expect(status).not.toBe(0);
    expect(stderr).toContain('expected a name and a version, such as containerd@2.1.4');
  });
});
