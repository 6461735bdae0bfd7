// The installer on real directories, with other programs that write in them. The plugin is a script that answers
// VERSION; what it does otherwise is tested elsewhere.

import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createLog } from '#lib/log.ts';
import { parseConfig, pluginSection } from './conflist.ts';
import { CniInstaller, type InstallerOptions } from './install.ts';
import type { InstallMode, RuntimeRules } from './install-plan.ts';

const testdata = path.join(import.meta.dirname, 'testdata');
const PLUGIN = `#!/bin/sh\necho '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}'\n`;
const containerd: RuntimeRules = {
  kind: 'containerd',
  supportsDropIns: false,
  defaultNetwork: null,
  isInstalled: () => true,
};

let root: string;
let confDir: string;
let binDir: string;
let source: string;
let lines: string[];
let installer: CniInstaller | undefined;
let others: ChildProcess[];

beforeEach(() => {
  root = mkdtempSync(path.join(os.tmpdir(), 'heddle-install-'));
  confDir = path.join(root, 'net.d');
  binDir = path.join(root, 'bin');
  source = path.join(root, 'source');
  mkdirSync(confDir);
  writeFileSync(source, PLUGIN, { mode: 0o755 });
  lines = [];
  others = [];
  installer = undefined;
});

afterEach(async () => {
  await installer?.stop();
  for (const other of others) other.kill('SIGKILL');
  rmSync(root, { recursive: true, force: true });
});

function make(options: Partial<InstallerOptions> = {}): CniInstaller {
  const { log } = createLog({ level: 'debug', sink: { write: (line) => lines.push(line) } });
  installer = new CniInstaller({
    confDir,
    binDir,
    source,
    mode: 'auto',
    runtime: containerd,
    section: pluginSection(),
    log,
    ...options,
  });
  return installer;
}

function put(name: string, as = name): string {
  const file = path.join(confDir, as);
  writeFileSync(file, readFileSync(path.join(testdata, name)));
  return file;
}

/** Plugins of the network that a runtime would load, drop-ins included. */
function chain(): string[] {
  const first = readdirSync(confDir)
    .filter((name) => /\.(conf|conflist|json)$/.test(name))
    .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))[0]!;
  const config = parseConfig(readFileSync(path.join(confDir, first)), first.endsWith('.conflist') ? 'list' : 'single');
  const dropIns = path.join(confDir, config.name);
  const more = existsSync(dropIns)
    ? readdirSync(dropIns)
        .filter((name) => name.endsWith('.conf'))
        .map((name) => JSON.parse(readFileSync(path.join(dropIns, name), 'utf8')).type as string)
    : [];
  return [...config.types, ...more];
}

const temporaries = (directory: string): string[] => readdirSync(directory).filter((name) => name.startsWith('.'));

describe('installs', () => {
  test.each([
    ['chained', containerd, '10-kindnet.conflist', ['ptp', 'portmap', 'heddle-cni']],
    [
      'drop-in',
      { ...containerd, supportsDropIns: true },
      '10-calico.conflist',
      ['calico', 'bandwidth', 'portmap', 'heddle-cni'],
    ],
    ['owned', containerd, '00-multus.conf', ['multus-shim', 'heddle-cni']],
  ] as [InstallMode, RuntimeRules, string, string[]][])('%s', async (mode, runtime, name, types) => {
    put(name);
    const state = await make({ runtime }).install();
    expect(state).toMatchObject({ mode, isInstalled: true, binaryMatches: true, cause: null, isWar: false });
    expect(chain()).toEqual(types);
    expect(readFileSync(path.join(binDir, 'heddle-cni'), 'utf8')).toBe(PLUGIN);
    expect(statSync(path.join(binDir, 'heddle-cni')).mode & 0o777).toBe(0o755);
    expect([...temporaries(confDir), ...temporaries(binDir)]).toEqual([]);
  });

  test("somebody else's file keeps its mode and owner", async () => {
    const file = put('10-kindnet.conflist');
    chmodSync(file, 0o640);
    await make().install();
    expect(statSync(file).mode & 0o777).toBe(0o640);
    expect(chain()).toContain('heddle-cni');
  });

  test('a second time it writes nothing', async () => {
    const file = put('10-kindnet.conflist');
    await make().install();
    const before = [statSync(file), statSync(path.join(binDir, 'heddle-cni'))].map((stat) => [stat.ino, stat.ctimeMs]);
    await make().install();
    const after = [statSync(file), statSync(path.join(binDir, 'heddle-cni'))].map((stat) => [stat.ino, stat.ctimeMs]);
    expect(after).toEqual(before);
  });

  test('a new version of the plugin replaces the old by another inode: one that runs goes on', async () => {
    put('10-kindnet.conflist');
    await make().install();
    const target = path.join(binDir, 'heddle-cni');
    const before = statSync(target).ino;
    writeFileSync(source, `${PLUGIN}# newer\n`);
    await make().install();
    expect(readFileSync(target, 'utf8')).toContain('# newer');
    expect(statSync(target).ino).not.toBe(before);
  });

  test('what a killed installation left goes', async () => {
    put('10-kindnet.conflist');
    mkdirSync(binDir);
    writeFileSync(path.join(confDir, '.10-kindnet.conflist.heddle-0123abcd'), 'half');
    writeFileSync(path.join(binDir, '.heddle-cni.heddle-0123abcd'), 'half');
    writeFileSync(path.join(confDir, '.other'), 'not ours');
    await make().install();
    expect(temporaries(confDir)).toEqual(['.other']);
    expect(temporaries(binDir)).toEqual([]);
  });
});

