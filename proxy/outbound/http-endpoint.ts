// One peer that takes HTTP requests: an endpoint with its connections. To a peer's proxy everything goes over HTTP/2,
// many requests on one connection; what cannot be upgraded (websockets, CONNECT) and plain HTTP/1 servers get HTTP/1
// connections from a pool.

import type { Duplex } from '#lib/duplex.ts';
import type { HeddleError } from '#lib/errors.ts';
import { errnoOf } from '../errno.ts';
import type { Exchange, HttpService, RequestHead, RequestStream, ResponseStream } from '../http.ts';
import type { Http1Pool, Http1PoolOptions } from '../io/http1-pool.ts';
import type { Http2Pool, Http2PoolOptions } from '../io/http2-pool.ts';
import { Endpoint, type EndpointOptions } from './endpoint.ts';
import { isUpgradable, upgradeToHttp2 } from './orig-proto.ts';

/** Makers of connection pools: createHttp1Pool and createHttp2Pool of io/. */
export interface Pools {
  http1(options: Http1PoolOptions): Http1Pool;
  http2(options: Http2PoolOptions): Http2Pool;
}

export interface HttpEndpointOptions extends EndpointOptions {
  pools: Pools;
}

export class HttpEndpoint implements HttpService {
  readonly endpoint: Endpoint;
  readonly #options: HttpEndpointOptions;
  readonly #closed = new Map<Duplex, (errno: string) => void>();
  /** Made at first use: most endpoints need only one of the two. */
  #http1: Http1Pool | null = null;
  #http2: Http2Pool | null = null;
  #upgrade: HttpService | null = null;

  constructor(options: HttpEndpointOptions) {
    this.#options = options;
    this.endpoint = new Endpoint(options);
  }

  get isReady(): boolean {
    return this.endpoint.isReady;
  }

  cost(nowMs: number): number {
    return this.endpoint.cost(nowMs);
  }

  /** True when the request goes out at once, on a connection that exists. */
  hasConnection(request: RequestHead): boolean {
    if (this.#usesHttp2(request)) return this.#http2?.hasFreeStream ?? false;
    return this.#http1 !== null && this.#http1.idleConnections > 0;
  }

  call(request: RequestHead, exchange: Exchange, response: ResponseStream): RequestStream {
    if (!this.#usesHttp2(request)) {
      this.#http1 ??= this.#options.pools.http1(this.#poolOptions('http1'));
      return this.#http1.call(request, exchange, response);
    }
    if (this.#http2 === null) {
      const { keepAlive } = this.endpoint.info;
      this.#http2 = this.#options.pools.http2({ ...this.#poolOptions('http2'), keepAlive });
      this.#upgrade = upgradeToHttp2(this.#http2);
    }
    return this.#upgrade!.call(request, exchange, response);
  }

  /** Left the set: exchanges under way finish, then the connections close. */
  close(): void {
    this.endpoint.close();
    this.#http1?.close();
    this.#http2?.close();
  }

  #usesHttp2(request: RequestHead): boolean {
    if (request.version === 'HTTP/2') return true;
    return this.endpoint.info.hint === 'h2' && isUpgradable(request);
  }

  #poolOptions(session: 'http1' | 'http2') {
    return {
      clock: this.#options.clock,
      connect: (signal: AbortSignal) => this.#connect(session, signal),
      onConnectionClosed: (connection: Duplex, error: HeddleError | null) => this.#onClosed(connection, error),
    };
  }

  async #connect(session: 'http1' | 'http2', signal: AbortSignal): Promise<Duplex> {
    const connection = await this.endpoint.connect(session, signal);
    this.#closed.set(connection, this.endpoint.transport.opened(connection));
    return connection;
  }

  #onClosed(connection: Duplex, error: HeddleError | null): void {
    this.#closed.get(connection)?.(error ? errnoOf(error) : '');
    this.#closed.delete(connection);
  }
}
