// Keep-alive connections to one endpoint, shared by all requests that go there. A request takes the connection that
// idled last; without one it opens another, and takes whichever is free first.

import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Exchange, HttpService, RequestHead, RequestStream, ResponseStream } from '../http.ts';
import { Deadline } from './deadline.ts';
import { connectHttp1, type Http1Client } from './http1-client.ts';
import { POOL_CONNECTIONS_MAX, POOL_IDLE_MAX, POOL_IDLE_TIMEOUT_MS, POOL_WAITING_MAX } from './http1-limits.ts';
import { PendingRequest } from './pending-request.ts';

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
  /** A connection that `connect` gave is gone. Once for each. */
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

export function createHttp1Pool(options: Http1PoolOptions): Http1Pool {
  return new Pool(options);
}

interface Idle {
  client: Http1Client;
  sinceMs: number;
}

interface Waiting {
  head: RequestHead;
  exchange: Exchange;
  response: ResponseStream;
  request: PendingRequest;
}

class Pool implements Http1Pool {
  readonly #options: Http1PoolOptions;
  readonly #idleTimeoutMs: number;
  readonly #idleDeadline: Deadline;
  /** The one that idled longest comes first. */
  readonly #idle: Idle[] = [];
  readonly #waiting = new Set<Waiting>();
  readonly #abort = new AbortController();
  #connecting = 0;
  /** Connections that exist, idle ones too. */
  #open = 0;
  #isClosed = false;

  constructor(options: Http1PoolOptions) {
    this.#options = options;
    this.#idleTimeoutMs = options.idleTimeoutMs ?? POOL_IDLE_TIMEOUT_MS;
    this.#idleDeadline = new Deadline(options.clock, () => this.#closeExpired());
  }

  get idleConnections(): number {
    return this.#idle.length;
  }

  get busyConnections(): number {
    return this.#open - this.#idle.length;
  }

  get connectingConnections(): number {
    return this.#connecting;
  }

  get waitingRequests(): number {
    return this.#waiting.size;
  }

  call(head: RequestHead, exchange: Exchange, response: ResponseStream): RequestStream {
    const idle = this.#waiting.size === 0 ? this.#takeIdle() : null;
    return idle === null ? this.#wait(head, exchange, response) : idle.call(head, exchange, response);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#idleDeadline.dispose();
    for (const { client } of this.#idle.splice(0)) client.finish();
    this.#abort.abort(new HeddleError('pool-closed', 'connect: the endpoint is gone'));
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const one of waiting)
      one.response.fail(poolError('pool-closed', 'wait for a connection: the endpoint is gone'));
  }

  #wait(head: RequestHead, exchange: Exchange, response: ResponseStream): RequestStream {
    const request = new PendingRequest(response, () => this.#waiting.delete(waiting));
    const waiting: Waiting = { head, exchange, response, request };
    const isFull = this.#waiting.size >= (this.#options.waitingMax ?? POOL_WAITING_MAX);
    if (this.#isClosed || isFull) {
      const error = isFull
        ? poolError('pool-queue-full', `wait for a connection: "${this.#waiting.size}" requests wait already`)
        : poolError('pool-closed', 'wait for a connection: the endpoint is gone');
      queueMicrotask(() => {
        if (!request.isReset) response.fail(error);
      });
      return request;
    }
    this.#waiting.add(waiting);
    this.#connectIfNeeded();
    return request;
  }

  #takeIdle(): Http1Client | null {
    for (let idle = this.#idle.pop(); idle !== undefined; idle = this.#idle.pop()) {
      if (idle.client.state === 'idle') return idle.client;
    }
    return null;
  }

  /** As many connections are opened as requests wait. */
  #connectIfNeeded(): void {
    const connectionsMax = this.#options.connectionsMax ?? POOL_CONNECTIONS_MAX;
    while (!this.#isClosed && this.#connecting < this.#waiting.size && this.#open + this.#connecting < connectionsMax) {
      this.#connecting++;
      this.#options.connect(this.#abort.signal).then(
        (duplex) => this.#connected(duplex),
        (error: unknown) => this.#failed(error),
      );
    }
  }

  #connected(duplex: Duplex): void {
    this.#connecting--;
    this.#open++;
    const client = connectHttp1(duplex, {
      replay: (head, exchange, response) => this.#wait(head, exchange, response),
      onIdle: () => this.#release(client),
      onClosed: () => this.#closed(client),
      onGone: (error) => this.#options.onConnectionClosed?.(duplex, error),
    });
    this.#release(client);
  }

  #failed(error: unknown): void {
    this.#connecting--;
    const [waiting] = this.#waiting;
    if (waiting !== undefined) {
      this.#waiting.delete(waiting);
      waiting.response.fail(
        error instanceof HeddleError ? error : poolError('connect-failed', 'open a connection', error),
      );
    }
    this.#connectIfNeeded();
  }

  /** The connection is free: for the request that waits longest, else to be kept. */
  #release(client: Http1Client): void {
    const [waiting] = this.#waiting;
    if (waiting !== undefined) {
      this.#waiting.delete(waiting);
      waiting.request.attach(client.call(waiting.head, waiting.exchange, waiting.response));
      return;
    }
    const idleMax = this.#options.idleMax ?? POOL_IDLE_MAX;
    if (this.#isClosed || idleMax === 0) {
      client.finish();
      return;
    }
    if (this.#idle.length >= idleMax) this.#idle.shift()!.client.finish();
    const sinceMs = this.#options.clock.nowMs();
    this.#idle.push({ client, sinceMs });
    if (this.#idle.length === 1) this.#idleDeadline.set(sinceMs + this.#idleTimeoutMs);
  }

  #closed(client: Http1Client): void {
    this.#open--;
    const index = this.#idle.findIndex((idle) => idle.client === client);
    if (index !== -1) this.#idle.splice(index, 1);
    this.#connectIfNeeded();
  }

  #closeExpired(): void {
    const nowMs = this.#options.clock.nowMs();
    while (this.#idle.length > 0 && nowMs - this.#idle[0]!.sinceMs >= this.#idleTimeoutMs) {
      this.#idle.shift()!.client.finish();
    }
    const oldest = this.#idle[0];
    if (oldest !== undefined) this.#idleDeadline.set(oldest.sinceMs + this.#idleTimeoutMs);
  }
}

/** The request did not leave the pool: another endpoint may take it. */
function poolError(code: string, message: string, cause?: unknown): HeddleError {
  return new HeddleError(code, message, { source: 'upstream', retry: 'yes', cause });
}
