// The birth of a worker, in one synchronous piece: enter the pod's network namespace, spawn, return. The child is born
// in the namespace with the listeners and its control socket as descriptors, and needs no privilege from then on: a uid
// of its own, no capability in any set, no way to gain one, no core dump, limits by its cgroup. It is the leader of its
// own session and holds nothing of the agent's, so that it outlives the agent.

import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import {
  CONTROL_FD,
  LISTENER_FIRST_FD,
  LISTENER_NAMES,
  type ListenerName,
  WorkerEnvironment,
} from '#api/worker-link.ts';
import { HeddleError } from '#lib/errors.ts';
import { close, Resource, resourceLimit, setNoNewPrivileges, setResourceLimit } from '#lib/libc.ts';
import { openUnixListener } from '#lib/unix-socket.ts';
import type { WorkerCgroup, WorkerCgroups } from './cgroup.ts';
import { closeLogPipe, openLogPipe } from './log-pipe.ts';
import { NODE_ENVIRONMENT, shareCompileCache, type WorkerRuntime } from './runtime.ts';

/** uid and gid of the worker in slot 0: above what distributions and container users hand out. */
export const WORKER_UID_FIRST = 65_536;
/** Open files of agent and worker: each proxied connection takes two. */
const OPEN_FILES_MAX = 65_536n;

export function workerUid(slot: number): number {
  return WORKER_UID_FIRST + slot;
}

/** Files of a pod's worker in `<run dir>/workers/<pod uid>/`. */
export function workerFiles(directory: string) {
  return {
    controlSocket: path.join(directory, 'control.sock'),
    logPipe: path.join(directory, 'log'),
    state: path.join(directory, 'state.json'),
  };
}

export interface Birth {
  podUid: string;
  slot: number;
  generation: number;
  /** Of mode 0700, root's. */
  directory: string;
  runtime: WorkerRuntime;
  listeners: Readonly<Record<ListenerName, number>>;
  cgroups: WorkerCgroups;
  logLevel: string;
  /** Runs a synchronous function inside the pod's network namespace. */
  inNamespace: <T>(run: () => T) => T;
  /** Called before the worker can have made a connection. */
  exempt: (pid: number, cgroup: WorkerCgroup) => void;
}

/**
 * Limits that a child inherits and that only its parent can set: no core dumps, no privileges gained by exec, a bound
 * on open files. Call once when the agent starts.
 */
export function limitProcess(): void {
  setNoNewPrivileges();
  setResourceLimit(0, Resource.core, 0n, 0n);
  const { hard } = resourceLimit(0, Resource.openFiles);
  const openFiles = hard < OPEN_FILES_MAX ? hard : OPEN_FILES_MAX;
  setResourceLimit(0, Resource.openFiles, openFiles, openFiles);
}

/** Brings a worker to life. Throws `worker-failed` when it cannot be started; nothing is left behind then. */
export function spawnWorker(birth: Birth): { child: ChildProcess; cgroup: WorkerCgroup } {
  const { slot, generation, podUid, runtime, cgroups } = birth;
  const uid = workerUid(slot);
  shareCompileCache(runtime, uid);
  const cgroup = cgroups.create(podUid, generation);
  const controlFd = openControlSocket(workerFiles(birth.directory).controlSocket);
  const logFd = openLogPipe(workerFiles(birth.directory).logPipe);
  let child: ChildProcess | undefined;
  try {
    child = birth.inNamespace(() => spawnInside(birth, uid, controlFd, logFd));
    if (child.pid === undefined)
      throw new HeddleError('worker-failed', 'spawn: expected setpriv of util-linux in PATH');
    cgroups.enter(cgroup, child.pid);
    birth.exempt(child.pid, cgroup);
    child.unref();
    return { child, cgroup };
  } catch (cause) {
    child?.kill('SIGKILL');
    // A spawn that failed tells so later, by an event that has no other reader.
    child?.on('error', () => {});
    cgroups.remove(cgroup);
    throw new HeddleError('worker-failed', `start the worker of pod "${podUid}" from "${runtime.directory}"`, {
      cause,
    });
  } finally {
    // Only the worker may hold its control socket: a connection to a dead worker must be refused.
    close(controlFd);
    closeLogPipe(logFd);
  }
}

/**
 * setpriv (util-linux) empties the bounding set, which the agent cannot do for a child without losing its own, and
 * takes the uid after it; it is replaced by Node under the same pid.
 */
function spawnInside(birth: Birth, uid: number, controlFd: number, logFd: number): ChildProcess {
  const { runtime, listeners } = birth;
  const privileges = [
    `--reuid=${uid}`,
    `--regid=${uid}`,
    '--clear-groups',
    '--inh-caps=-all',
    '--bounding-set=-all',
    '--no-new-privs',
  ];
  const descriptors = LISTENER_NAMES.map((name) => listeners[name]);
  const stdio = ['ignore' as const, logFd, logFd, ...descriptors, controlFd];
  if (stdio.length !== CONTROL_FD + 1 || LISTENER_FIRST_FD !== 3) {
    throw new HeddleError('assertion', 'assertion failed: descriptors of a worker are in the order of the contract');
  }
  return spawn('setpriv', [...privileges, '--', runtime.nodePath, ...runtime.nodeArguments], {
    cwd: runtime.directory,
    detached: true,
    stdio,
    env: {
      ...NODE_ENVIRONMENT,
      NODE_COMPILE_CACHE: runtime.cacheDirectory,
      [WorkerEnvironment.podUid]: birth.podUid,
      [WorkerEnvironment.workerVersion]: runtime.version,
      [WorkerEnvironment.logLevel]: birth.logLevel,
    },
  });
}

/** A new listening socket under the fixed name: a worker before keeps its own, which nobody can find any more. */
function openControlSocket(file: string): number {
  const temporary = `${file}.new`;
  rmSync(temporary, { force: true });
  const fd = openUnixListener(temporary);
  try {
    chmodSync(temporary, 0o600);
    renameSync(temporary, file);
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}
