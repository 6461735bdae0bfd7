// Every backend the worker sends to, shared by all routes and targets that name it: a balancer over discovered
// endpoints, or one endpoint without balancer. A policy update composes new stacks over the same backends, so that
// connections, latencies and breakers survive it.

import type { Clock } from '#lib/clock.ts';
import type { HeddleError } from '#lib/errors.ts';
import { formatAddress } from '../address.ts';
import { failfastError } from '../balance/balancer.ts';
import { type DiscoveryOptions, type EndpointSet, watchEndpoints } from '../control/discovery.ts';
import type { Watch } from '../control/watch.ts';
import type { Recorder } from '../observe/recorder.ts';
import type { BreakerOptions } from './breaker.ts';
import { Concrete, type ConcreteMember } from './concrete.ts';
import type { Dial } from './dial.ts';
import { CONNECT_BACKOFF, Endpoint, type EndpointOptions } from './endpoint.ts';
import type { EndpointInfo } from './endpoint-info.ts';
import { HttpEndpoint, type Pools } from './http-endpoint.ts';
import { type Backend, DEFAULT_LOAD, type MetaRef } from './policy.ts';
import { backendLabels, parentLabels } from './ref-labels.ts';
import { type Lease, Shared } from './shared.ts';

/** Where members of one backend come from. */
export interface Members<M> {
  pick(except?: M | null): M | null;
  wait(waiter: { ready(member: M): void; fail(error: HeddleError): void }): HeddleError | null;
  cancel(waiter: { ready(member: M): void; fail(error: HeddleError): void }): void;
}

export interface BackendTarget<M> {
  readonly members: Members<M>;
  /** A single endpoint without balancer. */
  readonly isForward: boolean;
  isAvailable(): boolean;
  close(): void;
}

/** A connection's endpoint: an endpoint that is its own member. */
export class TcpMember implements ConcreteMember {
  readonly endpoint: Endpoint;

  constructor(options: EndpointOptions) {
    this.endpoint = new Endpoint(options);
  }

  get isReady(): boolean {
    return this.endpoint.isReady;
  }

  cost(nowMs: number): number {
    return this.endpoint.cost(nowMs);
  }

  close(): void {
    this.endpoint.close();
  }
}

export interface BackendsOptions {
  clock: Clock;
  random: () => number;
  recorder: Recorder;
  dial: Dial;
  pools: Pools;
  discovery: DiscoveryOptions;
  isLocal(address: string): boolean;
}

/** For whom a backend is used: names its series and errors. */
export interface BackendUse {
  parent: MetaRef;
  /** `web.shop.svc.cluster.local:80`, empty where the target has no name. */
  authority: string;
}

/** How long a backend that no route names any more keeps its connections. */
const BACKEND_IDLE_MS = 5_000;

export class Backends {
  readonly #options: BackendsOptions;
  readonly #http: Shared<BackendTarget<HttpEndpoint>>;
  readonly #tcp: Shared<BackendTarget<TcpMember>>;
  readonly #watches = new Map<string, Watch<EndpointSet>>();

  constructor(options: BackendsOptions) {
    this.#options = options;
    this.#http = new Shared(options.clock, () => BACKEND_IDLE_MS);
    this.#tcp = new Shared(options.clock, () => BACKEND_IDLE_MS);
  }

  /** For requests. Null: the backend cannot be used. */
  http(backend: Backend, use: BackendUse, breaker: BreakerOptions | null): Lease<BackendTarget<HttpEndpoint>> | null {
    if (backend.kind === 'unusable') return null;
    const { pools } = this.#options;
    return this.#http.acquire(JSON.stringify([backend, use, breaker]), () =>
      this.#target(backend, use, 'http', (info) => {
        return new HttpEndpoint({ ...this.#endpointOptions(backend, use, info), breaker, pools });
      }),
    );
  }

  /** For connections. Null: the backend cannot be used. */
  tcp(backend: Backend, use: BackendUse): Lease<BackendTarget<TcpMember>> | null {
    if (backend.kind === 'unusable') return null;
    return this.#tcp.acquire(JSON.stringify([backend, use]), () =>
      this.#target(backend, use, 'tcp', (info) => new TcpMember(this.#endpointOptions(backend, use, info))),
    );
  }

  /** Drains every endpoint. */
  close(): void {
    this.#http.close();
    this.#tcp.close();
    for (const watch of this.#watches.values()) watch.close();
    this.#watches.clear();
  }

  #endpointOptions(backend: Backend, use: BackendUse, info: EndpointInfo): EndpointOptions {
    const { clock, random, recorder, dial } = this.#options;
    return {
      clock,
      random,
      recorder,
      dial,
      info,
      load: backend.kind === 'balancer' ? backend.load : DEFAULT_LOAD,
      breaker: null,
      connectBackoff: backend.kind === 'balancer' ? CONNECT_BACKOFF : null,
      authority: use.authority,
    };
  }

  #target<M extends ConcreteMember>(
    backend: Exclude<Backend, { kind: 'unusable' }>,
    use: BackendUse,
    protocol: 'http' | 'tcp',
    make: (info: EndpointInfo) => M,
  ): BackendTarget<M> {
    if (backend.kind === 'forward') return new SingleTarget(make(backend.endpoint));
    const { clock, random, recorder, isLocal } = this.#options;
    const labels = { ...parentLabels(use.parent), ...backendLabels(backend.ref) };
    const concrete = new Concrete<M>({
      clock,
      random,
      isLocal,
      make,
      name: `logical service ${backend.path}`,
      watch: this.#watch(backend.path),
      recorder: recorder.balancer(protocol, labels),
    });
    const { balancer } = concrete;
    return {
      members: balancer,
      isForward: false,
      isAvailable: () => balancer.isAvailable,
      close: () => concrete.close(),
    };
  }

  #watch(path: string): Watch<EndpointSet> {
    let watch = this.#watches.get(path);
    if (!watch) {
      watch = watchEndpoints(path, this.#options.discovery, () => this.#watches.delete(path));
      this.#watches.set(path, watch);
    }
    return watch;
  }
}

/** One endpoint and nowhere else to go: every request tries it, unless its breaker is open. */
class SingleTarget<M extends ConcreteMember> implements BackendTarget<M>, Members<M> {
  readonly isForward = true;
  readonly members: Members<M> = this;
  readonly #member: M;

  constructor(member: M) {
    this.#member = member;
  }

  pick(except: M | null = null): M | null {
    return this.#member !== except && this.#member.isReady ? this.#member : null;
  }

  wait(): HeddleError {
    const { address, port } = this.#member.endpoint.info;
    return failfastError(`endpoint ${formatAddress(address, port)}`);
  }

  cancel(): void {}

  isAvailable(): boolean {
    return this.#member.isReady;
  }

  close(): void {
    this.#member.close();
  }
}
