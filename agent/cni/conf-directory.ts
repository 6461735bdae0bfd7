// The directory of network configurations on disk: its picture for the plan, and the plan's steps done to it.

import {
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { HeddleError } from '#lib/errors.ts';
import { isErrno } from '#lib/libc.ts';
import { type FaultPoint, removeDurably, removeLeftovers, writeAtomically } from './atomic-file.ts';
import { CONFIG_BYTES_MAX } from './conflist.ts';
import { type ConfDirectory, type ConfFile, DROP_IN_NAME, type InstallStep } from './install-plan.ts';

/** More than so many entries are not looked at; directories of network configurations hold a handful. */
const ENTRIES_MAX = 1_024;
const MODE = 0o644;

/** What is in the directory now. Throws `no-directory` when it is not there. */
export function readConfDirectory(directory: string): ConfDirectory {
  const files: ConfFile[] = [];
  const dropIns = new Map<string, Uint8Array>();
  for (const entry of listEntries(directory)) {
    const file = path.join(directory, entry.name);
    if (entry.isDirectory()) {
      const bytes = readWhole(path.join(file, DROP_IN_NAME));
      if (bytes !== null) dropIns.set(entry.name, bytes);
      continue;
    }
    const isSymlink = entry.isSymbolicLink();
    if (!isSymlink && !entry.isFile()) continue;
    const bytes = readWhole(file);
    // A link to nothing is an error for the runtime: empty bytes are one for us. A file that went meanwhile is none.
    if (bytes !== null) files.push({ name: entry.name, bytes, isSymlink });
    else if (isSymlink) files.push({ name: entry.name, bytes: new Uint8Array(), isSymlink });
  }
  return { files, dropIns };
}

/** Does the steps in order. `picture` is what they were planned from: a file that changed since stops them. */
export function applySteps(
  directory: string,
  picture: ConfDirectory,
  steps: readonly InstallStep[],
  faultPoint: FaultPoint = () => {},
): void {
  for (const step of steps) {
    const file = path.join(directory, step.path);
    const isDropIn = step.path.includes('/');
    if (step.kind === 'remove') {
      removeDurably(file);
      if (isDropIn) removeEmptyDirectory(path.dirname(file));
      faultPoint(`config-removed ${step.path}`);
      continue;
    }
    if (isDropIn) {
      mkdirSync(path.dirname(file), { recursive: true, mode: 0o755 });
      removeLeftovers(path.dirname(file));
    }
    const before = isDropIn
      ? picture.dropIns.get(path.dirname(step.path))
      : picture.files.find(({ name }) => name === step.path)?.bytes;
    writeAtomically({
      file,
      bytes: step.bytes,
      mode: MODE,
      replaces: before ?? null,
      faultPoint: (point) => faultPoint(`config-${point} ${step.path}`),
    });
  }
  // Runtimes watch the directory, not what is below it.
  if (steps.some((step) => step.path.includes('/'))) pokeRuntime(directory);
}

/** Makes the runtime read the directory again, by a write and a removal of a name that it does not look at. */
export function pokeRuntime(directory: string): void {
  const file = path.join(directory, '.poke.heddle-00000000');
  writeFileSync(file, 'read again\n');
  rmSync(file, { force: true });
}

function listEntries(directory: string) {
  try {
    const entries = readdirSync(directory, { withFileTypes: true });
    if (entries.length <= ENTRIES_MAX) return entries;
    throw new HeddleError(
      'bad-directory',
      `read "${directory}" with ${entries.length} entries: expected at most ${ENTRIES_MAX}`,
    );
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'ENOTDIR')) throw error;
    throw new HeddleError(
      'no-directory',
      `directory "${directory}" is not there: expected the network plugin to make it`,
    );
  }
}

/** At most one byte more than a runtime would take; null when the file is not there. */
function readWhole(file: string): Uint8Array | null {
  try {
    if (lstatSync(file).size <= CONFIG_BYTES_MAX) return readFileSync(file);
    const fd = openSync(file, 'r');
    try {
      const bytes = Buffer.alloc(CONFIG_BYTES_MAX + 1);
      return bytes.subarray(0, readSync(fd, bytes));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return null;
    throw error;
  }
}

function removeEmptyDirectory(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    // Somebody else has files there, or took it away already.
    if (!isErrno(error, 'ENOTEMPTY', 'EEXIST', 'ENOENT')) throw error;
  }
}