describe('refuses, and says why', () => {
  test.each([
    [
      'a half-written file',
      () => writeFileSync(path.join(confDir, '00-x.conflist'), '{"na'),
      /"00-x.conflist" cannot be parsed/,
    ],
    ['no file', () => {}, /no network configuration/],
    [
      'no directory',
      () => rmSync(confDir, { recursive: true }),
      /is not there: expected the network plugin to make it/,
    ],
    [
      'a link to nothing',
      () => symlinkSync('/nonexistent', path.join(confDir, '00-x.conflist')),
      /"00-x.conflist" cannot be parsed/,
    ],
  ] as [string, () => void, RegExp][])('%s', async (_name, prepare, cause) => {
    prepare();
    const state = await make().install();
    expect(state).toMatchObject({ isInstalled: false, binaryMatches: true });
    expect(state.cause).toMatch(cause);
    if (existsSync(confDir)) expect(readdirSync(confDir).filter((name) => name.includes('heddle'))).toEqual([]);
  });

  test('a plugin that does not run on this node: the configuration is not touched', async () => {
    const file = put('10-kindnet.conflist');
    writeFileSync(source, '\x7fELF of another CPU');
    const state = await make().install();
    expect(state).toMatchObject({ isInstalled: false, binaryMatches: false });
    expect(state.cause).toMatch(/expected it to answer VERSION/);
    expect(readFileSync(file)).toEqual(readFileSync(path.join(testdata, '10-kindnet.conflist')));
  });

  test('a directory of far too many entries', async () => {
    for (let i = 0; i < 1_025; i++) writeFileSync(path.join(confDir, `noise-${i}`), '');
    const file = put('10-kindnet.conflist');
    expect((await make().install()).cause).toMatch(/with 1026 entries: expected at most 1024/);
    expect(readFileSync(file)).toEqual(readFileSync(path.join(testdata, '10-kindnet.conflist')));
  });

  test('no plugin to install', async () => {
    put('10-kindnet.conflist');
    rmSync(source);
    expect((await make().install()).cause).toMatch(/ENOENT/);
    expect(chain()).not.toContain('heddle-cni');
  });
});

