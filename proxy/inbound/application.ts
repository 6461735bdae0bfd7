// The application's own ports: connections to it are kept and shared by all clients of a port, and closed when nobody
// has used the port for a while. Requests go out in the version they came in.

import type { Clock, Timer } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import type { HeddleError } from '#lib/errors.ts';
import { errnoOf } from '../errno.ts';
import type { HttpService } from '../http.ts';
import type { ConnectTarget } from '../io/connect.ts';
import { createHttp1Pool, type Http1Pool } from '../io/http1-pool.ts';
import { createHttp2Pool, type Http2Pool } from '../io/http2-pool.ts';
import type { Target } from './labels.ts';
import type { InboundMetrics } from './metrics.ts';

export interface ApplicationOptions {
  clock: Clock;
  metrics: InboundMetrics;
  connect(target: ConnectTarget, signal?: AbortSignal): Promise<Duplex>;
  connectTimeoutMs(): number;
}

/** Of linkerd2-proxy. */
const POOL_IDLE_TIMEOUT_MS = 3_000;
const POOL_IDLE_MAX = 10_000;
const POOL_CONNECTIONS_MAX = 10_000;
const POOL_WAITING_MAX = 10_000;
const KEEP_ALIVE_MS = 10_000;
/** A port that no connection used for this long is forgotten. */
export const APPLICATION_UNUSED_MS = 90_000;

export interface Application {
  /** Takes requests for the target. */
  readonly service: HttpService;
  /** The connection that asked does not need it any more. Idempotent. */
  release(): void;
}

export class Applications {
  readonly #options: ApplicationOptions;
  readonly #ports = new Map<string, ApplicationPort>();

  constructor(options: ApplicationOptions) {
    this.#options = options;
  }

  /** How many ports have connections or may have them again. */
  get size(): number {
    return this.#ports.size;
  }

  acquire(target: Target): Application {
    const key = `${target.address} ${target.port}`;
    let port = this.#ports.get(key);
    if (!port) {
      port = new ApplicationPort(target, this.#options);
      this.#ports.set(key, port);
    }
    const held = port;
    held.users++;
    held.unused?.cancel();
    held.unused = null;
    let isHeld = true;
    return {
      service: held,
      release: () => {
        if (!isHeld) return;
        isHeld = false;
        if (--held.users > 0) return;
        held.unused = this.#options.clock.after(APPLICATION_UNUSED_MS, () => {
          this.#ports.delete(key);
          held.close();
        });
      },
    };
  }

  close(): void {
    for (const port of this.#ports.values()) port.close();
    this.#ports.clear();
  }
}

class ApplicationPort implements HttpService {
  users = 0;
  unused: Timer | null = null;
  readonly #target: Target;
  readonly #options: ApplicationOptions;
  #http1: Http1Pool | null = null;
  #http2: Http2Pool | null = null;

  constructor(target: Target, options: ApplicationOptions) {
    this.#target = target;
    this.#options = options;
  }

  call(...call: Parameters<HttpService['call']>): ReturnType<HttpService['call']> {
    return call[0].version === 'HTTP/2' ? this.#overHttp2().call(...call) : this.#overHttp1().call(...call);
  }

  close(): void {
    this.unused?.cancel();
    this.#http1?.close();
    this.#http2?.close();
  }

  #overHttp1(): Http1Pool {
    this.#http1 ??= createHttp1Pool({
      ...this.#connecting(),
      idleTimeoutMs: POOL_IDLE_TIMEOUT_MS,
      idleMax: POOL_IDLE_MAX,
      connectionsMax: POOL_CONNECTIONS_MAX,
      waitingMax: POOL_WAITING_MAX,
    });
    return this.#http1;
  }

  #overHttp2(): Http2Pool {
    this.#http2 ??= createHttp2Pool({ ...this.#connecting(), waitingMax: POOL_WAITING_MAX });
    return this.#http2;
  }

  /** What both pools need to make connections and to keep their account. */
  #connecting() {
    const { clock, metrics, connect, connectTimeoutMs } = this.#options;
    const transport = metrics.application(this.#target);
    const open = new Map<Duplex, (errno: string) => void>();
    return {
      clock,
      connect: async (signal: AbortSignal): Promise<Duplex> => {
        const target = { ...this.#target, timeoutMs: connectTimeoutMs(), keepAliveMs: KEEP_ALIVE_MS };
        try {
          const connection = await connect(target, signal);
          open.set(connection, transport.opened(connection));
          return connection;
        } catch (error) {
          if (!signal.aborted) transport.failed(errnoOf(error));
          throw error;
        }
      },
      onConnectionClosed: (connection: Duplex, error: HeddleError | null): void => {
        open.get(connection)?.(error ? errnoOf(error) : '');
        open.delete(connection);
      },
    };
  }
}
