// What tests use to watch streams: a listener that keeps everything, and a wait for conditions without sleeping.

import type { Duplex, DuplexListener } from '#lib/duplex.ts';
import type { HeddleError } from '#lib/errors.ts';

/** Keeps what a stream told, and notices calls from inside calls of the user's. */
export class Recorder implements DuplexListener {
  readonly chunks: Buffer[] = [];
  bytes = 0;
  isEnded = false;
  drains = 0;
  /** Undefined while open. */
  closedWith: HeddleError | null | undefined;
  /** True while the test is inside a call to the stream: no call may come back then. */
  isInside = false;
  readonly faults: string[] = [];
  readonly stream: Duplex;
  /** Called for each delivery, after it was recorded. */
  onDelivery: (() => void) | null = null;
  readonly #keepsBytes: boolean;

  constructor(stream: Duplex, options: { keepsBytes?: boolean } = {}) {
    this.stream = stream;
    this.#keepsBytes = options.keepsBytes ?? true;
    stream.listener = this;
  }

  get received(): Buffer {
    return Buffer.concat(this.chunks);
  }

  /** Runs a call to the stream; callbacks during it are faults. */
  inside<T>(run: () => T): T {
    this.isInside = true;
    try {
      return run();
    } finally {
      this.isInside = false;
    }
  }

  onData(buffer: Buffer, start: number, end: number): void {
    this.#note('onData');
    if (this.isEnded) this.faults.push('onData after onEnd');
    if (end <= start) this.faults.push('empty onData');
    this.bytes += end - start;
    if (this.#keepsBytes) this.chunks.push(Buffer.from(buffer.subarray(start, end)));
    this.onDelivery?.();
  }

  onEnd(): void {
    this.#note('onEnd');
    if (this.isEnded) this.faults.push('second onEnd');
    this.isEnded = true;
  }

  onDrain(): void {
    this.#note('onDrain');
    this.drains++;
  }

  onClose(error: HeddleError | null): void {
    this.#note('onClose');
    if (this.closedWith !== undefined) this.faults.push('second onClose');
    this.closedWith = error;
  }

  #note(call: string): void {
    if (this.isInside) this.faults.push(`${call} from inside a call`);
    if (this.closedWith !== undefined) this.faults.push(`${call} after onClose`);
  }
}

/** Resolves when `condition` holds; looks once per turn of the event loop. Rejects after `timeoutMs`. */
export function until(condition: () => boolean, timeoutMs = 5000): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const deadlineMs = performance.now() + timeoutMs;
  const look = (): void => {
    if (condition()) resolve();
    else if (performance.now() > deadlineMs) reject(new Error(`not within ${timeoutMs} ms: ${condition}`));
    else setImmediate(look);
  };
  look();
  return promise;
}

/** Resolves after `count` turns of the event loop: long enough for what must not happen to have happened. */
export function turns(count: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const next = (left: number): void => {
    if (left === 0) resolve();
    else setImmediate(next, left - 1);
  };
  next(count);
  return promise;
}

/** Bytes whose every position is told by its value. */
export function pattern(length: number, seed = 0): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let index = 0; index < length; index++) bytes[index] = (index * 31 + (index >> 8) * 7 + seed) & 0xff;
  return bytes;
}
