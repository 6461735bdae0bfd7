// The worker's end of its control socket (api/worker-link.ts). The worker listens and the agent connects; a new
// connection replaces the one before. Agents die and come back: meanwhile the worker serves on with what it knows,
// watches keep their last values, and the time without an agent is a metric.

import { createServer, type Server, type Socket } from 'node:net';
import { encodeLinkJson, parseLinkJson } from '#api/link-codec.ts';
import {
  LINK_STREAM_NONE,
  type LinkDrain,
  LinkFrame,
  type LinkHello,
  type LinkState,
  type LinkStatus,
  type WatchKind,
} from '#api/worker-link.ts';
import type { Clock, Timer } from '#lib/clock.ts';
import { describeError, HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { LinkConnection } from './link-connection.ts';
import { GrpcCode, type WatchListener, type WatchTransport } from './watch.ts';

/** Scrapes that one agent may have under way; further requests end its connection. */
export const SCRAPES_MAX = 16;

export interface AgentLinkOptions {
  hello: LinkHello;
  state(): LinkState;
  /** A `config` frame. What it throws is logged and changes nothing else. */
  onConfig(json: Record<string, unknown>): void;
  onDrain(drain: LinkDrain): void;
  /** The agent is about to send a canary with this token; `seen` tells it that it came. */
  onCanary(token: Buffer, seen: () => void): void;
  /** Prometheus text in pieces. */
  scrape(): Iterator<string, void>;
  /** The listeners this worker still accepts on. */
  listeners(): { names: string[]; descriptors: number[] };
  onConnected(): void;
  onLinkError(): void;
  clock: Clock;
  log: Log;
}

interface OpenWatch {
  listener: WatchListener;
  /** Since when the agent itself is fed by nobody (worker's clock); null while it is. */
  staleSinceMs: number | null;
}

interface PendingCertify {
  resolve(response: Uint8Array): void;
  reject(error: HeddleError): void;
  timer: Timer;
}

interface Scrape {
  stream: number;
  pieces: Iterator<string, void>;
}

const DISCONNECTED: LinkStatus = { code: GrpcCode.unavailable, message: 'agent is not connected' };

export class AgentLink implements WatchTransport {
  readonly #options: AgentLinkOptions;
  #server: Server | null = null;
  #connection: LinkConnection | null = null;
  readonly #watches = new Map<number, OpenWatch>();
  readonly #certifies = new Map<number, PendingCertify>();
  #scrapes: Scrape[] = [];
  #upListeners = new Set<() => void>();
  /** Streams of the worker have odd numbers, for ever new ones: an answer to an old question finds nobody. */
  #nextStream = 1;
  #disconnectedMs: number;

  constructor(options: AgentLinkOptions) {
    this.#options = options;
    this.#disconnectedMs = options.clock.nowMs();
  }

  /** Accepts agents on the listening Unix socket `fd`. */
  listen(fd: number): void {
    const server = createServer({ pauseOnConnect: false }, (socket) => this.#accept(socket));
    server.on('error', (error) => this.#options.log.error('control socket failed', { error }));
    server.listen({ fd });
    this.#server = server;
  }

  get isConnected(): boolean {
    return this.#connection !== null;
  }

  /** Streams that are open. */
  get watches(): number {
    return this.#watches.size;
  }

  /** For how long the most neglected watch has had no stream that feeds it: the agent's, or the agent itself. */
  get staleSeconds(): number {
    const nowMs = this.#options.clock.nowMs();
    let sinceMs = this.#connection ? nowMs : this.#disconnectedMs;
    for (const { staleSinceMs } of this.#watches.values()) {
      if (staleSinceMs !== null) sinceMs = Math.min(sinceMs, staleSinceMs);
    }
    return (nowMs - sinceMs) / 1000;
  }

  /** Seconds since an agent was last connected; 0 while one is. */
  get disconnectedSeconds(): number {
    return this.#connection ? 0 : (this.#options.clock.nowMs() - this.#disconnectedMs) / 1000;
  }

  /** Tells the agent the state, where there is one; it hears of the last one when it connects. */
  sendState(): void {
    this.#connection?.sendJson(LinkFrame.state, LINK_STREAM_NONE, this.#options.state());
  }

  /** Calls `run` whenever an agent has connected. Returns the cancellation. */
  onUp(run: () => void): () => void {
    this.#upListeners.add(run);
    return () => this.#upListeners.delete(run);
  }

  open(kind: WatchKind, request: Uint8Array, listener: WatchListener): { close(): void } {
    const stream = this.#newStream();
    this.#watches.set(stream, { listener, staleSinceMs: null });
    if (this.#connection) {
      this.#connection.send(LinkFrame.watchOpen, stream, Buffer.concat([Buffer.from([kind]), request]));
    } else {
      queueMicrotask(() => this.#endWatch(stream, DISCONNECTED));
    }
    return {
      close: () => {
        if (this.#watches.delete(stream)) this.#connection?.send(LinkFrame.watchClose, stream);
      },
    };
  }

  /** Sends a CertifyRequest by the agent. Rejects with `certify-failed`, `certify-unreachable` or `certify-timeout`. */
  certify(request: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      if (!this.#connection) {
        reject(new HeddleError('certify-unreachable', 'ask for a certificate: agent is not connected'));
        return;
      }
      const stream = this.#newStream();
      const timer = this.#options.clock.after(timeoutMs, () => {
        this.#certifies.delete(stream);
        reject(new HeddleError('certify-timeout', `ask for a certificate: expected an answer within ${timeoutMs} ms`));
      });
      this.#certifies.set(stream, { resolve, reject, timer });
      this.#connection.send(LinkFrame.certify, stream, request);
    });
  }

  /** Takes no further agent and lets go of this one. */
  close(): void {
    this.#server?.close();
    this.#connection?.close();
  }

  #newStream(): number {
    const stream = this.#nextStream;
    this.#nextStream = stream >= 0xffff_fffd ? 1 : stream + 2;
    return stream;
  }

  #accept(socket: Socket): void {
    const { clock, log, hello } = this.#options;
    const previous = this.#connection;
    if (previous) {
      log.info('another agent connected: it replaces the one before');
      this.#disconnect(previous);
      previous.close();
    }
    const connection = new LinkConnection(
      socket,
      {
        onFrame: (type, stream, payload) => this.#take(connection, type, stream, payload),
        onDrain: () => this.#continueScrapes(connection),
        onClose: (error) => this.#closed(connection, error),
      },
      clock,
    );
    this.#connection = connection;
    connection.sendJson(LinkFrame.hello, LINK_STREAM_NONE, hello);
    this.sendState();
    log.debug('agent connected');
    this.#options.onConnected();
    for (const run of [...this.#upListeners]) run();
  }

  #closed(connection: LinkConnection, error: HeddleError | null): void {
    const { log, onLinkError } = this.#options;
    if (error) {
      onLinkError();
      log.error('connection of the agent was closed', { error, reason: describeError(error) });
    }
    if (connection !== this.#connection) return;
    this.#disconnect(connection);
    log.warn('agent is gone: serving on with what is known');
  }

  /** Everything that waits for this connection hears that it is gone. */
  #disconnect(connection: LinkConnection): void {
    if (connection !== this.#connection) return;
    this.#connection = null;
    this.#disconnectedMs = this.#options.clock.nowMs();
    this.#scrapes = [];
    for (const [stream, pending] of [...this.#certifies]) {
      this.#certifies.delete(stream);
      pending.timer.cancel();
      pending.reject(new HeddleError('certify-unreachable', 'ask for a certificate: agent disconnected'));
    }
    for (const stream of [...this.#watches.keys()]) this.#endWatch(stream, DISCONNECTED);
  }

  #endWatch(stream: number, status: LinkStatus): void {
    const watch = this.#watches.get(stream);
    if (!watch) return;
    this.#watches.delete(stream);
    watch.listener.end(status);
  }

  /** A frame that breaks the contract costs its connection; one that asks for nonsense costs only itself. */
  #take(connection: LinkConnection, type: number, stream: number, payload: Buffer): void {
    if (connection !== this.#connection) return;
    try {
      this.#handle(connection, type, stream, payload);
    } catch (cause) {
      if (cause instanceof HeddleError && cause.code !== 'link-json') {
        this.#options.log.error('agent sent what cannot be used: nothing changes', { error: cause, frame: type });
        return;
      }
      connection.close(new HeddleError('link-garbage', `read a frame of type "${type}" from the agent`, { cause }));
    }
  }

  #handle(connection: LinkConnection, type: number, stream: number, payload: Buffer): void {
    switch (type) {
      case LinkFrame.config:
        this.#options.onConfig(parseLinkJson(payload));
        break;
      case LinkFrame.certificate:
        this.#settleCertify(stream, (pending) => pending.resolve(Uint8Array.from(payload)));
        break;
      case LinkFrame.certifyFailed: {
        const { code, message } = parseStatus(payload);
        const error = new HeddleError('certify-failed', `ask for a certificate: refused with ${code}, "${message}"`);
        this.#settleCertify(stream, (pending) => pending.reject(error));
        break;
      }
      case LinkFrame.update:
      case LinkFrame.stale:
        this.#feed(stream, type, payload);
        break;
      case LinkFrame.watchEnd:
        this.#endWatch(stream, parseStatus(payload));
        break;
      case LinkFrame.metricsRequest:
        this.#startScrape(connection, stream);
        break;
      case LinkFrame.listenersRequest: {
        const { names, descriptors } = this.#options.listeners();
        connection.sendWithDescriptors(encodeLinkJson(LinkFrame.listeners, stream, names), descriptors);
        break;
      }
      case LinkFrame.drain:
        this.#options.onDrain(parseDrain(payload));
        break;
      case LinkFrame.ping:
        connection.send(LinkFrame.pong, stream);
        break;
      case LinkFrame.canary:
        this.#options.onCanary(Buffer.from(payload), () => connection.send(LinkFrame.canarySeen, stream));
        break;
      case LinkFrame.tapRequest:
        // This worker has no tap: it says so in the way that ends one.
        connection.sendJson(LinkFrame.tapEnd, stream, { code: GrpcCode.unimplemented, message: 'no tap' });
        break;
      // Unknown frames are of a newer version: the contract says to ignore them.
    }
  }

  #feed(stream: number, type: number, payload: Buffer): void {
    const watch = this.#watches.get(stream);
    if (!watch) return;
    if (type === LinkFrame.update) {
      watch.staleSinceMs = null;
      watch.listener.update(payload);
      return;
    }
    watch.staleSinceMs ??= this.#options.clock.nowMs();
    watch.listener.stale(parseStatus(payload));
  }

  #settleCertify(stream: number, settle: (pending: PendingCertify) => void): void {
    const pending = this.#certifies.get(stream);
    if (!pending) return;
    this.#certifies.delete(stream);
    pending.timer.cancel();
    settle(pending);
  }

  #startScrape(connection: LinkConnection, stream: number): void {
    if (this.#scrapes.length >= SCRAPES_MAX) {
      connection.close(new HeddleError('link-overflow', `more than ${SCRAPES_MAX} scrapes at a time`));
      return;
    }
    this.#scrapes.push({ stream, pieces: this.#options.scrape() });
    if (this.#scrapes.length === 1) this.#continueScrapes(connection);
  }

  /** One scrape after another, each piece only when the one before has left. */
  #continueScrapes(connection: LinkConnection): void {
    for (let scrape = this.#scrapes[0]; scrape && connection === this.#connection; scrape = this.#scrapes[0]) {
      const { value, done } = scrape.pieces.next();
      if (done) this.#scrapes.shift();
      const hasRoom = connection.send(LinkFrame.metricsChunk, scrape.stream, done ? undefined : Buffer.from(value));
      if (!hasRoom) return;
    }
  }
}

function parseStatus(payload: Buffer): LinkStatus {
  const { code, message } = parseLinkJson(payload);
  return {
    code: typeof code === 'number' ? code : GrpcCode.unknown,
    message: typeof message === 'string' ? message : '',
  };
}

function parseDrain(payload: Buffer): LinkDrain {
  const { graceMs, reason } = parseLinkJson(payload);
  if (typeof graceMs !== 'number' || !(graceMs >= 0) || (reason !== 'successor' && reason !== 'shutdown')) {
    throw new HeddleError(
      'invalid-drain',
      `read drain ${payload.toString('utf8')}: expected graceMs and a reason of successor or shutdown`,
    );
  }
  return { graceMs, reason };
}
