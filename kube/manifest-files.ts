// The files of a directory of manifests, read again only when they changed. A file that can no longer be read or
// understood stays as it was when it last could be; one that never could gives what is sound in it.

import type { Dirent } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { describeError } from '#lib/errors.ts';
import { type ManifestObject, type Problem, parseManifest } from './manifest.ts';
import type { Pod } from './resources.ts';
import { STATUS_DIRECTORY } from './status.ts';
import { uidOf } from './uid.ts';
import { validateReport } from './validate.ts';

const FILES_MAX = 10_000;
const FILE_BYTES_MAX = 4 * 1024 * 1024;
const DEPTH_MAX = 16;
const PROBLEMS_PER_FILE_MAX = 100;
/** A file changed this shortly before it was read may change again within the resolution of its time stamp. */
const RACY_MS = 100;
/** A file rewritten in place is left alone until it was quiet this long: half of it may be missing. */
const QUIET_MS = 50;
/** Unless it never is. */
const QUIET_WAIT_MAX_MS = 1_000;

export interface ManifestFile {
  /** Relative to the directory. */
  file: string;
  /** Objects of a manifest; empty for a report. */
  objects: ManifestObject[];
  /** What a runner reported; null for a manifest. */
  report: Pod | null;
  problems: Problem[];
}

/** What a file looked like when it was read. */
interface Stamp {
  /** Null when it must be read again whatever it looks like. */
  signature: string | null;
  inode: bigint;
}

interface Cached extends ManifestFile {
  stamp: Stamp;
  /** Since when it is being rewritten; null when it is not. */
  writtenSinceMs: number | null;
  /** True once all of it was understood: then a worse version does not replace it. */
  isSound: boolean;
}

export interface ScannedDirectory {
  /** Absolute. */
  path: string;
  /** Differs when another directory has taken the place. */
  inode: bigint;
}

export interface Scan {
  /** False when every file is as it was. */
  hasChanged: boolean;
  files: ManifestFile[];
  /** Directories to watch. */
  directories: ScannedDirectory[];
  /** Milliseconds after which to look again, since a file is being written; null when none is. */
  againMs: number | null;
  problems: Problem[];
}

interface Found {
  files: string[];
  directories: ScannedDirectory[];
}

export class ManifestFiles {
  readonly #root: string;
  #cache = new Map<string, Cached>();
  #problems: Problem[] = [];
  #isWriting = false;

  constructor(root: string) {
    this.#root = path.resolve(root);
  }

  /** Reads what is new. Never throws: trouble is a problem of the result, and what was known stays. */
  async scan(nowMs: number): Promise<Scan> {
    const found: Found = { files: [], directories: [] };
    const problems: Problem[] = [];
    this.#isWriting = false;
    try {
      await this.#walk('', 0, found, problems);
    } catch (error) {
      const problem = faultOf('.', null, `read the directory "${this.#root}": ${describeError(error)}`);
      return this.#result(this.#cache, [problem], []);
    }
    if (found.files.length > FILES_MAX) {
      problems.push(faultOf('.', null, `read ${found.files.length} files: expected at most ${FILES_MAX}`));
      found.files.length = FILES_MAX;
    }
    const next = new Map<string, Cached>();
    for (const file of found.files.sort()) {
      const cached = await this.#load(file, nowMs);
      if (cached) next.set(file, cached);
    }
    return this.#result(next, problems, found.directories);
  }

