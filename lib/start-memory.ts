// A process that has just started holds what only its start needed: source text, compiler leftovers, a young generation
// grown by loading. V8 collects when there is garbage to collect, which an idle process never has; one collection by
// hand is some 25 ms of one processor and gives back a fifth of the memory.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Clock } from './clock.ts';
import { trimHeap } from './libc.ts';

/** Long after anybody waits for the process, and soon enough that nobody counts on the memory. */
const DELAY_MS = 2_000;
/** Looks at a process that is busy until it goes without. */
const LOOKS_MAX = 5;

/** Gives the memory back once, at a moment when `isBusy` says no. */
export function releaseStartMemory(clock: Clock, isBusy: () => boolean, looksLeft = LOOKS_MAX): void {
  clock.after(DELAY_MS, () => {
    if (isBusy()) {
      if (looksLeft > 1) releaseStartMemory(clock, isBusy, looksLeft - 1);
      return;
    }
    // Without `node --expose-gc` a new context has the function; it stays as garbage until the next collection.
    const collect = globalThis.gc ?? exposedCollect();
    collect({ type: 'major', execution: 'sync', flavor: 'last-resort' });
    trimHeap();
  });
}

function exposedCollect(): NonNullable<typeof globalThis.gc> {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as NonNullable<typeof globalThis.gc>;
}
