// Which processes are workers, and so connect directly. By cgroup2 id where each worker has a cgroup of its own; by
// process id with the worker's uid where all processes of the node share one (cgroup v1). Never by uid or mark alone:
// a pod may choose those.

import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { HeddleError } from '#lib/errors.ts';
import { isErrno } from '#lib/libc.ts';
import { cgroupId, checkCgroup } from './cgroup-root.ts';
import { EXEMPT_LEVELS_MAX, u32, u64 } from './ebpf-layout.ts';
import type { LoadedObject } from './ebpf-object.ts';
import type { WorkerProcess } from './redirector.ts';

export class Exemptions {
  readonly #maps: LoadedObject['maps'];
  readonly #cgroupRoot: string;
  /** A removed cgroup has no inode to ask for any more. */
  readonly #idsByPath = new Map<string, bigint>();

  constructor(maps: LoadedObject['maps'], cgroupRoot: string) {
    this.#maps = maps;
    this.#cgroupRoot = cgroupRoot;
  }

  /** Throws when the cgroup or the process does not exist. */
  add(worker: WorkerProcess): void {
    if (worker.cgroupPath === null) {
      this.#maps.exempt_tgids.update(u32(worker.pid), u32(uidOf(worker.pid)));
      return;
    }
    checkCgroup(worker.cgroupPath);
    const level = this.#levelOf(worker.cgroupPath);
    if (level === 0) {
      throw new HeddleError(
        'bad-cgroup',
        `exempt cgroup "${worker.cgroupPath}": expected a cgroup of the worker's own, not the root`,
      );
    }
    const id = cgroupId(worker.cgroupPath);
    this.#idsByPath.set(worker.cgroupPath, id);
    this.#maps.exempt_cgroups.update(u64(id), u32(level ?? 0));
    if (level !== null && level <= EXEMPT_LEVELS_MAX) this.#addLevel(level);
  }

  /** Tolerates a process or cgroup that is gone. */
  remove(worker: WorkerProcess): void {
    if (worker.cgroupPath === null) {
      this.#maps.exempt_tgids.delete(u32(worker.pid));
      return;
    }
    const id = this.#idsByPath.get(worker.cgroupPath) ?? currentId(worker.cgroupPath);
    this.#idsByPath.delete(worker.cgroupPath);
    if (id !== undefined) this.#maps.exempt_cgroups.delete(u64(id));
  }

  /** Drops what an earlier agent left behind: processes and cgroups that do not exist any more. */
  removeStale(): void {
    for (const key of this.#maps.exempt_tgids.keys()) {
      const uid = this.#maps.exempt_tgids.lookup(key)?.readUInt32LE(0);
      if (liveUid(key.readUInt32LE(0)) !== uid) this.#maps.exempt_tgids.delete(key);
    }
    const stale = new Map(this.#maps.exempt_cgroups.keys().map((key) => [key.readBigUInt64LE(0), key]));
    if (stale.size === 0) return;
    this.#visit(this.#cgroupRoot, 0, (id) => stale.delete(id));
    for (const key of stale.values()) this.#maps.exempt_cgroups.delete(key);
  }

  /** Levels below the root of the hierarchy; null for a cgroup that this mount does not show. */
  #levelOf(cgroupPath: string): number | null {
    const relative = path.relative(this.#cgroupRoot, cgroupPath);
    if (relative === '') return 0;
    return relative.startsWith('..') ? null : relative.split(path.sep).length;
  }

  #addLevel(level: number): void {
    const levels = this.#maps.exempt_levels.lookup(u32(0))?.readUInt32LE(0) ?? 0;
    this.#maps.exempt_levels.update(u32(0), u32((levels | (1 << level)) >>> 0));
  }

  #visit(directory: string, depth: number, found: (id: bigint) => void): void {
    const id = currentId(directory);
    if (id === undefined) return;
    found(id);
    if (depth === EXEMPT_LEVELS_MAX) return;
    for (const entry of children(directory)) this.#visit(entry, depth + 1, found);
  }
}

function children(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => path.join(directory, entry.name));
  } catch (error) {
    // Removed meanwhile.
    if (isErrno(error, 'ENOENT', 'ENODEV')) return [];
    throw error;
  }
}

function currentId(cgroupPath: string): bigint | undefined {
  try {
    return cgroupId(cgroupPath);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENODEV')) return undefined;
    throw error;
  }
}

function uidOf(pid: number): number {
  const uid = liveUid(pid);
  if (uid === undefined) throw new HeddleError('no-process', `exempt process "${pid}": expected a running process`);
  return uid;
}

/** The real uid; the owner of /proc/<pid> would not do, it is root for a process that is not dumpable. */
export function liveUid(pid: number): number | undefined {
  try {
    const uid = /^Uid:\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return uid === undefined ? undefined : Number(uid);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return undefined;
    throw error;
  }
}
