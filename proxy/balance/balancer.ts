// A set of members and the requests that wait for one of them. Picks by power of two choices among the ready; while
// none is ready requests queue up, and after the fail-fast time all of them fail at once. Knows nothing about HTTP or
// TCP: a member is whatever says what it would cost.

import type { Clock, Timer } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { FailFast } from './failfast.ts';
import { type Candidate, pickP2c } from './p2c.ts';

export interface BalancerOptions {
  clock: Clock;
  random: () => number;
  /** Requests that may wait for a ready member. */
  queueMax: number;
  failfastMs: number;
  /** Named in errors: `logical service web.default.svc.cluster.local:80`. */
  name: string;
  observer: BalancerObserver;
}

/** What the balancer tells about itself, for metrics. */
export interface BalancerObserver {
  endpoints(ready: number, pending: number): void;
  queueLength(length: number): void;
  dequeued(waitMs: number): void;
  gate(isOpen: boolean): void;
}

export interface Waiter<M> {
  /** A member is there; never called from inside `wait`. */
  ready(member: M): void;
  fail(error: HeddleError): void;
}

export class Balancer<M extends Candidate> {
  readonly #options: BalancerOptions;
  readonly #failfast: FailFast;
  readonly #ready: M[] = [];
  /** Position of each ready member in `#ready`, -1 for one that is pending. */
  readonly #members = new Map<M, number>();
  /** In order of arrival, with the time of it. */
  readonly #waiting = new Map<Waiter<M>, number>();
  #deadline: Timer | null = null;
  #isDraining = false;

  constructor(options: BalancerOptions) {
    this.#options = options;
    this.#failfast = new FailFast(options.failfastMs);
  }

  get size(): number {
    return this.#members.size;
  }

  get readyCount(): number {
    return this.#ready.length;
  }

  /** False while in fail-fast: a distribution goes to another backend. */
  get isAvailable(): boolean {
    return this.#failfast.isOpen;
  }

  members(): IterableIterator<M> {
    return this.#members.keys();
  }

  insert(member: M, isReady: boolean): void {
    this.#members.set(member, -1);
    this.#report();
    if (isReady) this.setReady(member, true);
  }

  remove(member: M): void {
    this.setReady(member, false);
    if (this.#members.delete(member)) this.#report();
  }

  /** A member became ready or stopped being so. Waiting requests are served from here. */
  setReady(member: M, isReady: boolean): void {
    const index = this.#members.get(member);
    if (index === undefined || isReady === index >= 0) return;
    if (isReady) {
      this.#members.set(member, this.#ready.push(member) - 1);
      if (this.#failfast.onReady()) this.#options.observer.gate(true);
      this.#disarm();
    } else {
      const last = this.#ready.pop() as M;
      if (last !== member) {
        this.#ready[index] = last;
        this.#members.set(last, index);
      }
      this.#members.set(member, -1);
    }
    this.#report();
    if (isReady) this.#serve();
    else this.#settleQueue();
  }

  /** A ready member other than `except`, or null when there is none or others wait already. */
  pick(except: M | null = null): M | null {
    if (this.#waiting.size > 0 && !this.#isDraining) return null;
    const nowMs = this.#options.clock.nowMs();
    const picked = pickP2c(this.#ready, nowMs, this.#options.random);
    if (picked === undefined) return null;
    if (picked !== except) return picked;
    const others = this.#ready.filter((member) => member !== except);
    return pickP2c(others, nowMs, this.#options.random) ?? null;
  }

  /**
   * Queues a request. Returns null with the error when it may not wait: in fail-fast, or with the queue full.
   * The waiter is called once, unless `cancel` comes first.
   */
  wait(waiter: Waiter<M>): HeddleError | null {
    const { clock, queueMax, name, observer } = this.#options;
    if (!this.#failfast.isOpen) return failfastError(name);
    if (this.#waiting.size >= queueMax) {
      return new HeddleError('load-shed', `queue request for ${name}: expected fewer than ${queueMax} in the queue`);
    }
    const nowMs = clock.nowMs();
    this.#waiting.set(waiter, nowMs);
    observer.queueLength(this.#waiting.size);
    if (this.#ready.length === 0) {
      this.#failfast.onWaiting(nowMs);
      this.#arm();
    } else {
      // Ready members, but others wait in front: they are being served now.
      queueMicrotask(() => this.#serve());
    }
    return null;
  }

  cancel(waiter: Waiter<M>): void {
    if (!this.#waiting.delete(waiter)) return;
    this.#options.observer.queueLength(this.#waiting.size);
    this.#settleQueue();
  }

  /** Fails everything that waits; the balancer is not used afterwards. */
  close(error: HeddleError): void {
    this.#failAll(error);
    this.#disarm();
  }

  #serve(): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    for (const [waiter, sinceMs] of this.#waiting) {
      const member = this.pick();
      if (member === null) break;
      this.#waiting.delete(waiter);
      this.#options.observer.dequeued(this.#options.clock.nowMs() - sinceMs);
      waiter.ready(member);
    }
    this.#isDraining = false;
    this.#options.observer.queueLength(this.#waiting.size);
    this.#settleQueue();
  }

  /** The time limit runs exactly while somebody waits and nothing is ready. */
  #settleQueue(): void {
    if (this.#waiting.size === 0) {
      this.#failfast.onEmpty();
      this.#disarm();
    } else if (this.#ready.length === 0) {
      this.#failfast.onWaiting(this.#options.clock.nowMs());
      this.#arm();
    }
  }

  #arm(): void {
    if (this.#deadline !== null) return;
    const { clock, name, observer } = this.#options;
    const delayMs = this.#failfast.nextDeadlineMs() - clock.nowMs();
    this.#deadline = clock.after(delayMs, () => {
      this.#deadline = null;
      if (!this.#failfast.onDeadline(clock.nowMs())) {
        // A timer may fire a fraction of a millisecond early.
        if (this.#waiting.size > 0 && this.#ready.length === 0) this.#arm();
        return;
      }
      observer.gate(false);
      this.#failAll(failfastError(name));
    });
  }

  #disarm(): void {
    this.#deadline?.cancel();
    this.#deadline = null;
  }

  #failAll(error: HeddleError): void {
    const waiting = [...this.#waiting.keys()];
    this.#waiting.clear();
    this.#options.observer.queueLength(0);
    for (const waiter of waiting) waiter.fail(error);
  }

  #report(): void {
    this.#options.observer.endpoints(this.#ready.length, this.#members.size - this.#ready.length);
  }
}

export function failfastError(name: string): HeddleError {
  return new HeddleError('failfast', `${name}: service in fail-fast`, { source: 'upstream', retry: 'yes' });
}
