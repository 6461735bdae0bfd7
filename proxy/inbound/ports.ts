// The policies of the pod's ports. Ports that the agent names are watched for ever, others from their first connection
// until nobody used them for a while. Where the policy service cannot be reached, or takes long, the default policy
// holds, so that a connection never waits long for the control plane.

import { PortSpec } from '#api/gen/inbound.ts';
import type { WorkerConfig } from '#api/worker-config.ts';
import { WatchKind } from '#api/worker-link.ts';
import type { Clock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { parseCidr } from '#lib/ip-address.ts';
import type { Log } from '#lib/log.ts';
import { Watch, type WatchTransport } from '../control/watch.ts';
import { defaultPolicy } from '../policy/defaults.ts';
import type { ServerPolicy } from '../policy/server-policy.ts';
import { decodeServerPolicy } from '../policy/translate.ts';

/** Ports watched at a time. Clients choose the ports, so a scan must not open a watch for each of 65,535. */
export const PORTS_MAX = 1_024;

export interface PortsOptions {
  transport: WatchTransport;
  clock: Clock;
  log: Log;
  random?: () => number;
}

/** What of the configuration decides about policies. */
export type PortsConfig = Pick<WorkerConfig, 'inbound'> & {
  outbound: Pick<WorkerConfig['outbound'], 'policyWorkload'>;
};

/** The policy of one port, as a connection holds it. */
export interface PortPolicy {
  readonly port: number;
  /** Changes when the policy service says so; the same object means the same policy. */
  readonly current: ServerPolicy;
  /**
   * Null when `current` is what the service said, or it cannot be asked. Else resolves when one of the two is so, after
   * `timeoutMs` after the first who waited at the latest: what the default permits the port's own policy may forbid.
   */
  whenKnown(timeoutMs: number): Promise<void> | null;
  /** Calls `listener` when `current` has changed. Returns the cancellation. */
  onChange(listener: (policy: ServerPolicy) => void): () => void;
}

export class Ports {
  readonly #options: PortsOptions;
  #config: PortsConfig;
  readonly #ports = new Map<number, WatchedPort>();
  /** Ports that are watched whether anybody uses them or not. */
  readonly #permanent = new Map<number, () => void>();

  constructor(config: PortsConfig, options: PortsOptions) {
    this.#options = options;
    this.#config = config;
    this.#watchPermanent();
  }

  /** How many ports are watched. */
  get size(): number {
    return this.#ports.size;
  }

  /** Takes a changed configuration: defaults hold at once, also for connections that are open. */
  configure(config: PortsConfig): void {
    const isOtherWorkload = config.outbound.policyWorkload !== this.#config.outbound.policyWorkload;
    this.#config = config;
    for (const port of this.#ports.values()) port.setDefault(this.#defaultPolicy(port.port), isOtherWorkload);
    this.#watchPermanent();
  }

  /**
   * The policy of a port, watched from now on. Throws `too-many-ports` where that many are watched already: a default
   * in its place might permit what the port's own policy does not.
   */
  get(port: number): PortPolicy {
    const known = this.#ports.get(port);
    if (known) return known;
    if (this.#ports.size >= PORTS_MAX && !this.#config.inbound.ports.includes(port)) {
      throw new HeddleError(
        'too-many-ports',
        `watch the policy of port "${port}": ${PORTS_MAX} ports are watched already`,
      );
    }
    const added = new WatchedPort(port, this.#defaultPolicy(port), () => this.#open(port), this.#options.clock);
    this.#ports.set(port, added);
    return added;
  }

  close(): void {
    for (const port of this.#ports.values()) port.close();
    this.#ports.clear();
    this.#permanent.clear();
  }

  #watchPermanent(): void {
    const wanted = new Set(this.#config.inbound.ports);
    for (const [port, cancel] of this.#permanent) {
      if (wanted.has(port)) continue;
      cancel();
      this.#permanent.delete(port);
    }
    for (const port of wanted) {
      if (!this.#permanent.has(port))
        this.#permanent.set(
          port,
          this.get(port).onChange(() => {}),
        );
    }
  }

  #open(port: number): Watch<ServerPolicy> {
    const { transport, clock, log, random } = this.#options;
    return new Watch<ServerPolicy>({
      transport,
      kind: WatchKind.inboundPolicy,
      request: PortSpec.encode({ workload: this.#config.outbound.policyWorkload, port }).finish(),
      reduce: (payload) => {
        const policy = decodeServerPolicy(payload);
        if (policy.protocol.kind === 'invalid') {
          log.error('inbound policy cannot be used: nothing may pass', { port, reason: policy.protocol.reason });
        }
        return policy;
      },
      clock,
      log,
      ...(random && { random }),
      idleMs: this.#config.inbound.discoveryIdleMs,
      onIdle: () => this.#ports.delete(port),
    });
  }

  #defaultPolicy(port: number): ServerPolicy {
    const { inbound } = this.#config;
    const isIn = (ranges: readonly (readonly [number, number])[]) =>
      ranges.some(([from, to]) => port >= from && port <= to);
    return defaultPolicy({
      policy: inbound.defaultPolicy,
      clusterNetworks: inbound.clusterNetworks.map((text) => parseCidr(text)!),
      isOpaque: isIn(inbound.opaquePorts),
      requiresIdentity: isIn(inbound.requireIdentityPorts),
      detectTimeoutMs: inbound.detectTimeoutMs,
    });
  }
}

class WatchedPort implements PortPolicy {
  readonly port: number;
  readonly #open: () => Watch<ServerPolicy>;
  readonly #clock: Clock;
  #watch: Watch<ServerPolicy>;
  #default: ServerPolicy;
  #current: ServerPolicy;
  readonly #listeners = new Map<object, (policy: ServerPolicy) => void>();
  #unsubscribe: (() => void) | null = null;
  /** A service that says nothing delays the first connections, not every one. */
  #waitEndsMs: number | null = null;

  constructor(port: number, fallback: ServerPolicy, open: () => Watch<ServerPolicy>, clock: Clock) {
    this.port = port;
    this.#clock = clock;
    this.#default = fallback;
    this.#current = fallback;
    this.#open = open;
    this.#watch = open();
  }

  get current(): ServerPolicy {
    return this.#watch.value ?? this.#default;
  }

  whenKnown(timeoutMs: number): Promise<void> | null {
    if (this.#watch.isSettled) return null;
    const nowMs = this.#clock.nowMs();
    this.#waitEndsMs ??= nowMs + timeoutMs;
    const leftMs = this.#waitEndsMs - nowMs;
    if (leftMs <= 0) return null;
    return new Promise((resolve) => {
      const done = (): void => {
        timer.cancel();
        cancel();
        resolve();
      };
      const cancel = this.#watch.subscribe(done);
      const timer = this.#clock.after(leftMs, done);
    });
  }

  onChange(listener: (policy: ServerPolicy) => void): () => void {
    const key = {};
    this.#listeners.set(key, listener);
    this.#unsubscribe ??= this.#watch.subscribe(() => this.#settle());
    return () => {
      if (!this.#listeners.delete(key) || this.#listeners.size > 0) return;
      // From now on the watch counts its idle time.
      this.#unsubscribe?.();
      this.#unsubscribe = null;
    };
  }

  setDefault(fallback: ServerPolicy, asksAnew: boolean): void {
    this.#default = fallback;
    if (asksAnew) {
      const value = this.#watch.value;
      this.#unsubscribe?.();
      this.#watch.close();
      this.#watch = this.#open();
      if (this.#listeners.size > 0) this.#unsubscribe = this.#watch.subscribe(() => this.#settle());
      if (value !== undefined) this.#current = fallback;
    }
    this.#settle();
  }

  close(): void {
    this.#listeners.clear();
    this.#watch.close();
  }

  #settle(): void {
    const { current } = this;
    if (current === this.#current) return;
    this.#current = current;
    for (const listener of [...this.#listeners.values()]) listener(current);
  }
}
