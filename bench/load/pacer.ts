// The clock of the open loop, in a thread of its own: an event loop wakes to the millisecond, a waiting thread to some
// ten microseconds, and it burns no CPU that the proxies could have used.

import { parentPort, workerData } from 'node:worker_threads';

const { startMs, intervalMs, count } = workerData as { startMs: number; intervalMs: number; count: number };
const never = new Int32Array(new SharedArrayBuffer(4));
for (let index = 0; index < count; index++) {
  const restMs = startMs + index * intervalMs - Number(process.hrtime.bigint()) / 1e6;
  if (restMs > 0) Atomics.wait(never, 0, 0, restMs);
  parentPort!.postMessage(index);
}
