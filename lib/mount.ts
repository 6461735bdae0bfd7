// Mounting the kernel's own file systems (bpffs, cgroup2) without a mount(8) binary, and telling what is mounted at a
// path by its magic number (statfs(2)).

import { readFileSync, statfsSync } from 'node:fs';
import { bind, check, isErrno } from './libc.ts';

export const FilesystemMagic = { bpf: 0xcafe4a11, cgroup2: 0x63677270 } as const;

const MS_NOSUID = 2n;
const MS_NODEV = 4n;
const MS_NOEXEC = 8n;
const MNT_DETACH = 2;

const mountFn = bind('mount', { arguments: ['string', 'string', 'string', 'u64', 'string'], return: 'i32' });
const umountFn = bind('umount2', { arguments: ['string', 'i32'], return: 'i32' });

/**
 * Mounts a kernel file system with nosuid, nodev, noexec. Needs CAP_SYS_ADMIN. `source` is only a name: it tells later
 * who mounted it, see {@link mounts}.
 */
export function mountFilesystem(options: { type: 'bpf' | 'cgroup2'; path: string; source?: string }): void {
  const { type, path, source = type } = options;
  check(mountFn(source, path, type, MS_NOSUID | MS_NODEV | MS_NOEXEC, ''), `mount "${type}" at "${path}"`);
}

/** Takes a mount away at once; files open in it stay usable. */
export function unmountFilesystem(path: string): void {
  check(umountFn(path, MNT_DETACH), `unmount "${path}"`);
}

/** The magic number of the file system that holds `path`; null when the path does not exist. */
export function filesystemMagic(path: string): number | null {
  try {
    return statfsSync(path).type;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return null;
    throw error;
  }
}

export interface Mount {
  path: string;
  /** The part of the file system that is visible there; `/` is all of it. */
  root: string;
  source: string;
}

/** Where file systems of a type are mounted in this mount namespace, in the order of mounting. */
export function mounts(type: string, mountinfo: string = readFileSync('/proc/self/mountinfo', 'utf8')): Mount[] {
  const found: Mount[] = [];
  for (const line of mountinfo.split('\n')) {
    // proc_pid_mountinfo(5): fields after the separator " - " are type, source, options.
    const [before, after] = line.split(' - ');
    const [mountedType, source] = after?.split(' ') ?? [];
    if (mountedType !== type) continue;
    const [, , , root, path] = before?.split(' ') ?? [];
    if (root && path && source)
      found.push({ path: unescapeOctal(path), root: unescapeOctal(root), source: unescapeOctal(source) });
  }
  return found;
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
