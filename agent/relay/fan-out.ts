// One upstream stream and the workers that read it. The last answer is kept and told to whoever joins; when the
// stream breaks it stands, marked stale, until a new stream answers. How an end of the stream is taken:
//   InvalidArgument, FailedPrecondition, NotFound   an answer: told to the workers, the value goes
//   everything else                                 trouble: the value stays, the stream is opened again with back-off

import { Update } from '#api/gen/destination.ts';
import { type LinkStatus, WatchKind } from '#api/worker-link.ts';
import { Backoff } from '#lib/backoff.ts';
import type { Clock, Timer } from '#lib/clock.ts';
import { Status } from '#lib/grpc/status.ts';
import type { Log } from '#lib/log.ts';
import { EndpointSet } from './endpoint-set.ts';
import type { WatchTarget } from './target.ts';
import type { Upstream, UpstreamStream } from './upstream.ts';

/** A worker's end of a watch. Calls never come from inside `subscribe`. */
export interface Subscriber {
  update(payload: Uint8Array): void;
  /** No stream feeds the watch any more; the last update stands until the next one. */
  stale(status: LinkStatus): void;
  /** The watch is over: no call follows, and the subscription is gone. */
  end(status: LinkStatus): void;
}

export interface FanOutOptions {
  target: WatchTarget;
  upstream: Upstream;
  clock: Clock;
  log: Log;
  /** Milliseconds without a subscriber until the stream is closed. */
  idleMs: number;
  /** Called when nobody needs this any more. */
  onIdle: () => void;
  random?: () => number;
}

const BACKOFF = { minMs: 200, maxMs: 10_000, jitter: 0.25 } as const;

export class FanOut {
  readonly #options: FanOutOptions;
  readonly #backoff: Backoff;
  /** False: joined, and waits for the turn in which it is told the last answer. */
  readonly #subscribers = new Map<Subscriber, boolean>();
  #stream: UpstreamStream | null = null;
  #retry: Timer | null = null;
  #idle: Timer | null = null;
  /** Profiles and policies come whole: the last message is the value. */
  #last: Uint8Array | null = null;
  /** Destinations come as changes. */
  #endpoints: EndpointSet | null = null;
  #status: LinkStatus | null = null;
  #staleSinceMs: number | null = null;
  #isClosed = false;

  constructor(options: FanOutOptions) {
    this.#options = options;
    this.#backoff = new Backoff(BACKOFF, options.random);
  }

  get subscribers(): number {
    return this.#subscribers.size;
  }

  get hasValue(): boolean {
    return this.#last !== null || this.#endpoints !== null;
  }

  get isConnected(): boolean {
    return this.#stream !== null;
  }

  /** Since when (on the clock) the value stands without a stream; null while all is well or there is no value. */
  get staleSinceMs(): number | null {
    return this.hasValue ? this.#staleSinceMs : null;
  }

