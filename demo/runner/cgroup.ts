// A cgroup for each container, so that all of its processes can be ended at once, whatever they forked. Where there is no
// cgroup2 the directory is an ordinary one: the container still writes its process id there, and that process is ended.

import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { isErrno } from '#lib/libc.ts';

export class ContainerCgroup {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
    mkdirSync(directory, { recursive: true });
  }

  get procsFile(): string {
    return path.join(this.directory, 'cgroup.procs');
  }

  /** Ends every process in it. Kernels before 5.14 lack cgroup.kill and are asked process by process. */
  kill(): void {
    const file = path.join(this.directory, 'cgroup.kill');
    if (existsSync(file)) {
      writeFileSync(file, '1');
      return;
    }
    // Nothing ever started in it.
    if (!existsSync(this.procsFile)) return;
    for (const pid of readFileSync(this.procsFile, 'utf8').split('\n').filter(Boolean)) kill(Number(pid));
  }

  /** False while a process is still in it. */
  remove(): boolean {
    try {
      rmdirSync(this.directory);
      return true;
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return true;
      if (isErrno(error, 'EBUSY', 'ENOTEMPTY')) return false;
      throw error;
    }
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error;
  }
}
