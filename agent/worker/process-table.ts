// What the kernel says about a process (proc_pid_stat(5), proc_pid_status(5)). A pid alone is no identity: the pair of
// pid and start time is.

import { readFileSync } from 'node:fs';
import { isErrno } from '#lib/libc.ts';

/** A process that was seen alive, so that another one with the same pid is not taken for it. */
export interface ProcessIdentity {
  pid: number;
  /** Clock ticks after boot when it started. */
  startTicks: string;
}

/** The identity of a running process; null when there is none, or only its remains. */
export function identifyProcess(pid: number): ProcessIdentity | null {
  const stat = readProc(`/proc/${pid}/stat`);
  if (stat === null) return null;
  // The second field is the name in parentheses and may hold spaces and parentheses itself.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state] = fields;
  const startTicks = fields[19];
  if (state === 'Z' || state === 'X' || startTicks === undefined) return null;
  return { pid, startTicks };
}

export function isSameProcess(identity: ProcessIdentity): boolean {
  return identifyProcess(identity.pid)?.startTicks === identity.startTicks;
}

export interface ProcessStatus {
  uid: number;
  threads: number;
  residentBytes: number;
}

/** What the status file tells; null when the process is gone. */
export function processStatus(pid: number): ProcessStatus | null {
  const status = readProc(`/proc/${pid}/status`);
  if (status === null) return null;
  const field = (name: string) => Number(new RegExp(`^${name}:\\s*(\\d+)`, 'm').exec(status)?.[1] ?? 0);
  return { uid: field('Uid'), threads: field('Threads'), residentBytes: field('VmRSS') * 1024 };
}

function readProc(file: string): string | null {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return null;
    throw error;
  }
}
