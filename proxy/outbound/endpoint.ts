// One peer, as the balancer sees it: what it costs, whether it takes requests now (connect back-off and breaker both
// agree), and how to connect to it. HTTP and opaque connections share this; what travels inside is not its business.

import type { BackoffOptions } from '#lib/backoff.ts';
import type { Clock, Timer } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { Load } from '../balance/load.ts';
import type { Outcome } from '../classify.ts';
import { errnoOf } from '../errno.ts';
import type { HttpRecorder, Recorder, TransportRecorder } from '../observe/recorder.ts';
import { Breaker, type BreakerOptions } from './breaker.ts';
import { ConnectGate } from './connect-gate.ts';
import type { Dial, SessionProtocol } from './dial.ts';
import type { EndpointInfo } from './endpoint-info.ts';
import { endpointLabels } from './endpoint-labels.ts';
import type { LoadOptions } from './policy.ts';

export interface EndpointOptions {
  clock: Clock;
  random: () => number;
  recorder: Recorder;
  dial: Dial;
  info: EndpointInfo;
  load: LoadOptions;
  breaker: BreakerOptions | null;
  /** Null for a single endpoint without balancer: there is nowhere else to go, so every request tries. */
  connectBackoff: BackoffOptions | null;
  /** Label `authority`. */
  authority: string;
}

/** Of linkerd2-proxy: 100 ms to 60 s with a jitter of a tenth. */
export const CONNECT_BACKOFF: BackoffOptions = { minMs: 100, maxMs: 60_000, jitter: 0.1 };

/** An account of one request: made at dispatch, settled once. */
export interface Ticket {
  readonly startedMs: number;
  readonly isProbe: boolean;
}

export class Endpoint {
  readonly info: EndpointInfo;
  readonly http: HttpRecorder;
  readonly transport: TransportRecorder;
  /** Told whenever `isReady` changed. Set by the balancer's owner. */
  onReadiness: (isReady: boolean) => void = () => {};
  readonly #options: EndpointOptions;
  readonly #load: Load;
  readonly #gate: ConnectGate | null;
  readonly #breaker: Breaker | null;
  #wasReady = true;
  #deadline: Timer | null = null;
  #deadlineMs = Number.POSITIVE_INFINITY;

  constructor(options: EndpointOptions) {
    this.#options = options;
    this.info = options.info;
    const labels = endpointLabels(options.info, options.authority);
    this.http = options.recorder.http('outbound', labels);
    this.transport = options.recorder.transport('outbound', 'dst', labels);
    this.#load = new Load(options.load, options.clock.nowMs());
    this.#gate = options.connectBackoff && new ConnectGate(options.connectBackoff, options.random);
    this.#breaker = options.breaker && new Breaker(options.breaker, options.random);
  }

  get isReady(): boolean {
    return (this.#gate?.isReady ?? true) && (this.#breaker?.isReady ?? true);
  }

  get pending(): number {
    return this.#load.pending;
  }

  cost(nowMs: number): number {
    return this.#load.cost(nowMs);
  }

  /** A request or connection is on its way here. */
  begin(nowMs: number): Ticket {
    this.#load.start();
    const isProbe = this.#breaker?.onDispatch() ?? false;
    if (isProbe) this.#refresh();
    return { startedMs: nowMs, isProbe };
  }

  /** The answer began, or nothing more will come: the time since `begin` is an observation. Once per ticket. */
  observe(ticket: Ticket, nowMs: number): void {
    this.#load.finish(ticket.startedMs, nowMs);
  }

  /** What became of the request; null: it went away without an answer. Once per ticket. */
  settle(ticket: Ticket, outcome: Outcome | null, nowMs: number, retryAfterMs: number | null = null): void {
    const { penalty } = this.#options.load;
    if (penalty && outcome !== null && outcome !== 'success') {
      this.#load.penalize(Math.min(retryAfterMs ?? penalty.penaltyMs, penalty.maxRetryAfterMs), nowMs);
    }
    if (!this.#breaker) return;
    if (outcome !== null) this.#breaker.onOutcome(outcome, ticket.isProbe, nowMs, retryAfterMs);
    else if (ticket.isProbe) this.#breaker.onProbeAbandoned();
    this.#refresh();
  }

  /** Connects, and keeps the account of it. Rejects as Dial does. */
  async connect(session: SessionProtocol, signal?: AbortSignal): Promise<Duplex> {
    this.#gate?.onAttempt();
    this.#refresh();
    try {
      const duplex = await this.#options.dial(this.info, session, signal);
      this.#gate?.onConnected();
      return duplex;
    } catch (error) {
      if (signal?.aborted) {
        this.#gate?.onAborted();
      } else {
        this.#gate?.onFailed(this.#options.clock.nowMs());
        this.transport.failed(errnoOf(error));
      }
      throw error;
    } finally {
      this.#refresh();
    }
  }

  close(): void {
    this.#deadline?.cancel();
    this.#deadline = null;
    this.onReadiness = () => {};
  }

  #refresh(): void {
    this.#arm();
    const isReady = this.isReady;
    if (isReady === this.#wasReady) return;
    this.#wasReady = isReady;
    this.onReadiness(isReady);
  }

  #arm(): void {
    const deadlineMs = Math.min(
      this.#gate?.nextDeadlineMs() ?? Number.POSITIVE_INFINITY,
      this.#breaker?.nextDeadlineMs() ?? Number.POSITIVE_INFINITY,
    );
    if (deadlineMs === this.#deadlineMs) return;
    this.#deadline?.cancel();
    this.#deadline = null;
    this.#deadlineMs = deadlineMs;
    if (deadlineMs === Number.POSITIVE_INFINITY) return;
    const { clock } = this.#options;
    // A timer may fire a fraction of a millisecond early.
    this.#deadline = clock.after(deadlineMs - clock.nowMs() + 1, () => {
      this.#deadlineMs = Number.POSITIVE_INFINITY;
      const nowMs = clock.nowMs();
      this.#gate?.onDeadline(nowMs);
      this.#breaker?.onDeadline(nowMs);
      this.#refresh();
    });
  }
}
