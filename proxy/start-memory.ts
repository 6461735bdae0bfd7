// A process that has just started holds what only its start needed: source text, compiler leftovers, a young generation
// grown by loading. V8 collects it when there is garbage to collect, which an idle worker never has; one collection by
// hand is 25 ms of one processor and gives back a fifth of the memory of each pod.

import type { Clock } from '#lib/clock.ts';
import { trimHeap } from '#lib/libc.ts';

/** Long after the agent waits for the worker, and soon enough that nobody counts on the memory. */
const DELAY_MS = 2_000;
/** Looks at a worker that has connections until it goes without. */
const LOOKS_MAX = 5;

/** Gives the memory back once, at a moment without connections. Needs `node --expose-gc`; does nothing without. */
export function releaseStartMemory(clock: Clock, connections: () => number, looksLeft = LOOKS_MAX): void {
  const collect = globalThis.gc;
  if (!collect) return;
  clock.after(DELAY_MS, () => {
    if (connections() > 0) {
      if (looksLeft > 1) releaseStartMemory(clock, connections, looksLeft - 1);
      return;
    }
    collect({ type: 'major', execution: 'sync', flavor: 'last-resort' });
    trimHeap();
  });
}