  /** Joins. What is known already is told in the next turn. Returns the cancellation, which is idempotent. */
  subscribe(subscriber: Subscriber): () => void {
    this.#idle?.cancel();
    this.#idle = null;
    this.#subscribers.set(subscriber, false);
    if (this.#stream === null && this.#retry === null) this.#open();
    queueMicrotask(() => this.#welcome(subscriber));
    return () => {
      if (this.#subscribers.delete(subscriber)) this.#maybeIdle();
    };
  }

  /** Ends the upstream stream for good; subscribers hear nothing more. */
  close(): void {
    this.#isClosed = true;
    this.#subscribers.clear();
    this.#stream?.close();
    this.#stream = null;
    this.#retry?.cancel();
    this.#idle?.cancel();
  }

  #welcome(subscriber: Subscriber): void {
    if (this.#subscribers.get(subscriber) !== false) return;
    this.#subscribers.set(subscriber, true);
    for (const payload of this.#snapshot()) subscriber.update(payload);
    if (this.#status === null) return;
    if (this.hasValue) subscriber.stale(this.#status);
    else if (this.#stream === null) {
      this.#subscribers.delete(subscriber);
      subscriber.end(this.#status);
      this.#maybeIdle();
    }
  }

  #snapshot(): Uint8Array[] {
    if (this.#last) return [this.#last];
    return this.#endpoints ? this.#endpoints.snapshot().map((update) => Update.encode(update).finish()) : [];
  }

  #open(): void {
    const { upstream, target } = this.#options;
    let isFirst = true;
    const stream = upstream.open(target.kind, target.request, {
      update: (payload) => {
        if (this.#stream !== stream) return;
        try {
          this.#take(payload, isFirst);
        } catch (error) {
          this.#options.log.warn('control plane sent an update that cannot be understood', {
            target: target.name,
            error,
          });
          stream.close();
          this.#ended({ code: Status.internal, message: `read update of "${target.name}": expected protobuf` });
          return;
        }
        isFirst = false;
      },
      end: (status) => {
        if (this.#stream === stream) this.#ended(status);
      },
    });
    this.#stream = stream;
  }

  #take(payload: Uint8Array, isFirst: boolean): void {
    const payloads = this.#options.target.kind === WatchKind.destination ? this.#merge(payload, isFirst) : [payload];
    if (this.#options.target.kind !== WatchKind.destination) this.#last = payload;
    this.#status = null;
    this.#staleSinceMs = null;
    this.#backoff.reset();
    for (const [subscriber, isWelcome] of [...this.#subscribers]) {
      // One that waits for its welcome gets this message with the snapshot.
      if (!isWelcome) continue;
      for (const message of payloads) if (this.#subscribers.has(subscriber)) subscriber.update(message);
    }
  }

  /** What to tell workers that know the old set. The first message of a new stream starts the set anew. */
  #merge(payload: Uint8Array, isFirst: boolean): Uint8Array[] {
    const update = Update.decode(payload);
    if (!isFirst && this.#endpoints) {
      this.#endpoints.apply(update);
      return [payload];
    }
    const next = new EndpointSet();
    next.apply(update);
    const gone = this.#endpoints?.missingIn(next) ?? null;
    this.#endpoints = next;
    return gone ? [Update.encode(gone).finish(), payload] : [payload];
  }

  #ended(status: LinkStatus): void {
    this.#stream = null;
    this.#status = status;
    this.#staleSinceMs ??= this.#options.clock.nowMs();
    if (isAnswer(status.code)) {
      this.#last = null;
      this.#endpoints = null;
    }
    const { hasValue } = this;
    for (const [subscriber, isWelcome] of [...this.#subscribers]) {
      if (!isWelcome || !this.#subscribers.has(subscriber)) continue;
      if (hasValue) subscriber.stale(status);
      else {
        this.#subscribers.delete(subscriber);
        subscriber.end(status);
      }
    }
    this.#retry = this.#options.clock.after(this.#backoff.next(), () => {
      this.#retry = null;
      // Without a value or a reader there is nothing to keep fresh: the next subscriber opens the stream.
      if (!this.#isClosed && (this.hasValue || this.#subscribers.size > 0)) this.#open();
      this.#maybeIdle();
    });
    this.#maybeIdle();
  }

  #maybeIdle(): void {
    if (this.#isClosed || this.#idle || this.#subscribers.size > 0) return;
    this.#idle = this.#options.clock.after(this.#options.idleMs, () => {
      this.#idle = null;
      // While the control plane is away the last answer is the only one there is: it outlives its idle time.
      if (this.staleSinceMs !== null) {
        this.#maybeIdle();
        return;
      }
      this.close();
      this.#options.onIdle();
    });
  }
}

/** True for statuses that answer the question; the others say that it could not be asked. */
function isAnswer(code: number): boolean {
  return code === Status.invalidArgument || code === Status.failedPrecondition || code === Status.notFound;
}
