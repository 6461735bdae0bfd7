// A cgroup for each worker, outside the agent's container: what limits its memory and processes, what exempts it from
// redirection, and why it outlives the agent. `<mount>/heddle/<pod uid>/<generation>` in every mounted hierarchy, since
// a runtime may end a container by any of them. Spec: cgroups(7), Documentation/admin-guide/cgroup-v2.rst.

import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { HeddleError } from '#lib/errors.ts';
import { isErrno } from '#lib/libc.ts';

/** A mounted hierarchy. */
export interface Hierarchy {
  mountPoint: string;
  isUnified: boolean;
  /** cgroup v1 only: `memory`, `pids`, `name=systemd`, … */
  controllers: string[];
}

export interface CgroupLimits {
  memoryBytes: number;
  processes: number;
}

export interface WorkerCgroup {
  /** Absolute path in the cgroup2 hierarchy; null where none is mounted. */
  unifiedPath: string | null;
  /** The cgroup's directory in every hierarchy. */
  directories: string[];
}

/** The hierarchies of this mount namespace, each once. `mountinfo` is proc_pid_mountinfo(5). */
export function findHierarchies(mountinfo: string = readFileSync('/proc/self/mountinfo', 'utf8')): Hierarchy[] {
  const found = new Map<string, Hierarchy>();
  for (const line of mountinfo.split('\n')) {
    const [before, after] = line.split(' - ');
    const [type, , options = ''] = after?.split(' ') ?? [];
    const mountPoint = before?.split(' ')[4];
    if (!mountPoint || (type !== 'cgroup' && type !== 'cgroup2')) continue;
    const isUnified = type === 'cgroup2';
    const controllers = isUnified ? [] : options.split(',').filter((option) => option !== 'rw' && option !== 'ro');
    const key = isUnified ? 'unified' : controllers.join(',');
    if (!found.has(key)) found.set(key, { mountPoint, isUnified, controllers });
  }
  return [...found.values()];
}

export class WorkerCgroups {
  readonly #hierarchies: Hierarchy[];
  readonly #rootName: string;
  readonly #limits: CgroupLimits;

  /** `rootName` is the directory under each mount point, `heddle` in production. */
  constructor(options: { hierarchies: Hierarchy[]; rootName: string; limits: CgroupLimits }) {
    this.#hierarchies = options.hierarchies;
    this.#rootName = options.rootName;
    this.#limits = options.limits;
  }

