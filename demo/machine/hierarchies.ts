// The cgroup hierarchies of this machine and a directory of the demo's own in each: inside its cgroup namespace the demo
// sees that directory as the root, so its agent works as on a whole node and touches nothing else.
// Spec: cgroup_namespaces(7).

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { findHierarchies, type Hierarchy } from '#agent/worker/cgroup.ts';
import { isErrno } from '#lib/libc.ts';

/** Names of the directories that demos make: the process id of the one that made it follows. */
const PREFIX = 'heddle-demo-';

export function demoName(pid: number): string {
  return `${PREFIX}${pid}`;
}

/** Hierarchies that can be written to, cgroup2 among them or not. */
export function writableHierarchies(hierarchies: Hierarchy[] = findHierarchies()): Hierarchy[] {
  return hierarchies.filter(({ mountPoint }) => {
    const probe = path.join(mountPoint, demoName(process.pid));
    try {
      mkdirSync(probe);
      rmdirSync(probe);
      return true;
    } catch (error) {
      if (isErrno(error, 'EROFS', 'EACCES', 'EPERM')) return false;
      throw error;
    }
  });
}

/** The demo's own directories. */
export interface DemoCgroups {
  /** In cgroup2; null where there is none. */
  unified: string | null;
  /** Where the demo has to mount cgroup2 for itself, in its own mount namespace. */
  mountAt: string | null;
  v1: string[];
}

/** Makes the directory `name` in each hierarchy. A cgroup2 that is mounted privately gets its own from the one inside. */
export function makeCgroups(
  machine: { hierarchies: readonly Hierarchy[]; mountsCgroup2: boolean },
  name: string,
  runDir: string,
): DemoCgroups {
  const cgroups: DemoCgroups = { unified: null, mountAt: null, v1: [] };
  for (const { mountPoint, isUnified, controllers } of machine.hierarchies) {
    const directory = path.join(mountPoint, name);
    mkdirSync(directory, { recursive: true });
    if (isUnified) cgroups.unified = directory;
    else cgroups.v1.push(directory);
    if (controllers.includes('cpuset')) inheritCpuset(mountPoint, directory);
  }
  if (machine.mountsCgroup2) {
    cgroups.mountAt = path.join(runDir, 'cgroup2');
    cgroups.unified = path.join(cgroups.mountAt, name);
  }
  return cgroups;
}

/** A new cpuset is empty, and nothing could run in it. */
function inheritCpuset(from: string, directory: string): void {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    writeFileSync(path.join(directory, file), readFileSync(path.join(from, file), 'utf8').trim());
  }
}

/** Removes the demo's directories, once their processes are gone. True when nothing is left. */
export function removeCgroups({ unified, mountAt, v1 }: DemoCgroups): boolean {
  const isEmpty = v1.map(removeCgroup).every(Boolean);
  if (unified === null) return isEmpty;
  if (mountAt === null) return removeCgroup(unified) && isEmpty;
  const script =
    'mount -t cgroup2 heddle-demo "$1" && { [ ! -d "$2" ] || find "$2" -depth -type d -exec rmdir {} + ; }';
  const arguments_ = ['--mount', '--propagation', 'private', 'sh', '-c', script, 'sh', mountAt, unified];
  return spawnSync('unshare', arguments_, { stdio: 'ignore' }).status === 0 && isEmpty;
}

/** Removes a cgroup with everything below it; the processes must be gone. True when nothing is left. */
function removeCgroup(directory: string): boolean {
  if (!existsSync(directory)) return true;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (entry.isDirectory()) removeCgroup(path.join(directory, entry.name));
  }
  try {
    rmdirSync(directory);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return true;
    if (isErrno(error, 'EBUSY', 'ENOTEMPTY')) return false;
    throw error;
  }
}

/** Removes what demos that were killed left behind: directories whose maker is gone. */
export function reapCgroups(hierarchies: readonly Hierarchy[]): void {
  for (const { mountPoint } of hierarchies) {
    for (const entry of readdirSync(mountPoint)) {
      if (isStale(entry)) removeCgroup(path.join(mountPoint, entry));
    }
  }
}

/** Whether `name` is of a demo whose process does not exist any more. */
export function isStale(name: string): boolean {
  const pid = new RegExp(`^${PREFIX}(\\d+)(?:-|$)`).exec(name)?.[1];
  return pid !== undefined && !existsSync(`/proc/${pid}`);
}
