// The immutable directory a worker version runs from: `<state dir>/runtime/<version>/` with the Node binary, the
// sources and V8's compile cache. Workers of any uid read it, none may write it. Node keeps a compile cache per uid:
// the baked one is root's, and each worker's uid gets a link to it. Reasons: docs/adr/0003-immutable-worker-runtime.md.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  constants,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { HeddleError } from '#lib/errors.ts';
import { isErrno } from '#lib/libc.ts';
import type { Log } from '#lib/log.ts';
import { readRuntimeFiles } from './runtime-files-thread.ts';

export interface WorkerRuntime {
  /** Names code, Node and flags: equal versions are equal workers. */
  version: string;
  directory: string;
  /** The Node binary inside the directory. */
  nodePath: string;
  /** Arguments before the worker's own: flags and the main file. */
  nodeArguments: string[];
  cacheDirectory: string;
}

/**
 * Flags change V8's cache and its memory, so they are part of the version. What a worker holds under load follows from
 * them, what it holds when the load is over from `gc` (lib/idle-memory.ts). docs/adr/0011-memory-of-a-quiet-worker.md
 * has the figures.
 */
const NODE_FLAGS = [
  '--disable-warning=ExperimentalWarning',
  '--expose-gc',
  // The young generation otherwise grows to three times 16 MiB, for no less CPU: nearly all of it dies at once.
  '--max-semi-space-size=2',
  // One thread beside the main one compiles and collects: four of them each hold memory of their own.
  '--v8-pool-size=1',
];
/** The C library otherwise makes an arena for each thread and keeps in it what compilers freed. */
export const NODE_ENVIRONMENT = { MALLOC_ARENA_MAX: '1' };
const MAIN = 'proxy/main.js';
/** Written last: a directory without it is half made. */
const COMPLETE = '.complete';
const BAKE_TIMEOUT_MS = 30_000;
/** A half-made directory may be another agent's work in progress until it is this old. */
const ABANDONED_MS = 10 * 60_000;

export interface RuntimeOptions {
  stateDir: string;
  /** Directory of Heddle's package.json. */
  sourceRoot: string;
  nodePath?: string;
  log: Log;
}

/** Makes the runtime of this code or finds it made. Throws `runtime-failed` with the remedy. */
export async function stageRuntime(options: RuntimeOptions): Promise<WorkerRuntime> {
  const { stateDir, sourceRoot, nodePath = process.execPath, log } = options;
  const files = await readRuntimeFiles(sourceRoot);
  const version = versionOf(files, nodePath);
  const directory = path.join(stateDir, 'runtime', version);
  const runtime: WorkerRuntime = {
    version,
    directory,
    nodePath: path.join(directory, 'node'),
    nodeArguments: [...NODE_FLAGS, path.join(directory, MAIN)],
    cacheDirectory: path.join(directory, 'cache'),
  };
  if (existsSync(path.join(directory, COMPLETE))) return runtime;
  const startedMs = performance.now();
  assertTraversable(stateDir);
  const temporary = `${directory}.${process.pid}.tmp`;
  rmSync(temporary, { recursive: true, force: true });
  for (const { name, content } of files) writeReadable(path.join(temporary, name), content);
  placeBinary(nodePath, path.join(temporary, 'node'));
  // The cache knows files by their absolute path: it is baked where it will be used.
  rmSync(directory, { recursive: true, force: true });
  renameSync(temporary, directory);
  await bake(runtime);
  writeReadable(path.join(directory, COMPLETE), Buffer.alloc(0));
  log.info('staged the runtime of the workers', {
    version,
    files: files.length,
    milliseconds: Math.round(performance.now() - startedMs),
  });
  return runtime;
}

/** Lets workers of this uid read the baked compile cache. Node looks for it under a name that ends with the uid. */
export function shareCompileCache(runtime: WorkerRuntime, uid: number): void {
  for (const name of readdirSync(runtime.cacheDirectory)) {
    if (!name.endsWith('-0')) continue;
    try {
      symlinkSync(name, path.join(runtime.cacheDirectory, `${name.slice(0, -1)}${uid}`));
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error;
    }
  }
}