  /** Makes the cgroup of a worker with its limits. Throws `cgroup-failed` naming the file that refused. */
  create(podUid: string, generation: number): WorkerCgroup {
    const cgroup = this.find(podUid, generation);
    for (const hierarchy of this.#hierarchies) {
      const steps = [this.#rootName, podUid, String(generation)];
      let parent = hierarchy.mountPoint;
      for (const step of steps) {
        if (hierarchy.isUnified) delegate(parent);
        const directory = path.join(parent, step);
        mkdirSync(directory, { recursive: true, mode: 0o755 });
        if (hierarchy.controllers.includes('cpuset')) inheritCpuset(parent, directory);
        parent = directory;
      }
      this.#limit(hierarchy, parent);
    }
    return cgroup;
  }

  /** The paths a worker's cgroup has, whether it exists or not. */
  find(podUid: string, generation: number): WorkerCgroup {
    const directories = this.#hierarchies.map(({ mountPoint }) =>
      path.join(mountPoint, this.#rootName, podUid, String(generation)),
    );
    const unified = this.#hierarchies.findIndex(({ isUnified }) => isUnified);
    return { unifiedPath: directories[unified] ?? null, directories };
  }

  /** Moves a process with all its threads. */
  enter(cgroup: WorkerCgroup, pid: number): void {
    for (const directory of cgroup.directories) write(path.join(directory, 'cgroup.procs'), String(pid));
  }

  /** Removes a worker's cgroup; false when a process is still in it. */
  remove(cgroup: WorkerCgroup): boolean {
    return cgroup.directories.map(removeDirectory).every(Boolean);
  }

  /** Removes what is left of a pod's cgroups; false when a process is still in one. */
  removePod(podUid: string): boolean {
    return this.#hierarchies
      .map(({ mountPoint }) => {
        const directory = path.join(mountPoint, this.#rootName, podUid);
        if (!existsSync(directory)) return true;
        const isEmpty = subdirectories(directory)
          .map((name) => removeDirectory(path.join(directory, name)))
          .every(Boolean);
        return removeDirectory(directory) && isEmpty;
      })
      .every(Boolean);
  }

  /** Generations of a pod that have a cgroup, with the processes in them. */
  generations(podUid: string): { generation: number; pids: number[] }[] {
    const found = new Map<number, Set<number>>();
    for (const { mountPoint } of this.#hierarchies) {
      const directory = path.join(mountPoint, this.#rootName, podUid);
      for (const name of subdirectories(directory)) {
        const pids = found.get(Number(name)) ?? new Set();
        for (const line of readFileSync(path.join(directory, name, 'cgroup.procs'), 'utf8').split('\n')) {
          if (line !== '') pids.add(Number(line));
        }
        found.set(Number(name), pids);
      }
    }
    return [...found].map(([generation, pids]) => ({ generation, pids: [...pids] }));
  }

  /** Pods that have a cgroup here, whoever made it. */
  pods(): string[] {
    const names = this.#hierarchies.flatMap(({ mountPoint }) => subdirectories(path.join(mountPoint, this.#rootName)));
    return [...new Set(names)];
  }

  /** Removes the root directories, when no pod is left in them. */
  removeRoot(): void {
    for (const { mountPoint } of this.#hierarchies) removeDirectory(path.join(mountPoint, this.#rootName));
  }

  #limit(hierarchy: Hierarchy, directory: string): void {
    const { memoryBytes, processes } = this.#limits;
    const limits: [file: string, value: number][] = hierarchy.isUnified
      ? [
          ['memory.max', memoryBytes],
          ['pids.max', processes],
        ]
      : [
          ...(hierarchy.controllers.includes('memory')
            ? [['memory.limit_in_bytes', memoryBytes] as [string, number]]
            : []),
          ...(hierarchy.controllers.includes('pids') ? [['pids.max', processes] as [string, number]] : []),
        ];
    for (const [file, value] of limits) {
      // In a hybrid layout the unified hierarchy has no such controller: cgroup v1 holds the limit.
      if (existsSync(path.join(directory, file))) write(path.join(directory, file), String(value));
    }
  }
}

/** Hands memory and pids down to the children, where this hierarchy has them. */
function delegate(directory: string): void {
  const read = (file: string) => readFileSync(path.join(directory, file), 'utf8').split(/\s+/);
  const available = read('cgroup.controllers');
  const enabled = read('cgroup.subtree_control');
  for (const controller of ['memory', 'pids']) {
    if (!available.includes(controller) || enabled.includes(controller)) continue;
    write(path.join(directory, 'cgroup.subtree_control'), `+${controller}`);
  }
}

/** A new cpuset has no processors: nothing could run in it. */
function inheritCpuset(parent: string, directory: string): void {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    const target = path.join(directory, file);
    if (readFileSync(target, 'utf8').trim() === '') write(target, readFileSync(path.join(parent, file), 'utf8').trim());
  }
}

function write(file: string, value: string): void {
  try {
    writeFileSync(file, value);
  } catch (cause) {
    throw new HeddleError('cgroup-failed', `write "${value}" to "${file}": expected a writable cgroup mount`, {
      cause,
    });
  }
}

function subdirectories(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

/** False when a process or a child is still in it. */
function removeDirectory(directory: string): boolean {
  try {
    rmdirSync(directory);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return true;
    if (isErrno(error, 'EBUSY', 'ENOTEMPTY')) return false;
    throw error;
  }
}
