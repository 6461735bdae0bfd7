// One peer that takes HTTP requests: an endpoint with a pool of connections. HTTP/2 will sit beside the pool, behind
// the same HttpService.

import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import type { HeddleError } from '#lib/errors.ts';
import type { Exchange, HttpService, RequestHead, RequestStream, ResponseStream } from '../http.ts';
import type { Http1Pool, Http1PoolOptions } from '../io/http1-pool.ts';
import { Endpoint, type EndpointOptions, errnoOf } from './endpoint.ts';

export interface HttpEndpointOptions extends EndpointOptions {
  clock: Clock;
  /** createHttp1Pool of io/http1-pool.ts. */
  createPool(options: Http1PoolOptions): Http1Pool;
}

/** Of linkerd2-proxy. */
const POOL_IDLE_TIMEOUT_MS = 3_000;
const POOL_IDLE_MAX = 10_000;
/** Connections to one endpoint; a worker's descriptors are finite. */
const POOL_CONNECTIONS_MAX = 10_000;
const POOL_WAITING_MAX = 10_000;

export class HttpEndpoint implements HttpService {
  readonly endpoint: Endpoint;
  readonly #pool: Http1Pool;
  readonly #closed = new Map<Duplex, (errno: string) => void>();

  constructor(options: HttpEndpointOptions) {
    this.endpoint = new Endpoint(options);
    this.#pool = options.createPool({
      clock: options.clock,
      idleTimeoutMs: POOL_IDLE_TIMEOUT_MS,
      idleMax: POOL_IDLE_MAX,
      connectionsMax: POOL_CONNECTIONS_MAX,
      waitingMax: POOL_WAITING_MAX,
      connect: (signal) => this.#connect(signal),
      onConnectionClosed: (connection, error) => this.#onClosed(connection, error),
    });
  }

  get isReady(): boolean {
    return this.endpoint.isReady;
  }

  /** True when a request goes out at once, on a connection that exists. */
  get hasIdleConnection(): boolean {
    return this.#pool.idleConnections > 0;
  }

  cost(nowMs: number): number {
    return this.endpoint.cost(nowMs);
  }

  call(request: RequestHead, exchange: Exchange, response: ResponseStream): RequestStream {
    return this.#pool.call(request, exchange, response);
  }

  /** Left the set: exchanges under way finish, then the connections close. */
  close(): void {
    this.endpoint.close();
    this.#pool.close();
  }

  async #connect(signal: AbortSignal): Promise<Duplex> {
    const connection = await this.endpoint.connect('http1', signal);
    this.#closed.set(connection, this.endpoint.transport.opened(connection));
    return connection;
  }

  #onClosed(connection: Duplex, error: HeddleError | null): void {
    this.#closed.get(connection)?.(error ? errnoOf(error) : '');
    this.#closed.delete(connection);
  }
}
