// One backend's endpoints, kept as discovery has them: new ones join the balancer, those that are gone drain, changed
// ones are replaced. Members are HTTP endpoints or plain ones; the balancer above does not care.

import type { Clock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { Balancer } from '../balance/balancer.ts';
import type { EndpointSet } from '../control/discovery.ts';
import type { Watch } from '../control/watch.ts';
import type { BalancerRecorder } from '../observe/recorder.ts';
import type { Endpoint } from './endpoint.ts';
import { type EndpointInfo, isSameEndpoint, readEndpoint } from './endpoint-info.ts';

/** What a set is made of. */
export interface ConcreteMember {
  readonly endpoint: Endpoint;
  readonly isReady: boolean;
  cost(nowMs: number): number;
  /** Left the set: what is under way finishes. */
  close(): void;
}

export interface ConcreteOptions<M extends ConcreteMember> {
  clock: Clock;
  random: () => number;
  /** Named in errors, such as `logical service web.shop.svc.cluster.local:80`. */
  name: string;
  watch: Watch<EndpointSet>;
  isLocal(address: string): boolean;
  make(info: EndpointInfo): M;
  recorder: BalancerRecorder;
}

/** Of linkerd2-proxy; it too ignores what the policy says about queues. */
export const QUEUE_MAX = 10_000;
export const FAILFAST_MS = 3_000;

export class Concrete<M extends ConcreteMember> {
  readonly balancer: Balancer<M>;
  readonly #options: ConcreteOptions<M>;
  readonly #members = new Map<string, M>();
  readonly #unsubscribe: () => void;
  #applied: EndpointSet | undefined;

  constructor(options: ConcreteOptions<M>) {
    this.#options = options;
    const { clock, random, name, recorder, watch } = options;
    this.balancer = new Balancer<M>({
      clock,
      random,
      queueMax: QUEUE_MAX,
      failfastMs: FAILFAST_MS,
      name,
      observer: recorder,
    });
    this.#unsubscribe = watch.subscribe(({ value }) => this.#apply(value));
    this.#apply(watch.value);
  }

  /** Nobody sends here any more: endpoints drain, what waits fails. */
  close(): void {
    this.#unsubscribe();
    for (const [key, member] of this.#members) this.#remove(key, member);
    this.balancer.close(new HeddleError('failfast', `${this.#options.name}: backend is no longer in use`));
  }

  #apply(set: EndpointSet | undefined): void {
    if (set === undefined || set === this.#applied) return;
    const isReset = this.#applied === undefined;
    this.#applied = set;
    if (isReset) this.#options.recorder.update('Reset');
    // First the new, then the old: a set that is replaced as a whole is never empty in between.
    for (const [key, message] of set.endpoints) {
      const info = readEndpoint(message, this.#options.isLocal, set.labels);
      const member = this.#members.get(key);
      if (!info || (member && isSameEndpoint(member.endpoint.info, info))) continue;
      this.#insert(key, info);
      if (member) this.#discard(member);
    }
    for (const [key, member] of this.#members) {
      if (!set.endpoints.has(key)) this.#remove(key, member);
    }
  }

  #insert(key: string, info: EndpointInfo): void {
    const member = this.#options.make(info);
    this.#members.set(key, member);
    member.endpoint.onReadiness = (isReady) => this.balancer.setReady(member, isReady);
    this.balancer.insert(member, member.isReady);
    this.#options.recorder.update('Add');
  }

  #remove(key: string, member: M): void {
    this.#members.delete(key);
    this.#discard(member);
  }

  #discard(member: M): void {
    this.balancer.remove(member);
    member.close();
    this.#options.recorder.update('Remove');
  }
}
