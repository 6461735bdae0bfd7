// A pair of Duplexes in memory: what one end writes the other reads. For tests and simulations; deliveries come from
// microtasks, so that a run is deterministic and needs no I/O.

import type { Duplex, DuplexListener } from './duplex.ts';
import { assert, HeddleError } from './errors.ts';

export interface MemoryDuplexOptions {
  /** A write that leaves this much unread returns false. */
  highWaterBytes?: number;
  /** One delivery has at most this many bytes. */
  readBytesMax?: number;
}

const NO_LISTENER: DuplexListener = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} };

/** Two ends of one connection; both start paused. */
export function memoryPair(options: MemoryDuplexOptions = {}): [Duplex, Duplex] {
  const left = new MemoryDuplex(options, '10.0.0.1', 40_001, '10.0.0.2', 80);
  const right = new MemoryDuplex(options, '10.0.0.2', 80, '10.0.0.1', 40_001);
  left.peer = right;
  right.peer = left;
  return [left, right];
}

class MemoryDuplex implements Duplex {
  listener: DuplexListener = NO_LISTENER;
  peer: MemoryDuplex | null = null;
  readonly localAddress: string;
  readonly localPort: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
  bytesRead = 0;
  bytesWritten = 0;
  /** Written by the peer, not delivered yet. */
  readonly #incoming: Buffer[] = [];
  #incomingBytes = 0;
  readonly #highWaterBytes: number;
  readonly #readBytesMax: number;
  #isPaused = true;
  #isEndDue = false;
  #hasReadEnd = false;
  #hasEnded = false;
  #isDrainDue = false;
  #isClosed = false;
  #isScheduled = false;
  #isAbandoned = false;

  constructor(
    options: MemoryDuplexOptions,
    localAddress: string,
    localPort: number,
    remoteAddress: string,
    remotePort: number,
  ) {
    this.#highWaterBytes = options.highWaterBytes ?? 65_536;
    this.#readBytesMax = options.readBytesMax ?? 65_536;
    this.localAddress = localAddress;
    this.localPort = localPort;
    this.remoteAddress = remoteAddress;
    this.remotePort = remotePort;
  }

  get bytesQueued(): number {
    return this.peer!.#incomingBytes;
  }

  write(bytes: Uint8Array): boolean {
    assert(!this.#hasEnded || this.#isClosed, 'write after end');
    if (this.#isClosed || bytes.length === 0) return true;
    const peer = this.peer!;
    // As TCP does when data comes for a socket that is closed.
    if (peer.#isAbandoned) {
      this.#close(new HeddleError('connection-reset', 'write: ECONNRESET'));
      return true;
    }
    this.bytesWritten += bytes.length;
    peer.#incoming.push(Buffer.from(bytes));
    peer.#incomingBytes += bytes.length;
    peer.#schedule();
    if (peer.#incomingBytes < this.#highWaterBytes) return true;
    this.#isDrainDue = true;
    return false;
  }

  end(): void {
    if (this.#hasEnded || this.#isClosed) return;
    this.#hasEnded = true;
    this.peer!.#isEndDue = true;
    this.peer!.#schedule();
    this.#closeWhenEnded();
  }

  abandon(): void {
    this.end();
    this.#isAbandoned = true;
    this.#incoming.length = 0;
    this.#incomingBytes = 0;
    this.#closeWhenEnded();
  }

  reset(error: HeddleError = new HeddleError('stream-reset', 'reset by its user')): void {
    if (this.#isClosed) return;
    this.#close(error);
    this.peer!.#close(new HeddleError('connection-reset', 'read: ECONNRESET'));
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isPaused || this.#isClosed) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      this.#deliver();
    });
  }

  /** One delivery at a time, as one read of a socket. */
  #deliver(): void {
    if (this.#isPaused || this.#isClosed) return;
    const chunk = this.#incoming[0];
    if (chunk !== undefined) {
      const part = chunk.subarray(0, this.#readBytesMax);
      if (part.length < chunk.length) this.#incoming[0] = chunk.subarray(part.length);
      else this.#incoming.shift();
      this.#incomingBytes -= part.length;
      this.bytesRead += part.length;
      this.peer!.#drained();
      this.listener.onData(part, 0, part.length);
      this.#schedule();
    } else if (this.#isEndDue && !this.#hasReadEnd) {
      this.#hasReadEnd = true;
      this.listener.onEnd();
      this.#closeWhenEnded();
    }
  }

  #drained(): void {
    if (!this.#isDrainDue || this.peer!.#incomingBytes >= this.#highWaterBytes) return;
    this.#isDrainDue = false;
    queueMicrotask(() => {
      if (!this.#isClosed) this.listener.onDrain();
    });
  }

  #closeWhenEnded(): void {
    if ((this.#hasReadEnd || this.#isAbandoned) && this.#hasEnded && !this.#isClosed) this.#close(null);
  }

  #close(error: HeddleError | null): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#incoming.length = 0;
    this.#incomingBytes = 0;
    queueMicrotask(() => this.listener.onClose(error));
  }
}