describe('watches and repairs', () => {
  const repaired = (): Promise<void> =>
    vi.waitFor(() => expect(chain()).toContain('heddle-cni'), { timeout: 2_000, interval: 10 });

  test.each([
    ['rewritten in place', () => put('10-kindnet.conflist')],
    [
      'rewritten by rename',
      () => {
        const temporary = path.join(confDir, '.their.tmp');
        writeFileSync(temporary, readFileSync(path.join(testdata, '10-kindnet.conflist')));
        renameSync(temporary, path.join(confDir, '10-kindnet.conflist'));
      },
    ],
    [
      'half written first',
      () => {
        const text = readFileSync(path.join(testdata, '10-kindnet.conflist'));
        writeFileSync(path.join(confDir, '10-kindnet.conflist'), text.subarray(0, 100));
        setTimeout(() => appendFileSync(path.join(confDir, '10-kindnet.conflist'), text.subarray(100)), 100);
      },
    ],
    ['another network takes over', () => put('05-cilium.conflist')],
    [
      'the directory is deleted and made anew',
      () => {
        rmSync(confDir, { recursive: true });
        setTimeout(() => {
          mkdirSync(confDir);
          put('10-calico.conflist');
        }, 50);
      },
    ],
    [
      'the directory is replaced',
      () => {
        renameSync(confDir, `${confDir}.old`);
        mkdirSync(confDir);
        put('10-kindnet.conflist');
      },
    ],
  ] as [string, () => unknown][])('within a second: %s', async (_name, undo) => {
    put('10-kindnet.conflist');
    await make().start();
    expect(chain()).toContain('heddle-cni');
    undo();
    expect(existsSync(confDir) && readdirSync(confDir).length > 0 ? isChained() : false).toBe(false);
    await repaired();
    await vi.waitFor(() => expect(installer!.state).toMatchObject({ isInstalled: true, cause: null }));
    expect(temporaries(confDir).filter((name) => name.includes('heddle'))).toEqual([]);
  });

  function isChained(): boolean {
    try {
      return chain().includes('heddle-cni');
    } catch {
      return false;
    }
  }

  test('the drop-in and the executable too', async () => {
    put('10-kindnet.conflist');
    await make({ runtime: { ...containerd, supportsDropIns: true } }).start();
    rmSync(path.join(confDir, 'kindnet/99-heddle.conf'));
    await repaired();
    rmSync(path.join(binDir, 'heddle-cni'));
    await vi.waitFor(() => expect(existsSync(path.join(binDir, 'heddle-cni'))).toBe(true), { timeout: 2_000 });
    rmSync(path.join(confDir, 'kindnet'), { recursive: true });
    await repaired();
  });

  test('the runtime is told of a drop-in by a write in the directory it watches', async () => {
    put('10-kindnet.conflist');
    const before = statSync(confDir).mtimeMs;
    await make({ runtime: { ...containerd, supportsDropIns: true } }).install();
    expect(statSync(confDir).mtimeMs).toBeGreaterThan(before);
    expect(temporaries(confDir)).toEqual([]);
  });

  test('an agent that finds its drop-in tells the runtime once: the one before may have been killed too early', async () => {
    put('10-kindnet.conflist');
    const runtime = { ...containerd, supportsDropIns: true };
    await make({ runtime }).install();
    const before = statSync(confDir).mtimeMs;
    await make({ runtime }).install();
    expect(statSync(confDir).mtimeMs).toBeGreaterThan(before);
  });

  test('stopping removes nothing', async () => {
    put('10-kindnet.conflist');
    await make().start();
    await installer!.stop();
    expect(chain()).toContain('heddle-cni');
    expect(existsSync(path.join(binDir, 'heddle-cni'))).toBe(true);
  });

  test('waits for the network plugin of a node that has just started', async () => {
    rmSync(confDir, { recursive: true });
    await make().start();
    expect(installer!.state.isInstalled).toBe(false);
    mkdirSync(confDir);
    put('10-aws.conflist');
    await repaired();
  });
});

describe('names who did it', () => {
  test('by its process, where the kernel tells', async () => {
    const file = put('10-kindnet.conflist');
    copyFile(file, path.join(root, 'theirs'));
    await make().start();
    execFileSync('cp', [path.join(root, 'theirs'), file]);
    await vi.waitFor(() => expect(installer!.state.rewrites.other).toBe(1));
    expect(lines.join('')).toMatch(
      /CNI configuration was undone.*process \\"(cp|gone already)\\" \(\d+\), which wrote \\"10-kindnet.conflist\\"/,
    );
  });

  test('by what the files give away, where it does not', async () => {
    put('05-cilium.conflist');
    await make().start();
    // This process is not named: it is the installer's own.
    put('05-cilium.conflist');
    await vi.waitFor(() => expect(installer!.state.rewrites.cilium).toBe(1));
    expect(lines.join('')).toContain('probably cilium, whose list it is: set its option cni.exclusive to false');
  });

  function copyFile(from: string, to: string): void {
    writeFileSync(to, readFileSync(from));
  }
});

