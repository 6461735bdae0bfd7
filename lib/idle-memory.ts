// V8 collects when there is garbage to collect, which a quiet process never has: what a burst of work left behind (dead
// objects, a grown young generation, optimised code, the compiler's memory) would stay for good. A process that has
// gone quiet collects by hand, some 30 ms of one processor, and gives its memory back to the kernel.
// Reasons and figures: docs/adr/0011-memory-of-a-quiet-worker.md.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Clock } from './clock.ts';
import { trimHeap } from './libc.ts';

const LOOK_MS = 2_000;
/** Quiet: no more than one percent of a processor between two looks. */
const QUIET_CPU_MICROSECONDS = 20_000;
/** Less growth since the last collection is not worth the next one. */
const GROWTH_BYTES_MIN = 3 * 1024 * 1024;

/** The process, as far as its memory goes. */
export interface MemoryUser {
  /** CPU time so far, of all threads. */
  cpuMicroseconds(): number;
  residentBytes(): number;
  /** Gives back what can be given back. */
  collect(): void;
}

/**
 * From now on looks every LOOK_MS and gives memory back whenever the process is quiet and has grown since the last
 * time; what the start needed counts as growth.
 */
export function releaseIdleMemory(clock: Clock, user: MemoryUser = thisProcess): void {
  let cpuMicroseconds = user.cpuMicroseconds();
  let settledBytes = 0;
  const look = (): void => {
    const used = user.cpuMicroseconds() - cpuMicroseconds;
    if (used <= QUIET_CPU_MICROSECONDS && user.residentBytes() >= settledBytes + GROWTH_BYTES_MIN) {
      user.collect();
      settledBytes = user.residentBytes();
    }
    cpuMicroseconds = user.cpuMicroseconds();
    clock.after(LOOK_MS, look);
  };
  clock.after(LOOK_MS, look);
}

const thisProcess: MemoryUser = {
  cpuMicroseconds() {
    const { user, system } = process.cpuUsage();
    return user + system;
  },
  residentBytes: () => process.memoryUsage.rss(),
  collect() {
    // Without `node --expose-gc` a new context has the function; it stays as garbage until the next collection.
    const collect = globalThis.gc ?? exposedCollect();
    // Anything milder keeps optimised code and half-empty pages: a third more memory, and no faster afterwards.
    collect({ type: 'major', execution: 'sync', flavor: 'last-resort' });
    trimHeap();
  },
};

function exposedCollect(): NonNullable<typeof globalThis.gc> {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as NonNullable<typeof globalThis.gc>;
}
