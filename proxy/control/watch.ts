// A watch on the control plane that keeps its last value. Streams end for many reasons (agent restarted, control plane
// gone, queue overflow); traffic must not notice, so the value stays, its age is known, and the stream is opened again
// with exponential back-off. Only InvalidArgument and FailedPrecondition are final: the question itself is wrong.

import type { LinkStatus, WatchKind } from '#api/worker-link.ts';
import { Backoff } from '#lib/backoff.ts';
import type { Clock, Timer } from '#lib/clock.ts';
import type { Log } from '#lib/log.ts';

/** gRPC status codes that decide what a watch does (grpc.io "Status codes"). */
export const GrpcCode = {
  ok: 0,
  unknown: 2,
  invalidArgument: 3,
  notFound: 5,
  failedPrecondition: 9,
  unimplemented: 12,
  unavailable: 14,
} as const;

export interface WatchListener {
  /** One response message in protobuf. Valid during the call only. */
  update(payload: Uint8Array): void;
  /** No stream of the agent feeds this watch any more: what came before stands, until the next `update`. */
  stale(status: LinkStatus): void;
  /** The stream is over; nothing follows. */
  end(status: LinkStatus): void;
}

/** No such thing, or no such service: an answer, and not a fault of the connection. */
export const ABSENT: ReadonlySet<number> = new Set([
  GrpcCode.notFound,
  GrpcCode.unimplemented,
  GrpcCode.invalidArgument,
  GrpcCode.failedPrecondition,
]);

/** Where streams come from: the agent's link in node mode, gRPC in drop-in mode. */
export interface WatchTransport {
  /**
   * Opens a stream. The listener is never called from inside `open`. While the transport is down the stream ends with
   * Unavailable. `close` is idempotent and no call follows it.
   */
  open(kind: WatchKind, request: Uint8Array, listener: WatchListener): { close(): void };
  /** Calls `run` whenever the transport came up again: there is no point in waiting on. Returns the cancellation. */
  onUp?(run: () => void): () => void;
}

export interface WatchOptions<T> {
  transport: WatchTransport;
  kind: WatchKind;
  request: Uint8Array;
  /**
   * Folds a message into the value. `isFirst` marks the first message of a newly opened stream, which for deltas
   * starts the set anew. Throwing means the message is broken: the stream is opened again, the value stays.
   */
  reduce(payload: Uint8Array, previous: T | undefined, isFirst: boolean): T;
  clock: Clock;
  log: Log;
  random?: () => number;
  /** Milliseconds without a subscriber until the watch closes itself and calls `onIdle`. Infinity: never. */
  idleMs?: number;
  onIdle?: () => void;
}

const BACKOFF = { minMs: 100, maxMs: 10_000, jitter: 0.1 } as const;

export class Watch<T> {
  readonly #options: WatchOptions<T>;
  readonly #backoff: Backoff;
  readonly #subscribers = new Set<(watch: Watch<T>) => void>();
  #stream: { close(): void } | null = null;
  #retry: Timer | null = null;
  #cancelUp: (() => void) | null = null;
  #idle: Timer | null = null;
  #value: T | undefined;
  #status: LinkStatus | null = null;
  #staleSinceMs: number | null = null;
  #isClosed = false;
  #isTerminal = false;

  /** Opens the first stream at once. */
  constructor(options: WatchOptions<T>) {
    this.#options = options;
    this.#backoff = new Backoff(BACKOFF, options.random);
    this.#open();
    this.#armIdle();
  }

  /** The last value, however old; undefined until the first update. */
  get value(): T | undefined {
    return this.#value;
  }

  /** How the last stream ended, until the next update; null while all is well. */
  get status(): LinkStatus | null {
    return this.#status;
  }

  /** The service refused the question for good: no update will come. */
  get isTerminal(): boolean {
    return this.#isTerminal;
  }

  /** Since when (worker's clock) the value may be out of date because no stream feeds it; null while one does. */
  get staleSinceMs(): number | null {
    return this.#staleSinceMs;
  }

  /** Out of touch with whoever could answer: the value, if there is one, is the only one to be had. */
  get isCut(): boolean {
    return this.#staleSinceMs !== null && this.#status !== null && !ABSENT.has(this.#status.code);
  }

  /** True when there is something to act upon: a value, or an answer that there is none. */
  get isSettled(): boolean {
    return this.#value !== undefined || this.#status !== null;
  }

  /** Calls `listener` at every change of value or status, never from inside `subscribe`. Returns the cancellation. */
  subscribe(listener: (watch: Watch<T>) => void): () => void {
    // A wrapper of its own per call, so that the same function may subscribe twice.
    const entry = (watch: Watch<T>): void => listener(watch);
    this.#subscribers.add(entry);
    this.#idle?.cancel();
    this.#idle = null;
    return () => {
      if (!this.#subscribers.delete(entry)) return;
      if (this.#subscribers.size === 0) this.#armIdle();
    };
  }

  /** Ends the watch for good. Subscribers hear nothing more. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#subscribers.clear();
    this.#stream?.close();
    this.#stream = null;
    this.#stopRetry();
    this.#idle?.cancel();
  }

  #open(): void {
    let isFirst = true;
    const stream = this.#options.transport.open(this.#options.kind, this.#options.request, {
      update: (payload) => {
        if (this.#stream !== stream) return;
        try {
          this.#value = this.#options.reduce(payload, this.#value, isFirst);
        } catch (error) {
          stream.close();
          this.#ended({ code: GrpcCode.unknown, message: 'read update: message cannot be understood' });
          this.#options.log.warn('control plane sent an update that cannot be understood', { error });
          return;
        }
        isFirst = false;
        this.#status = null;
        this.#staleSinceMs = null;
        this.#backoff.reset();
        this.#notify();
      },
      stale: (status) => {
        if (this.#stream !== stream) return;
        this.#status = status;
        this.#staleSinceMs ??= this.#options.clock.nowMs();
        this.#notify();
      },
      end: (status) => {
        if (this.#stream === stream) this.#ended(status);
      },
    });
    this.#stream = stream;
  }

  #ended(status: LinkStatus): void {
    this.#stream = null;
    this.#status = status;
    this.#staleSinceMs ??= this.#options.clock.nowMs();
    this.#isTerminal = status.code === GrpcCode.invalidArgument || status.code === GrpcCode.failedPrecondition;
    if (!this.#isTerminal) {
      const again = (): void => {
        this.#stopRetry();
        this.#open();
      };
      this.#retry = this.#options.clock.after(this.#backoff.next(), again);
      if (status.code === GrpcCode.unavailable) this.#cancelUp = this.#options.transport.onUp?.(again) ?? null;
    }
    this.#notify();
  }

  #stopRetry(): void {
    this.#retry?.cancel();
    this.#retry = null;
    this.#cancelUp?.();
    this.#cancelUp = null;
  }

  #notify(): void {
    for (const subscriber of [...this.#subscribers]) {
      if (this.#subscribers.has(subscriber)) subscriber(this);
    }
  }

  #armIdle(): void {
    const { idleMs = Number.POSITIVE_INFINITY, clock } = this.#options;
    if (this.#isClosed || idleMs === Number.POSITIVE_INFINITY) return;
    this.#idle?.cancel();
    this.#idle = clock.after(idleMs, () => {
      this.#idle = null;
      // With the control plane out of reach the last answer is the only one there is: it outlives its idle time.
      if (this.isCut && this.#value !== undefined) {
        this.#armIdle();
        return;
      }
      this.close();
      this.#options.onIdle?.();
    });
  }
}
