// The processes of one pod: starts them on the pod's listeners, writes down who they are for the next agent, and takes
// over what the agent before started. Everything of a pod is in `<run dir>/workers/<pod uid>/` (0700).

import { mkdirSync, rmSync } from 'node:fs';
import type { Clock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { isErrno } from '#lib/libc.ts';
import type { Log } from '#lib/log.ts';
import { readJsonFile, writeJsonFile } from '../files.ts';
import { closeListeners, inNetns, type Listeners } from '../netns.ts';
import type { WorkerProcess as Exemption } from '../redirect/redirector.ts';
import type { WorkerCgroups } from './cgroup.ts';
import type { WorkerLink } from './link.ts';
import { type LogPipeReader, readLogPipe } from './log-pipe.ts';
import { identifyProcess, isSameProcess, type ProcessIdentity, processStatus } from './process-table.ts';
import { reclaimListeners } from './reclaim-listeners.ts';
import type { WorkerRuntime } from './runtime.ts';
import { spawnWorker, workerFiles, workerUid } from './spawn.ts';
import type { SupervisedProcess, WorkerHost } from './supervisor.ts';
import { type LinkSession, WorkerProcess } from './worker-process.ts';

/** What the workers of all pods share. */
export interface WorkerServices {
  /** `<run dir>/workers`. */
  directory: string;
  runtime: WorkerRuntime;
  cgroups: WorkerCgroups;
  clock: Clock;
  log: Log;
  logLevel: string;
  openSession: (link: WorkerLink, podUid: string, log: Log) => LinkSession;
  exempt: (worker: Exemption) => void;
  unexempt: (worker: Exemption) => void;
}

export interface HostedPod {
  uid: string;
  /** `namespace/name`, on every log line. */
  name: string;
  slot: number;
  netnsFd: number;
  listeners: Listeners;
}

interface ProcessRecord extends ProcessIdentity {
  generation: number;
  version: string;
}

/** `<run dir>/workers/<pod uid>/state.json`. */
interface StateFile {
  v: 1;
  /** The highest generation that was ever used. */
  generation: number;
  processes: ProcessRecord[];
}

/** What an agent before left running for a pod. */
export interface Foundlings {
  listeners: Listeners;
  current: ProcessRecord;
  retired: ProcessRecord[];
  generation: number;
}

/** How long a worker may take to hand its listeners back. One that is slower is replaced. */
const RECLAIM_TIMEOUT_MS = 2_000;

export function podDirectory(services: Pick<WorkerServices, 'directory'>, podUid: string): string {
  return `${services.directory}/${podUid}`;
}

/**
 * Looks for the pod's running worker and gets its listeners back. Null when there is none to adopt; the reason is
 * logged. What runs for the pod besides what is returned is killed.
 */
export async function findFoundlings(
  pod: Omit<HostedPod, 'listeners'>,
  services: WorkerServices,
): Promise<Foundlings | null> {
  const directory = podDirectory(services, pod.uid);
  const state = readState(workerFiles(directory).state, services.log);
  const generations = services.cgroups.generations(pod.uid);
  const generation = Math.max(0, state?.generation ?? 0, ...generations.map((found) => found.generation));
  let found: Foundlings | null = null;
  try {
    const { hello, listeners } = await reclaimListeners(workerFiles(directory).controlSocket, RECLAIM_TIMEOUT_MS);
    const identity = identifyProcess(hello.pid);
    const recorded = state?.processes.find((record) => record.pid === hello.pid);
    const home = generations.find(({ pids }) => pids.includes(hello.pid));
    const uid = processStatus(hello.pid)?.uid;
    if (!identity || hello.podUid !== pod.uid || uid !== workerUid(pod.slot)) {
      closeListeners(listeners);
      throw new HeddleError(
        'worker-not-adoptable',
        `adopt process "${hello.pid}" of uid "${uid}" for pod "${hello.podUid}": expected uid "${workerUid(pod.slot)}"`,
      );
    }
    const current = {
      ...identity,
      generation: recorded?.generation ?? home?.generation ?? generation,
      version: hello.workerVersion,
    };
    const retired = (state?.processes ?? []).filter((record) => record.pid !== current.pid && isSameProcess(record));
    found = { listeners, current, retired, generation };
  } catch (error) {
    if (!isMissing(error)) services.log.warn('cannot adopt the worker: it is replaced', { pod: pod.name, error });
  }
  const keep = new Set([found?.current.pid, ...(found?.retired ?? []).map(({ pid }) => pid)]);
  for (const pid of generations.flatMap(({ pids }) => pids)) {
    if (!keep.has(pid)) killQuietly(pid, services.log);
  }
  return found;
}

/** How long killed workers may take to be gone. */
const PURGE_TIMEOUT_MS = 2_000;
const PURGE_POLL_MS = 10;

/** Ends every worker of a pod that was never adopted, and removes what it left. Resolves when that is done. */
export async function purgeWorkers(
  podUid: string,
  services: Pick<WorkerServices, 'directory' | 'cgroups' | 'log' | 'unexempt'>,
): Promise<void> {
  const { cgroups, log } = services;
  for (const { generation, pids } of cgroups.generations(podUid)) {
    const cgroupPath = cgroups.find(podUid, generation).unifiedPath;
    for (const pid of pids) {
      killQuietly(pid, log);
      services.unexempt({ podUid, pid, cgroupPath });
    }
  }
  rmSync(podDirectory(services, podUid), { recursive: true, force: true });
  for (let waitedMs = 0; !cgroups.removePod(podUid); waitedMs += PURGE_POLL_MS) {
    if (waitedMs >= PURGE_TIMEOUT_MS) {
      log.error('cannot remove the cgroup of a pod: a process is still in it', { podUid });
      return;
    }
    await new Promise<void>((resolve) => setTimeout(resolve, PURGE_POLL_MS));
  }
}

export class PodHost implements WorkerHost {
  readonly #pod: HostedPod;
  readonly #services: WorkerServices;
  readonly #log: Log;
  readonly #directory: string;
  readonly #logReader: LogPipeReader;
  #isReleased = false;
  /** Asked when the state is written; set by the owner of the supervisor. */
  processes: () => readonly SupervisedProcess[] = () => [];
  #generation = 0;

  constructor(pod: HostedPod, services: WorkerServices) {
    this.#pod = pod;
    this.#services = services;
    this.#log = services.log.child({ pod: pod.name });
    this.#directory = podDirectory(services, pod.uid);
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    const workerLog = services.log.child({ pod: pod.name, from: 'worker' });
    this.#logReader = readLogPipe(workerFiles(this.#directory).logPipe, workerLog, () => services.clock.nowMs());
  }

  /** Processes that start from now on get these. */
  useListeners(listeners: Listeners): void {
    this.#pod.listeners = listeners;
  }

  start(generation: number): WorkerProcess {
    const { uid, slot, listeners, netnsFd } = this.#pod;
    const { runtime, cgroups, logLevel } = this.#services;
    const { child } = spawnWorker({
      podUid: uid,
      slot,
      generation,
      directory: this.#directory,
      runtime,
      listeners,
      cgroups,
      logLevel,
      inNamespace: (run) => inNetns(netnsFd, run),
      exempt: (pid, cgroup) => this.#services.exempt({ podUid: uid, pid, cgroupPath: cgroup.unifiedPath }),
    });
    const identity = identifyProcess(child.pid!);
    if (!identity) {
      this.exited({ pid: child.pid!, generation });
      throw new HeddleError('worker-failed', `start the worker of pod "${this.#pod.name}": it ended at once`);
    }
    this.#generation = generation;
    this.#log.info('worker started', { worker: identity.pid, generation, version: runtime.version });
    return this.#process({ ...identity, generation, version: runtime.version }, child);
  }

  /** Takes over the processes found; their exemption is renewed. */
  adopt(found: Foundlings): { current: WorkerProcess | null; retired: WorkerProcess[]; generation: number } {
    this.#generation = found.generation;
    const take = (record: ProcessRecord, isShadowed: boolean): WorkerProcess | null => {
      try {
        const process = this.#process(record, null, isShadowed);
        this.#services.exempt(this.#exemptionOf(record));
        return process;
      } catch (error) {
        this.#log.warn('worker ended while it was adopted', { worker: record.pid, error });
        return null;
      }
    };
    const current = take(found.current, false);
    if (current) this.#log.info('worker adopted', { worker: current.pid, version: current.version });
    const retired = found.retired.map((record) => take(record, true)).filter((process) => process !== null);
    return { current, retired, generation: found.generation };
  }

  changed(): void {
    // What is on disk belongs to the next agent by now, or is gone with the pod.
    if (this.#isReleased) return;
    const processes = this.processes().map((process) => {
      const { pid, generation, version } = process;
      return { pid, generation, version, startTicks: identifyProcess(pid)?.startTicks ?? '' };
    });
    const state: StateFile = { v: 1, generation: this.#generation, processes };
    try {
      writeJsonFile(workerFiles(this.#directory).state, state);
    } catch (error) {
      // The pod works on; the next agent finds the worker by its socket.
      this.#log.error('cannot write the state of a worker', { error });
    }
  }

  exited(process: Pick<SupervisedProcess, 'pid' | 'generation'>): void {
    this.#services.unexempt(this.#exemptionOf(process));
    const { cgroups } = this.#services;
    if (!cgroups.remove(cgroups.find(this.#pod.uid, process.generation))) {
      this.#log.warn('cannot remove the cgroup of a worker that ended: a process is still in it', {
        generation: process.generation,
      });
    }
  }

  /** Removes everything of the pod; its processes are gone. */
  dispose(): void {
    this.release();
    this.#services.cgroups.removePod(this.#pod.uid);
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** Stops reading; what is on disk stays for the next agent. */
  release(): void {
    this.#isReleased = true;
    this.#logReader.close();
  }

  #exemptionOf({ pid, generation }: { pid: number; generation: number }): Exemption {
    return {
      podUid: this.#pod.uid,
      pid,
      cgroupPath: this.#services.cgroups.find(this.#pod.uid, generation).unifiedPath,
    };
  }

  #process(
    record: ProcessRecord,
    child: ConstructorParameters<typeof WorkerProcess>[0]['child'],
    isShadowed = false,
  ): WorkerProcess {
    const { clock, openSession } = this.#services;
    return new WorkerProcess({
      identity: { pid: record.pid, startTicks: record.startTicks },
      generation: record.generation,
      version: record.version,
      podUid: this.#pod.uid,
      controlSocket: isShadowed ? null : workerFiles(this.#directory).controlSocket,
      clock,
      log: this.#log,
      child,
      openSession: (link) => openSession(link, this.#pod.uid, this.#log),
    });
  }
}

function readState(file: string, log: Log): StateFile | null {
  try {
    const state = readJsonFile(file) as StateFile | null;
    return state?.v === 1 && Array.isArray(state.processes) ? state : null;
  } catch (error) {
    log.warn('cannot read the state of a worker: it is found by its socket', { file, error });
    return null;
  }
}

/** Nobody ever listened there, or the listener is dead: nothing to tell. */
function isMissing(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  return isErrno(error, 'ENOENT', 'ECONNREFUSED') || isErrno(cause, 'ENOENT', 'ECONNREFUSED');
}

function killQuietly(pid: number, log: Log): void {
  try {
    process.kill(pid, 'SIGKILL');
    log.warn('killed a worker process that nobody owns', { pid });
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error;
  }
}
