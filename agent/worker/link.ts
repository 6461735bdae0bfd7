// The agent's end of a worker's control socket (api/worker-link.ts). It is the client; the worker listens, so that the
// next agent finds it again. One object is one connection; what to do when it ends is the owner's.

import { connect, type Socket } from 'node:net';
import { encodeLinkFrame, encodeLinkJson, LinkDecoder, parseLinkJson } from '#api/link-codec.ts';
import type { WorkerConfig } from '#api/worker-config.ts';
import {
  LINK_STREAM_NONE,
  type LinkDrain,
  LinkFrame,
  type LinkHello,
  type LinkState,
  type LinkStatus,
} from '#api/worker-link.ts';
import type { Clock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';

/** Frames queued for a worker that does not read; beyond that the connection is given up. */
export const LINK_QUEUE_BYTES_MAX = 16 * 1024 * 1024;
/** Scrapes and pings in flight on one link. */
export const LINK_REQUESTS_MAX = 16;

/** Names, versions and reasons that a worker tells. */
const TEXT_CHARACTERS_MAX = 500;

export interface LinkListener {
  /** First of all calls. */
  onHello(hello: LinkHello): void;
  onState(state: LinkState): void;
  /** `payload` is valid during the call only. */
  onCertify(stream: number, payload: Buffer): void;
  onWatchOpen(stream: number, kind: number, request: Buffer): void;
  onWatchClose(stream: number): void;
  /** The connection is gone; nothing follows. */
  onClose(error: HeddleError | null): void;
}

interface Request {
  onChunk: (payload: Buffer) => void;
  onEnd: (error: HeddleError | null) => void;
}

/** Connects to a worker's control socket. The listener hears of success by `onHello`, of failure by `onClose`. */
export function connectLink(path: string, listener: LinkListener, clock: Clock): WorkerLink {
  return new WorkerLink(connect({ path }), listener, clock);
}

export class WorkerLink {
  readonly #socket: Socket;
  readonly #listener: LinkListener;
  readonly #clock: Clock;
  readonly #decoder = new LinkDecoder();
  readonly #requests = new Map<number, Request>();
  /** Streams of the agent have even numbers. */
  #nextStream = 2;
  #error: HeddleError | null = null;
  #isClosed = false;

  constructor(socket: Socket, listener: LinkListener, clock: Clock) {
    this.#socket = socket;
    this.#listener = listener;
    this.#clock = clock;
    socket.unref();
    socket.on('data', (chunk) => this.#receive(chunk as Buffer));
    socket.on('error', (cause) => {
      this.#error ??= new HeddleError('link-failed', 'talk to the worker: connection failed', { cause });
    });
    socket.on('close', () => this.#closed());
  }

  get isOpen(): boolean {
    return !this.#isClosed;
  }

  configure(config: WorkerConfig): void {
    this.#write(encodeLinkJson(LinkFrame.config, LINK_STREAM_NONE, config));
  }

  drain(drain: LinkDrain): void {
    this.#write(encodeLinkJson(LinkFrame.drain, LINK_STREAM_NONE, drain));
  }

  certificate(stream: number, payload: Uint8Array): void {
    this.#write(encodeLinkFrame(LinkFrame.certificate, stream, payload));
  }

  certifyFailed(stream: number, status: LinkStatus): void {
    this.#write(encodeLinkJson(LinkFrame.certifyFailed, stream, status));
  }

  update(stream: number, payload: Uint8Array): void {
    this.#write(encodeLinkFrame(LinkFrame.update, stream, payload));
  }

  stale(stream: number, status: LinkStatus): void {
    this.#write(encodeLinkJson(LinkFrame.stale, stream, status));
  }

  watchEnd(stream: number, status: LinkStatus): void {
    this.#write(encodeLinkJson(LinkFrame.watchEnd, stream, status));
  }

  /** Resolves when the worker answers. Rejects with `link-timeout` or when the link ends. */
  ping(timeoutMs: number): Promise<void> {
    return this.#request(LinkFrame.ping, () => {}, timeoutMs);
  }

  /**
   * Tells the worker of a canary. Resolves when its connection arrived there; rejects with `link-timeout` or when the
   * link ends. `signal` ends the waiting.
   */
  canary(token: Uint8Array, timeoutMs: number, signal?: AbortSignal): Promise<void> {
    return this.#request(LinkFrame.canary, () => {}, timeoutMs, { payload: token, signal });
  }

  /** Hands the worker's Prometheus text to `onChunk`, piece by piece. `chunk` is valid during the call only. */
  scrape(onChunk: (chunk: Buffer) => void, timeoutMs: number): Promise<void> {
    return this.#request(LinkFrame.metricsRequest, onChunk, timeoutMs);
  }

  close(): void {
    this.#socket.destroy();
  }

  #request(
    type: number,
    onChunk: (payload: Buffer) => void,
    timeoutMs: number,
    { payload, signal }: { payload?: Uint8Array; signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) {
        reject(new HeddleError('link-failed', 'ask the worker: expected an open link'));
        return;
      }
      if (this.#requests.size >= LINK_REQUESTS_MAX) {
        reject(
          new HeddleError('link-busy', `ask the worker: expected at most ${LINK_REQUESTS_MAX} requests in flight`),
        );
        return;
      }
      const stream = this.#nextStream;
      this.#nextStream = stream >= 0xffff_fffe ? 2 : stream + 2;
      const finish = (error: HeddleError | null): void => {
        this.#requests.delete(stream);
        timer.cancel();
        signal?.removeEventListener('abort', onAbort);
        if (error) reject(error);
        else resolve();
      };
      const onAbort = (): void => finish(new HeddleError('link-aborted', 'ask the worker: nobody waits any more'));
      signal?.addEventListener('abort', onAbort, { once: true });
      const timer = this.#clock.after(timeoutMs, () =>
        finish(new HeddleError('link-timeout', `ask the worker: expected an answer within ${timeoutMs} ms`)),
      );
      this.#requests.set(stream, { onChunk, onEnd: finish });
      this.#write(encodeLinkFrame(type, stream, payload));
    });
  }

  #write(frame: Buffer): void {
    if (this.#isClosed) return;
    this.#socket.write(frame);
    if (this.#socket.writableLength > LINK_QUEUE_BYTES_MAX) {
      this.#fail(
        new HeddleError('link-overflow', `worker reads too slowly: more than ${LINK_QUEUE_BYTES_MAX} bytes wait`),
      );
    }
  }

  #receive(chunk: Buffer): void {
    try {
      this.#decoder.push(chunk, (type, stream, payload) => this.#take(type, stream, payload));
    } catch (cause) {
      this.#fail(new HeddleError('link-failed', 'read from the worker: expected frames of the link', { cause }));
    }
  }

  #take(type: number, stream: number, payload: Buffer): void {
    // A connection that was given up may still hold frames that were read with the last one.
    if (this.#isClosed || this.#socket.destroyed) return;
    switch (type) {
      case LinkFrame.hello:
        this.#listener.onHello(readHello(parseLinkJson(payload)));
        break;
      case LinkFrame.state:
        this.#listener.onState(readState(parseLinkJson(payload)));
        break;
      case LinkFrame.certify:
        this.#listener.onCertify(stream, payload);
        break;
      case LinkFrame.watchOpen:
        this.#listener.onWatchOpen(stream, payload[0] ?? 0, payload.subarray(1));
        break;
      case LinkFrame.watchClose:
        this.#listener.onWatchClose(stream);
        break;
      case LinkFrame.metricsChunk:
        if (payload.length > 0) this.#requests.get(stream)?.onChunk(payload);
        else this.#requests.get(stream)?.onEnd(null);
        break;
      case LinkFrame.pong:
      case LinkFrame.canarySeen:
        this.#requests.get(stream)?.onEnd(null);
        break;
      // Unknown frames are of a newer version: the contract says to ignore them.
    }
  }

  #fail(error: HeddleError): void {
    this.#error ??= error;
    this.#socket.destroy();
  }

  #closed(): void {
    this.#isClosed = true;
    const error = this.#error ?? new HeddleError('link-failed', 'ask the worker: the link ended');
    for (const request of [...this.#requests.values()]) request.onEnd(error);
    this.#listener.onClose(this.#error);
  }
}

/** What a worker says of itself is not trusted: a wrong type in one pod's frame must not reach what serves the node. */
export function readHello(json: Record<string, unknown>): LinkHello {
  return {
    linkVersion: number(json.linkVersion),
    workerVersion: text(json.workerVersion),
    pid: number(json.pid),
    podUid: text(json.podUid),
    startedMs: number(json.startedMs),
  };
}

/** As {@link readHello}; a state that is not known counts as `starting`. */
export function readState(json: Record<string, unknown>): LinkState {
  const state = json.state === 'ready' || json.state === 'draining' ? json.state : 'starting';
  return {
    state,
    reason: text(json.reason),
    connections: number(json.connections),
    certificateExpires: number(json.certificateExpires),
  };
}

function number(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) ? value : 0;
}

function text(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, TEXT_CHARACTERS_MAX) : '';
}