/** Removes the runtimes that no version in `used` names; returns the removed versions. */
export function removeUnusedRuntimes(stateDir: string, used: ReadonlySet<string>): string[] {
  const root = path.join(stateDir, 'runtime');
  if (!existsSync(root)) return [];
  const removed: string[] = [];
  for (const name of readdirSync(root)) {
    if (used.has(name)) continue;
    const directory = path.join(root, name);
    const isComplete = existsSync(path.join(directory, COMPLETE));
    if (!isComplete && Date.now() - statSync(directory).mtimeMs < ABANDONED_MS) continue;
    rmSync(directory, { recursive: true, force: true });
    removed.push(name);
  }
  return removed;
}

function versionOf(files: readonly { name: string; content: Buffer }[], nodePath: string): string {
  const hash = createHash('sha256');
  const { size } = statSync(nodePath);
  hash.update(JSON.stringify([process.version, process.versions.v8, process.arch, size, NODE_FLAGS, NODE_ENVIRONMENT]));
  for (const { name, content } of files) hash.update(`\0${name}\0${content.length}\0`).update(content);
  return hash.digest('hex').slice(0, 16);
}

/** A worker's uid owns nothing on the way to its runtime: every directory must let others pass. */
function assertTraversable(stateDir: string): void {
  const root = path.join(stateDir, 'runtime');
  mkdirSync(root, { recursive: true, mode: 0o755 });
  chmodSync(root, 0o755);
  for (let at = root; at !== path.dirname(at); at = path.dirname(at)) {
    if ((statSync(at).mode & constants.S_IXOTH) !== 0) continue;
    throw new HeddleError(
      'runtime-failed',
      `stage the workers' runtime in "${root}": expected "${at}" to let other users pass: ` +
        `run "chmod o+x ${at}" or choose another --state-dir`,
    );
  }
}

function writeReadable(file: string, content: Buffer): void {
  mkdirSync(path.dirname(file), { recursive: true, mode: 0o755 });
  writeFileSync(file, content);
  chmodSync(file, 0o644);
}

/** A hard link shares the page cache with the agent's own Node; another file system needs a copy. */
function placeBinary(from: string, to: string): void {
  const isExecutable = (statSync(from).mode & constants.S_IXOTH) !== 0;
  try {
    if (isExecutable) {
      linkSync(from, to);
      return;
    }
  } catch (error) {
    if (!isErrno(error, 'EXDEV', 'EPERM', 'EMLINK', 'ENOTSUP')) throw error;
  }
  copyFileSync(from, to, constants.COPYFILE_FICLONE);
  chmodSync(to, 0o755);
}

/** Runs the worker's start as root, so that what it compiles is in the cache, and makes that readable for all. */
async function bake(runtime: WorkerRuntime): Promise<void> {
  mkdirSync(runtime.cacheDirectory, { mode: 0o755 });
  try {
    await promisify(execFile)(runtime.nodePath, [...runtime.nodeArguments, '--check-config'], {
      cwd: runtime.directory,
      env: { NODE_COMPILE_CACHE: runtime.cacheDirectory },
      timeout: BAKE_TIMEOUT_MS,
    });
  } catch (cause) {
    throw new HeddleError(
      'runtime-failed',
      `start a worker from "${runtime.directory}" to bake its compile cache: expected exit status 0`,
      { cause },
    );
  }
  const entries = readdirSync(runtime.cacheDirectory, { recursive: true, withFileTypes: true });
  for (const entry of entries) chmodSync(path.join(entry.parentPath, entry.name), entry.isDirectory() ? 0o755 : 0o644);
  if (!entries.some((entry) => entry.isDirectory() && entry.name.endsWith('-0'))) {
    throw new HeddleError(
      'runtime-failed',
      `bake the compile cache of "${runtime.directory}": expected root to run this`,
    );
  }
}
