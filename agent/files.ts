// Small JSON files that must be whole or absent, whatever ends the agent: written beside, flushed, renamed.

import { closeSync, fsyncSync, openSync, readdirSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import path from 'node:path';
import { HeddleError } from '#lib/errors.ts';
import { isErrno } from '#lib/libc.ts';

/** Replaces the file by `value` as JSON, mode 0600. */
export function writeJsonFile(file: string, value: unknown): void {
  const temporary = path.join(path.dirname(file), `.new-${path.basename(file)}`);
  const fd = openSync(temporary, 'w', 0o600);
  try {
    writeSync(fd, `${JSON.stringify(value)}\n`);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, file);
}

/** The value in the file; null when there is none. Throws `bad-file` when it is not a JSON object. */
export function readJsonFile(file: string): Record<string, unknown> | null {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return null;
    throw error;
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch (cause) {
    throw new HeddleError('bad-file', `read "${file}": expected JSON`, { cause });
  }
  throw new HeddleError('bad-file', `read "${file}": expected a JSON object`);
}

/** Names in the directory, without those of unfinished writes; empty when there is no such directory. */
export function listFiles(directory: string): string[] {
  try {
    return readdirSync(directory)
      .filter((name) => !name.startsWith('.'))
      .sort();
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return [];
    throw error;
  }
}

export function removeFile(file: string): void {
  rmSync(file, { force: true });
}

/** Container IDs and pod UIDs become file names: the alphabet of the CNI specification, without a leading dot. */
export function isFileName(name: string): boolean {
  return /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,199}$/.test(name);
}
