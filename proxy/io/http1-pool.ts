// Keep-alive connections to one endpoint, shared by all requests that go there.

import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import type { HeddleError } from '#lib/errors.ts';
import type { HttpService } from '../http.ts';

export interface Http1PoolOptions {
  clock: Clock;
  /** Opens a connection (TCP, or TLS over it). Rejects with HeddleError. */
  connect(signal: AbortSignal): Promise<Duplex>;
  /** An idle connection older than this is closed. Linkerd: 3 s. */
  idleTimeoutMs?: number;
  /** Idle connections kept; the oldest goes first. Linkerd: 10,000. */
  idleMax?: number;
  /** Connections open or opening; requests above wait in order. */
  connectionsMax?: number;
  /** Requests that wait for a connection; more fail with `pool-queue-full`. */
  waitingMax?: number;
  /** A connection that `connect` gave is gone, in order (null) or not: the owner settles its account. Once for each. */
  onConnectionClosed?(connection: Duplex, error: HeddleError | null): void;
}

/** An HttpService over pooled connections. */
export interface Http1Pool extends HttpService {
  readonly idleConnections: number;
  readonly busyConnections: number;
  readonly connectingConnections: number;
  readonly waitingRequests: number;
  /** Takes no new request; idle connections close now, busy ones when their exchange ends. Idempotent. */
  close(): void;
}

export declare function createHttp1Pool(options: Http1PoolOptions): Http1Pool;
