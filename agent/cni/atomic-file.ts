// A file that is there whole or not at all, through a crash and a power cut: a temporary file in the same directory (a
// rename from elsewhere is not noticed by containerd), fsync, rename, fsync of the directory. The temporary name has an
// extension that no runtime looks at.

import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fchmodSync,
  fchownSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { HeddleError } from '#lib/errors.ts';
import { isErrno } from '#lib/libc.ts';

/** Called between the steps by name; tests end the process in it. */
export type FaultPoint = (point: string) => void;

export interface AtomicWrite {
  file: string;
  bytes: Uint8Array;
  /** Of a new file; one that is there keeps its mode and owner. */
  mode: number;
  /** What the file must hold still when it is replaced, null for nothing; undefined: anything. */
  replaces?: Uint8Array | null;
  faultPoint?: FaultPoint;
}

const TEMPORARY = /^\..*\.heddle-[0-9a-f]{8}$/;

/**
 * Writes or replaces a file. Throws `file-changed` when somebody else was faster, `write-failed` when the file system
 * refuses; then the file is as it was, and no temporary file is left.
 */
export function writeAtomically(write: AtomicWrite): void {
  const { file, bytes, faultPoint = () => {} } = write;
  const directory = path.dirname(file);
  const temporary = path.join(directory, `.${path.basename(file)}.heddle-${randomBytes(4).toString('hex')}`);
  try {
    const fd = openSync(temporary, 'wx', write.mode);
    try {
      faultPoint('created');
      keepOwner(fd, file, write.mode);
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
      faultPoint('written');
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    faultPoint('synced');
    if (write.replaces !== undefined) checkUnchanged(file, write.replaces);
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    if (error instanceof HeddleError) throw error;
    // Without the temporary name, which differs each time: the same trouble must read the same.
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    throw new HeddleError('write-failed', `write "${file}": ${code}: expected space and a writable directory`, {
      cause: error,
    });
  }
  faultPoint('renamed');
  syncDirectory(directory);
  faultPoint('done');
}

/** Removes a file for good; one that is not there is none. */
export function removeDurably(file: string): void {
  rmSync(file, { force: true });
  syncDirectory(path.dirname(file));
}

/** Removes what a killed process left of its writing. */
export function removeLeftovers(directory: string): void {
  for (const name of readdirSync(directory)) {
    if (TEMPORARY.test(name)) rmSync(path.join(directory, name), { force: true });
  }
}

export function syncDirectory(directory: string): void {
  const fd = openSync(directory, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** The umask does not apply, and neither does the identity of the agent to somebody else's file. */
function keepOwner(fd: number, file: string, mode: number): void {
  let kept = { mode, uid: -1, gid: -1 };
  try {
    kept = statSync(file);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
  if (kept.uid >= 0) fchownSync(fd, kept.uid, kept.gid);
  fchmodSync(fd, kept.mode & 0o7777);
}

function checkUnchanged(file: string, expected: Uint8Array | null): void {
  let current: Uint8Array | null = null;
  try {
    current = readFileSync(file);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
  const isSame = current === null || expected === null ? current === expected : Buffer.compare(current, expected) === 0;
  if (!isSame) {
    throw new HeddleError('file-changed', `replace "${file}": expected what was read, somebody else wrote it since`);
  }
}
