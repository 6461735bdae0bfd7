// Where the cgroup2 hierarchy is: /sys/fs/cgroup on unified nodes, /sys/fs/cgroup/unified on hybrid ones. A node with
// cgroup v1 only has the hierarchy too, just not mounted; then it is mounted privately, which changes nothing for others.

import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { HeddleError } from '#lib/errors.ts';
import { isErrno } from '#lib/libc.ts';
import { FilesystemMagic, filesystemMagic, mountFilesystem, mounts } from '#lib/mount.ts';

const USUAL = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'];

/** The cgroup that holds all pods, by kubelet's cgroup driver: systemd or cgroupfs. */
const KUBEPODS = ['kubepods.slice', 'kubepods'];

/** A mount of the whole cgroup2 hierarchy; mounts one at `privateDir` when there is none. */
export function findCgroupRoot(privateDir: string): string {
  const whole = mounts('cgroup2').filter((mount) => mount.root === '/');
  const found = USUAL.find((usual) => whole.some((mount) => mount.path === usual)) ?? whole[0]?.path;
  if (found) return found;
  try {
    mkdirSync(privateDir, { recursive: true });
    mountFilesystem({ type: 'cgroup2', path: privateDir, source: 'heddle' });
  } catch (error) {
    throw new HeddleError(
      'no-cgroup2',
      `mount cgroup2 at "${privateDir}": expected a kernel with cgroup2 and CAP_SYS_ADMIN, or a cgroup2 mount`,
      { cause: error },
    );
  }
  return privateDir;
}

/** Throws unless `directory` is in a cgroup2 file system. */
export function checkCgroup(directory: string): void {
  if (filesystemMagic(directory) === FilesystemMagic.cgroup2) return;
  throw new HeddleError('no-cgroup2', `use cgroup "${directory}": expected a directory of a cgroup2 file system`);
}

/**
 * Where the connect hooks belong: at the pods' common cgroup they run before the programs that another CNI attaches to
 * the root, so that a Service address is seen before its balancer replaces it. It is taken only when `pid`, the agent,
 * is in it: on a node with cgroup v1 it may exist without the pods' processes, and their connections would pass by.
 */
export function podsCgroup(cgroupRoot: string, pid = process.pid): string {
  const directory = KUBEPODS.map((name) => path.join(cgroupRoot, name)).find((candidate) => existsSync(candidate));
  return directory && hasProcess(directory, pid, CGROUP_DEPTH_MAX) ? directory : cgroupRoot;
}

/** kubepods, quality of service, pod, container, and what an init system makes below. */
const CGROUP_DEPTH_MAX = 8;

function hasProcess(directory: string, pid: number, depth: number): boolean {
  try {
    if (readFileSync(path.join(directory, 'cgroup.procs'), 'utf8').split('\n').includes(String(pid))) return true;
    if (depth === 0) return false;
    const children = readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    return children.some(({ name }) => hasProcess(path.join(directory, name), pid, depth - 1));
  } catch (error) {
    // Removed meanwhile, or a threaded cgroup, whose processes are listed above it.
    if (isErrno(error, 'ENOENT', 'ENODEV', 'EOPNOTSUPP')) return false;
    throw error;
  }
}

/** The kernel's id of a cgroup: the inode of its directory. */
export function cgroupId(directory: string): bigint {
  return statSync(directory, { bigint: true }).ino;
}
