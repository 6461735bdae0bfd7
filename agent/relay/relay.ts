// The node's watches on the control plane: one upstream stream for each distinct target, whoever asks. The load of
// the control plane grows with nodes and targets, not with pods.

import { WatchKind } from '#api/worker-link.ts';
import type { Clock } from '#lib/clock.ts';
import { Status } from '#lib/grpc/status.ts';
import type { Log } from '#lib/log.ts';
import { FanOut, type Subscriber } from './fan-out.ts';
import { watchTarget } from './target.ts';
import type { Upstream } from './upstream.ts';

/** Distinct targets a node may watch. */
export const RELAY_TARGETS_MAX = 10_000;
/**
 * Of these, so many are for inbound policies alone. Applications choose what they connect to: one that scans a network
 * must not leave the ports of other pods without their policy, where the default might permit more.
 */
const INBOUND_SHARE = 0.2;
const IDLE_MS = 10_000;

export interface RelayOptions {
  upstream: Upstream;
  clock: Clock;
  log: Log;
  idleMs?: number;
  targetsMax?: number;
  random?: () => number;
}

export interface RelayStats {
  kind: keyof typeof WatchKind;
  targets: number;
  subscribers: number;
  /** Targets whose value a stream feeds. */
  fresh: number;
  /** Targets whose value stands without a stream. */
  stale: number;
}

export class Relay {
  readonly #options: RelayOptions;
  readonly #targetsMax: number;
  readonly #fanOuts = new Map<string, { kind: WatchKind; fanOut: FanOut }>();

  constructor(options: RelayOptions) {
    this.#options = options;
    this.#targetsMax = options.targetsMax ?? RELAY_TARGETS_MAX;
  }

  /**
   * Subscribes to the answer of a worker's request, opening an upstream stream when it is the first to ask. Returns
   * the cancellation. Throws `bad-watch` for a request that cannot be read; at the bound on targets the subscriber
   * ends with ResourceExhausted.
   */
  watch(kind: number, request: Uint8Array, subscriber: Subscriber): () => void {
    const target = watchTarget(kind, request);
    let entry = this.#fanOuts.get(target.key);
    if (!entry) {
      const isInbound = target.kind === WatchKind.inboundPolicy;
      const max = isInbound ? this.#targetsMax : Math.ceil(this.#targetsMax * (1 - INBOUND_SHARE));
      if (this.#fanOuts.size >= max && !this.#evict()) {
        const message = `watch "${target.name}": expected at most ${max} targets on this node`;
        let isCancelled = false;
        queueMicrotask(() => {
          if (!isCancelled) subscriber.end({ code: Status.resourceExhausted, message });
        });
        return () => {
          isCancelled = true;
        };
      }
      const { upstream, clock, log, idleMs = IDLE_MS, random } = this.#options;
      const fanOut = new FanOut({
        target,
        upstream,
        clock,
        log,
        idleMs,
        onIdle: () => this.#fanOuts.delete(target.key),
        ...(random ? { random } : {}),
      });
      entry = { kind: target.kind, fanOut };
      this.#fanOuts.set(target.key, entry);
    }
    return entry.fanOut.subscribe(subscriber);
  }

  stats(): RelayStats[] {
    return (Object.keys(WatchKind) as (keyof typeof WatchKind)[]).map((kind) => {
      const fanOuts = [...this.#fanOuts.values()].filter((entry) => entry.kind === WatchKind[kind]);
      return {
        kind,
        targets: fanOuts.length,
        subscribers: fanOuts.reduce((sum, { fanOut }) => sum + fanOut.subscribers, 0),
        fresh: fanOuts.filter(({ fanOut }) => fanOut.hasValue && fanOut.staleSinceMs === null).length,
        stale: fanOuts.filter(({ fanOut }) => fanOut.staleSinceMs !== null).length,
      };
    });
  }

  close(): void {
    for (const { fanOut } of this.#fanOuts.values()) fanOut.close();
    this.#fanOuts.clear();
  }

  /** Makes room by dropping the oldest target that nobody reads. */
  #evict(): boolean {
    for (const [key, { fanOut }] of this.#fanOuts) {
      if (fanOut.subscribers > 0) continue;
      fanOut.close();
      this.#fanOuts.delete(key);
      return true;
    }
    return false;
  }
}
