// The sending side of a server-streaming call, bounded: a client that reads too slowly has its stream closed instead of
// memory filled with what it did not read. It subscribes again and gets the present state.

import { type GrpcError, Status } from './status.ts';

/** Messages that wait for a slow client (Linkerd's --stream-queue-capacity). */
export const STREAM_QUEUE_CAPACITY = 100;

/** The part of grpc-js's writable call that is used. */
export interface WritableCall<T> {
  write(message: T): boolean;
  end(): void;
  emit(event: 'error', error: { code: number; details: string }): boolean;
  on(event: 'drain' | 'cancelled' | 'close', listener: () => void): unknown;
}

export interface StreamOptions {
  queueCapacity?: number;
}

export interface StreamHooks extends StreamOptions {
  onSent?: () => void;
  /** Once, when nothing more can be sent. */
  onEnd?: (status: number) => void;
}

export class MessageStream<T> {
  readonly #call: WritableCall<T>;
  readonly #hooks: StreamHooks;
  readonly #capacity: number;
  #queue: T[] = [];
  #isBlocked = false;
  #isOver = false;

  constructor(call: WritableCall<T>, hooks: StreamHooks = {}) {
    this.#call = call;
    this.#hooks = hooks;
    this.#capacity = hooks.queueCapacity ?? STREAM_QUEUE_CAPACITY;
    call.on('drain', () => this.#flush());
    call.on('cancelled', () => this.#finish(Status.cancelled));
    call.on('close', () => this.#finish(Status.cancelled));
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Messages that the client has not taken yet. */
  get queued(): number {
    return this.#queue.length;
  }

  /**
   * Sends or queues a message. False when the stream is over, which it also is after this call found its queue full:
   * it then ends with OK, the queue is dropped, and the client is expected to subscribe again.
   */
  send(message: T): boolean {
    if (this.#isOver) return false;
    if (!this.#isBlocked) {
      this.#write(message);
      return true;
    }
    if (this.#queue.length >= this.#capacity) {
      this.#queue = [];
      this.end();
      return false;
    }
    this.#queue.push(message);
    return true;
  }

  /** Ends the call with OK. What is queued is dropped: call it for streams whose state is void. */
  end(): void {
    if (!this.#finish(Status.ok)) return;
    this.#call.end();
  }

  /** Ends the call with a status. */
  fail(error: GrpcError): void {
    if (!this.#finish(error.status)) return;
    this.#call.emit('error', { code: error.status, details: error.message });
  }

  #write(message: T): void {
    this.#isBlocked = !this.#call.write(message);
    this.#hooks.onSent?.();
  }

  #flush(): void {
    this.#isBlocked = false;
    while (!this.#isOver && !this.#isBlocked && this.#queue.length > 0) this.#write(this.#queue.shift()!);
  }

  #finish(status: number): boolean {
    if (this.#isOver) return false;
    this.#isOver = true;
    this.#queue = [];
    this.#hooks.onEnd?.(status);
    return true;
  }
}