test('a war: another program rewrites every 200 ms; repairs become rare, peace brings the plugin back', async () => {
  const file = put('05-cilium.conflist');
  const theirs = path.join(root, 'theirs');
  writeFileSync(theirs, readFileSync(file));
  await make({ pace: { freeRepairs: 3, windowMs: 1_500, minMs: 300, maxMs: 1_200 } }).start();
  const rounds = 18;
  const war = spawn('sh', [
    '-c',
    `i=0; while [ $i -lt ${rounds} ]; do cp ${theirs} ${file}.x && mv ${file}.x ${file}; sleep 0.2; i=$((i+1)); done`,
  ]);
  others.push(war);
  await vi.waitFor(() => expect(installer!.state.isWar).toBe(true), { timeout: 5_000 });
  await vi.waitFor(() => expect(installer!.state).toMatchObject({ isInstalled: false }), { timeout: 5_000 });
  expect(installer!.state.cause).toMatch(/undone again and again by process .*: repairs are delayed/);
  await new Promise((resolve) => war.once('exit', resolve));
  const written = lines.filter((line) => line.includes('CNI configuration written')).length;
  expect(written).toBeGreaterThan(3);
  expect(written).toBeLessThan(14);
  expect(lines.length).toBeLessThan(80);
  await vi.waitFor(() => expect(chain()).toContain('heddle-cni'), { timeout: 3_000 });
  await vi.waitFor(() => expect(installer!.state).toMatchObject({ isInstalled: true, cause: null, isWar: false }), {
    timeout: 8_000,
  });
}, 30_000);

describe('killed at every step, and started again', () => {
  const harness = path.join(testdata, 'install-until.ts');

  function run(mode: InstallMode, until: string): { killed: boolean; output: string } {
    const { status, signal, stdout, stderr } = spawnSync(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', harness, confDir, binDir, source, mode, until],
      { encoding: 'utf8', timeout: 20_000 },
    );
    if (signal !== 'SIGKILL') expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    return { killed: signal === 'SIGKILL', output: stdout };
  }

  test.each(['chained', 'drop-in', 'owned'] as const)('%s', { timeout: 120_000 }, (mode) => {
    put('10-kindnet.conflist');
    const { points } = JSON.parse(run(mode, 'none').output) as { points: string[] };
    // Executable (created, written, synced, renamed, done), between, configuration (the same).
    expect(points).toHaveLength(11);
    expect(points.indexOf('binary-done')).toBeLessThan(points.findIndex((point) => point.startsWith('config-')));
    for (const point of points) {
      rmSync(confDir, { recursive: true });
      rmSync(binDir, { recursive: true });
      mkdirSync(confDir);
      put('10-kindnet.conflist');
      expect(run(mode, point).killed).toBe(true);
      // What the runtime finds now is whole, and never names an executable that is not there.
      if (chain().includes('heddle-cni')) expect(readFileSync(path.join(binDir, 'heddle-cni'), 'utf8')).toBe(PLUGIN);
      expect(chain().slice(0, 2)).toEqual(['ptp', 'portmap']);
      run(mode, 'none');
      expect(chain()).toEqual(['ptp', 'portmap', 'heddle-cni']);
      const directories = [confDir, binDir, ...(mode === 'drop-in' ? [path.join(confDir, 'kindnet')] : [])];
      expect(directories.flatMap(temporaries)).toEqual([]);
    }
  });
});

describe('a full disk', () => {
  let mount: string;
  beforeEach(() => {
    mount = path.join(root, 'disk');
    mkdirSync(mount);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'heddle-test', mount]);
    confDir = path.join(mount, 'net.d');
    mkdirSync(confDir);
  });
  afterEach(async () => {
    await installer?.stop();
    installer = undefined;
    execFileSync('umount', ['-l', mount]);
  });

  test('their file stays whole, nothing is left behind, and space brings the plugin', async () => {
    const file = put('10-calico.conflist');
    const before = readFileSync(file);
    const ballast = path.join(mount, 'ballast');
    expect(spawnSync('dd', ['if=/dev/zero', `of=${ballast}`, 'bs=1k']).status).not.toBe(0);
    await make().start();
    expect(installer!.state).toMatchObject({ isInstalled: false, binaryMatches: true });
    expect(installer!.state.cause).toMatch(/10-calico.conflist": ENOSPC: expected space/);
    expect(readFileSync(file)).toEqual(before);
    expect(temporaries(confDir)).toEqual([]);
    rmSync(ballast);
    await vi.waitFor(() => expect(installer!.state.isInstalled).toBe(true), { timeout: 3_000 });
    expect(lines.filter((line) => line.includes('ENOSPC'))).toHaveLength(1);
  });
});
