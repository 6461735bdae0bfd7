// What processes cost, from /proc (proc_pid_schedstat, proc_pid_smaps in proc(5)): CPU time of all their threads and
// proportional memory.

import { readdirSync, readFileSync } from 'node:fs';

/** Microseconds of CPU that the processes' threads have used; threads that ended meanwhile are missed. */
export function cpuMicroseconds(pids: readonly number[]): number {
  let nanoseconds = 0;
  for (const pid of pids) {
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      // Run time in nanoseconds is the first number.
      nanoseconds += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
    }
  }
  return nanoseconds / 1000;
}

export interface Memory {
  pssKib: number;
  rssKib: number;
}

/** Proportional and resident memory: a page shared by n processes counts 1/n in the former. */
export function memoryOf(pid: number): Memory {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(rollup)?.[1] ?? Number.NaN);
  return { pssKib: field('Pss'), rssKib: field('Rss') };
}