  #result(next: Map<string, Cached>, problems: Problem[], directories: ScannedDirectory[]): Scan {
    const hasChanged =
      next.size !== this.#cache.size ||
      [...next].some(([file, cached]) => this.#cache.get(file) !== cached) ||
      JSON.stringify(problems) !== JSON.stringify(this.#problems);
    this.#cache = next;
    this.#problems = problems;
    const files = [...next.values()];
    const againMs = this.#isWriting ? QUIET_MS : null;
    return {
      hasChanged,
      files,
      directories,
      againMs,
      problems: [...problems, ...files.flatMap((file) => file.problems)],
    };
  }

  async #walk(relative: string, depth: number, found: Found, problems: Problem[]): Promise<void> {
    if (depth > DEPTH_MAX) {
      problems.push(faultOf(relative, null, `read the directory: expected at most ${DEPTH_MAX} levels`));
      return;
    }
    const absolute = path.join(this.#root, relative);
    found.directories.push({ path: absolute, inode: (await stat(absolute, { bigint: true })).ino });
    for (const entry of await readdir(absolute, { withFileTypes: true })) {
      // Hidden entries are temporary files of writers, and the machinery of mounted ConfigMaps.
      if (entry.name.startsWith('.')) continue;
      const child = path.posix.join(relative, entry.name);
      try {
        const kind = await this.#kindOf(entry, child);
        if (kind === 'directory') await this.#walk(child, depth + 1, found, problems);
        else if (kind === 'file' && /\.(ya?ml|json)$/.test(entry.name)) found.files.push(child);
      } catch (error) {
        if (isGone(error)) continue;
        problems.push(faultOf(child, null, `read it: ${describeError(error)}`));
      }
    }
  }

  async #kindOf(entry: Dirent, file: string): Promise<'file' | 'directory' | 'other'> {
    const status = entry.isSymbolicLink() ? await stat(path.join(this.#root, file)) : entry;
    if (status.isDirectory()) return entry.isSymbolicLink() ? 'other' : 'directory';
    return status.isFile() ? 'file' : 'other';
  }

  /** The file as it is to be used; null when it is gone. */
  async #load(file: string, nowMs: number): Promise<Cached | null> {
    const before = this.#cache.get(file);
    const absolute = path.join(this.#root, file);
    try {
      const { ino, size, mtimeNs, ctimeNs, mtimeMs } = await stat(absolute, { bigint: true });
      const isRacy = Math.abs(nowMs - Number(mtimeMs)) < RACY_MS;
      const signature = `${ino}:${size}:${mtimeNs}:${ctimeNs}`;
      if (before?.stamp.signature === signature) return before;
      if (before?.stamp.inode === ino && isBeingWritten(before, Number(mtimeMs), nowMs)) {
        this.#isWriting = true;
        return before;
      }
      if (size > FILE_BYTES_MAX) {
        return keep(
          file,
          before,
          { signature, inode: ino },
          faultOf(file, null, `read ${size} bytes: expected at most ${FILE_BYTES_MAX}`),
        );
      }
      const text = await readFile(absolute, 'utf8');
      return understand(file, text, before, { signature: isRacy ? null : signature, inode: ino });
    } catch (error) {
      if (isGone(error)) return null;
      return keep(
        file,
        before,
        { signature: null, inode: before?.stamp.inode ?? 0n },
        faultOf(file, null, `read it: ${describeError(error)}`),
      );
    }
  }
}

/** Remembers since when, so that a file which is always being written is read in the end. */
function isBeingWritten(before: Cached, mtimeMs: number, nowMs: number): boolean {
  if (Math.abs(nowMs - mtimeMs) >= QUIET_MS) return false;
  before.writtenSinceMs ??= nowMs;
  return nowMs - before.writtenSinceMs < QUIET_WAIT_MAX_MS;
}

function understand(file: string, text: string, before: Cached | undefined, stamp: Stamp): Cached {
  const parsed = file.startsWith(`${STATUS_DIRECTORY}/`) ? parseReport(file, text) : parseObjects(file, text);
  const problems = parsed.problems.slice(0, PROBLEMS_PER_FILE_MAX);
  if (parsed.problems.length > problems.length) {
    problems.push(faultOf(file, null, `${parsed.problems.length - problems.length} more problems in this file`));
  }
  const isWorse = !parsed.isSound && before?.isSound;
  return settle(before, isWorse ? { ...before, problems } : { file, ...parsed, problems }, stamp);
}

function keep(file: string, before: Cached | undefined, stamp: Stamp, problem: Problem): Cached {
  const kept = before ?? { file, objects: [], report: null, isSound: false };
  return settle(before, { ...kept, problems: [problem] }, stamp);
}

/** What is the same as before stays the same object: that is how a change is told. */
function settle(before: Cached | undefined, next: ManifestFile & Pick<Cached, 'isSound'>, stamp: Stamp): Cached {
  const content = ({ objects, report, problems, isSound }: typeof next) =>
    JSON.stringify([objects, report, problems, isSound]);
  if (!before || content(before) !== content(next)) return { ...next, stamp, writtenSinceMs: null };
  return Object.assign(before, { stamp, writtenSinceMs: null });
}

type Parsed = Pick<Cached, 'objects' | 'report' | 'problems' | 'isSound'>;

function parseObjects(file: string, text: string): Parsed {
  const manifest = parseManifest(file, text);
  for (const { kind, object } of manifest.objects) {
    const { namespace = '', name } = object.metadata;
    object.metadata.uid ??= uidOf(kind, { namespace, name });
  }
  return { ...manifest, report: null };
}

function parseReport(file: string, text: string): Parsed {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const problem = faultOf(file, 1, `parse JSON: ${(error as Error).message}`);
    return { objects: [], report: null, problems: [problem], isSound: false };
  }
  const validation = validateReport(value);
  if ('report' in validation) return { objects: [], report: validation.report, problems: [], isSound: true };
  const problems = validation.problems.map(
    (problem): Problem => ({ file, document: 1, object: null, ...problem, severity: 'error' }),
  );
  return { objects: [], report: null, problems, isSound: false };
}

function faultOf(file: string, document: number | null, message: string): Problem {
  return { file, document, object: null, field: null, message, severity: 'error' };
}

function isGone(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ENOTDIR';
}
