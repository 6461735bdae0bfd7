// HTTP/2 connections to one endpoint, as few as will do: one, until the peer's SETTINGS_MAX_CONCURRENT_STREAMS is
// reached. Sharing one connection is the point of HTTP/2 between proxies: handshakes, TLS records and system calls are
// then paid once for all exchanges in flight.

import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Exchange, HttpService, RequestHead, RequestStream, ResponseStream } from '../http.ts';
import { connectHttp2, type Http2ClientConnection } from './http2-client.ts';
import type { KeepAlive } from './http2-transport.ts';
import { PendingRequest } from './pending-request.ts';

export interface Http2PoolOptions {
  clock: Clock;
  /** Opens a connection (TCP, or TLS over it). Rejects with HeddleError. */
  connect(signal: AbortSignal): Promise<Duplex>;
  keepAlive?: KeepAlive | null;
  /** Connections at a time. */
  connectionsMax?: number;
  /** Requests that wait for a stream; more fail with `pool-queue-full`. */
  waitingMax?: number;
  /** A connection that `connect` gave is gone. Once for each. */
  onConnectionClosed?(connection: Duplex, error: HeddleError | null): void;
}

/** An HttpService over shared connections. */
export interface Http2Pool extends HttpService {
  /** Connections that take requests. */
  readonly openConnections: number;
  readonly activeExchanges: number;
  readonly waitingRequests: number;
  /** A request goes out at once, on a connection that exists. */
  readonly hasFreeStream: boolean;
  /** Takes no new request; connections close when their exchanges have ended. Idempotent. */
  close(): void;
}

const CONNECTIONS_MAX = 8;
/** From the connection to the peer's SETTINGS. */
const SETTINGS_TIMEOUT_MS = 5_000;
const WAITING_MAX = 10_000;

interface Waiting {
  request: PendingRequest;
  head: RequestHead;
  exchange: Exchange;
  response: ResponseStream;
}

export function createHttp2Pool(options: Http2PoolOptions): Http2Pool {
  return new Pool(options);
}

class Pool implements Http2Pool {
  readonly #options: Http2PoolOptions;
  readonly #connections = new Set<Http2ClientConnection>();
  readonly #waiting = new Set<Waiting>();
  readonly #abort = new AbortController();
  #connecting = 0;
  #isClosed = false;

  constructor(options: Http2PoolOptions) {
    this.#options = options;
  }

  get openConnections(): number {
    return this.#connections.size;
  }

  get activeExchanges(): number {
    let sum = 0;
    for (const connection of this.#connections) sum += connection.activeExchanges;
    return sum;
  }

  get waitingRequests(): number {
    return this.#waiting.size;
  }

  get hasFreeStream(): boolean {
    return this.#free() !== undefined;
  }

  call(head: RequestHead, exchange: Exchange, response: ResponseStream): RequestStream {
    const free = this.#waiting.size === 0 ? this.#free() : undefined;
    if (free !== undefined) return free.call(head, exchange, response);
    const waiting: Waiting = {
      head,
      exchange,
      response,
      request: new PendingRequest(response, () => this.#waiting.delete(waiting)),
    };
    const refusal = this.#refusal();
    if (refusal !== null) {
      queueMicrotask(() => {
        if (!waiting.request.isReset) response.fail(refusal);
      });
      return waiting.request;
    }
    this.#waiting.add(waiting);
    this.#connectIfNeeded();
    return waiting.request;
  }

  #refusal(): HeddleError | null {
    const retry = 'yes';
    if (this.#isClosed) return new HeddleError('pool-closed', 'the endpoint is gone', { source: 'upstream', retry });
    if (this.#waiting.size < (this.#options.waitingMax ?? WAITING_MAX)) return null;
    return new HeddleError('pool-queue-full', 'too many requests wait for a stream', { source: 'upstream', retry });
  }

  #free(): Http2ClientConnection | undefined {
    for (const connection of this.#connections) {
      if (connection.state === 'idle') return connection;
    }
    return undefined;
  }

  #connectIfNeeded(): void {
    if (this.#connecting > 0 || this.#waiting.size === 0) return;
    if ([...this.#connections].some(({ isEstablished }) => !isEstablished)) return;
    if (this.#connections.size >= (this.#options.connectionsMax ?? CONNECTIONS_MAX)) return;
    this.#connecting++;
    this.#options.connect(this.#abort.signal).then(
      (duplex) => {
        this.#connecting--;
        this.#onConnected(duplex);
      },
      (error: unknown) => {
        this.#connecting--;
        this.#onFailed(error);
      },
    );
  }

  #onConnected(duplex: Duplex): void {
    const { clock, keepAlive, onConnectionClosed } = this.#options;
    const connection = connectHttp2(duplex, {
      clock,
      keepAlive: keepAlive ?? null,
      onIdle: () => this.#serve(),
      onClosed: () => {
        this.#connections.delete(connection);
        this.#connectIfNeeded();
      },
      onGone: (error) => {
        deadline.cancel();
        onConnectionClosed?.(duplex, error);
        if (connection.isEstablished) return;
        // Whose fault a failed write is, only who knows the peer can say.
        const isToldWhose = error !== null && error.source === 'upstream';
        this.#onFailed(isToldWhose ? error : unestablished('closed before it sent SETTINGS', error));
      },
    });
    const deadline = clock.after(SETTINGS_TIMEOUT_MS, () => {
      if (!connection.isEstablished) connection.close(unestablished('sent no SETTINGS in time'));
    });
    this.#connections.add(connection);
    this.#serve();
  }

  /** Everybody who waited fails: the layers above know whether and where to try again. */
  #onFailed(error: unknown): void {
    const failure =
      error instanceof HeddleError
        ? error
        : new HeddleError('connect-failed', 'connect', { source: 'upstream', retry: 'yes', cause: error });
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const { response } of waiting) response.fail(failure);
  }

  #serve(): void {
    if (this.#isClosed && this.#waiting.size === 0) {
      for (const connection of [...this.#connections]) connection.drain();
      return;
    }
    for (const waiting of this.#waiting) {
      const free = this.#free();
      if (free === undefined) break;
      this.#waiting.delete(waiting);
      waiting.request.attach(free.call(waiting.head, waiting.exchange, waiting.response));
    }
    if (this.#isClosed && this.#waiting.size === 0) this.#serve();
    else this.#connectIfNeeded();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#waiting.size === 0) this.#abort.abort();
    this.#serve();
  }
}

function unestablished(what: string, cause?: HeddleError | null): HeddleError {
  return new HeddleError('h2-not-established', `the peer ${what}`, { source: 'upstream', retry: 'yes', cause });
}
