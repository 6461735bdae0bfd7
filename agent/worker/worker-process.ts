// One worker process as the supervisor sees it, whether this agent gave birth to it or found it alive. Its link is made
// again whenever it breaks; its death is noticed by the child's exit, or for a foundling by the link that ends with it.

import type { WorkerConfig } from '#api/worker-config.ts';
import type { LinkDrain, LinkHello, LinkState } from '#api/worker-link.ts';
import { Backoff } from '#lib/backoff.ts';
import type { Clock, Timer } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { close, isErrno, openPidfd, signalPidfd } from '#lib/libc.ts';
import type { Log } from '#lib/log.ts';
import { connectLink, type LinkListener, type WorkerLink } from './link.ts';
import { isSameProcess, type ProcessIdentity } from './process-table.ts';

export interface ProcessListener {
  /** Never before the first state; called at every change and after every reconnect. */
  onState(state: LinkState): void;
  /** The process is gone, once. `how` names signal or status where they are known. */
  onExit(how: string): void;
}

/** What the worker asks of the control plane through its link. */
export interface LinkSession {
  onCertify(stream: number, payload: Buffer): void;
  onWatchOpen(stream: number, kind: number, request: Buffer): void;
  onWatchClose(stream: number): void;
  close(): void;
}

export interface WorkerProcessOptions {
  identity: ProcessIdentity;
  generation: number;
  podUid: string;
  version: string;
  /** Null when a successor's socket stands in its place: then only its death can be seen. */
  controlSocket: string | null;
  clock: Clock;
  log: Log;
  /** Null for a foundling. */
  child: { once(event: 'exit', listener: (code: number | null, signal: string | null) => void): unknown } | null;
  openSession: (link: WorkerLink) => LinkSession;
}

const SIGKILL = 9;
const CANARY_LINK_VERSION = 2;
/**
 * A process that ends closes its link a little before it is gone from the process table. A worker whose links break at
 * once, again and again, must not keep the agent busy.
 */
const RECONNECT = { minMs: 20, maxMs: 5_000, jitter: 0.1 } as const;
/** A link that lasted this long was sound. */
const SOUND_MS = 5_000;
const SHADOWED_POLL_MS = 500;

export class WorkerProcess {
  readonly generation: number;
  readonly identity: ProcessIdentity;
  readonly #options: WorkerProcessOptions;
  readonly #pidfd: number;
  readonly #log: Log;
  listener: ProcessListener = { onState: () => {}, onExit: () => {} };
  #link: WorkerLink | null = null;
  #session: LinkSession | null = null;
  #hello: LinkHello | null = null;
  #state: LinkState | null = null;
  #config: WorkerConfig | null = null;
  #drain: LinkDrain | null = null;
  #timer: Timer | null = null;
  readonly #backoff = new Backoff(RECONNECT);
  #linkedSinceMs = 0;
  #hasExited = false;
  #isReleased = false;
  #isShadowed = false;

  /** Throws when the process is gone already. */
  constructor(options: WorkerProcessOptions) {
    this.#options = options;
    this.generation = options.generation;
    this.identity = options.identity;
    this.#log = options.log.child({ worker: options.identity.pid });
    this.#pidfd = openPidfd(options.identity.pid);
    if (!options.child && !isSameProcess(options.identity)) {
      close(this.#pidfd);
      throw new HeddleError('worker-gone', `adopt process "${options.identity.pid}": expected it to run`);
    }
    options.child?.once('exit', (code, signal) => this.#exited(signal ?? `status ${code}`));
    if (options.controlSocket === null) this.#isShadowed = true;
    if (this.#isShadowed) this.#watchDeath(0);
    else this.#connect();
  }

  get pid(): number {
    return this.identity.pid;
  }

  /** What the worker said its version is; before it said so, what it was started from. */
  get version(): string {
    return this.#hello?.workerVersion ?? this.#options.version;
  }

  /** The last state it told; null before the first. */
  get state(): LinkState | null {
    return this.#state;
  }

  get isLinked(): boolean {
    return this.#hello !== null && this.#link !== null;
  }

  /** Sent now and after every reconnect. */
  configure(config: WorkerConfig): void {
    this.#config = config;
    if (this.isLinked) this.#link!.configure(config);
  }

  /** Tells it to take no new connections and to exit when the open ones are done. */
  drain(drain: LinkDrain): void {
    this.#drain = drain;
    if (this.isLinked) this.#link!.drain(drain);
  }

  kill(): void {
    if (this.#isReleased) return;
    try {
      signalPidfd(this.#pidfd, SIGKILL);
    } catch (error) {
      if (!isErrno(error, 'ESRCH')) throw error;
    }
  }

  ping(timeoutMs: number): Promise<void> {
    return this.#linked().ping(timeoutMs);
  }

  /** False for a worker of a version that would take a canary for a connection of the pod's. */
  get knowsCanaries(): boolean {
    return (this.#hello?.linkVersion ?? 0) >= CANARY_LINK_VERSION;
  }

  canary(token: Uint8Array, timeoutMs: number, signal: AbortSignal): Promise<void> {
    return this.#linked().canary(token, timeoutMs, signal);
  }

  scrape(onChunk: (chunk: Buffer) => void, timeoutMs: number): Promise<void> {
    return this.#linked().scrape(onChunk, timeoutMs);
  }

  /** Lets go of a process that goes on living: for an agent that exits. */
  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    this.#timer?.cancel();
    this.#link?.close();
    close(this.#pidfd);
  }

  #linked(): WorkerLink {
    if (this.#link && this.#hello) return this.#link;
    throw new HeddleError('link-failed', `ask worker "${this.pid}": expected an open link`);
  }

  #connect(): void {
    this.#timer = null;
    const { controlSocket, clock } = this.#options;
    const listener: LinkListener = {
      onHello: (hello) => this.#greeted(hello),
      onState: (state) => {
        this.#state = state;
        this.listener.onState(state);
      },
      onCertify: (stream, payload) => this.#session?.onCertify(stream, payload),
      onWatchOpen: (stream, kind, request) => this.#session?.onWatchOpen(stream, kind, request),
      onWatchClose: (stream) => this.#session?.onWatchClose(stream),
      onClose: (error) => this.#unlinked(error),
    };
    this.#link = connectLink(controlSocket!, listener, clock);
  }

  #greeted(hello: LinkHello): void {
    // Once for each link: every greeting would cost a session.
    if (this.#hello !== null) return;
    if (hello.podUid !== this.#options.podUid || hello.pid !== this.pid) {
      // Its successor's socket stands in its place: only the process itself can be watched from now on.
      this.#isShadowed = true;
      this.#log.debug('another worker answers on the control socket', { hello });
      this.#link?.close();
      return;
    }
    this.#hello = hello;
    this.#linkedSinceMs = this.#options.clock.nowMs();
    this.#session = this.#options.openSession(this.#link!);
    if (this.#config) this.#link!.configure(this.#config);
    if (this.#drain) this.#link!.drain(this.#drain);
  }

  #unlinked(error: HeddleError | null): void {
    this.#session?.close();
    this.#session = null;
    const wasLinked = this.#hello !== null;
    if (wasLinked && this.#options.clock.nowMs() - this.#linkedSinceMs >= SOUND_MS) this.#backoff.reset();
    this.#hello = null;
    this.#link = null;
    if (this.#hasExited || this.#isReleased) return;
    if (wasLinked && error) this.#log.warn('link to the worker broke', { error });
    this.#watchDeath(this.#backoff.next());
  }

  #watchDeath(delayMs: number): void {
    this.#timer = this.#options.clock.after(delayMs, () => {
      if (!this.#options.child && !isSameProcess(this.identity)) this.#exited('found dead');
      else if (this.#isShadowed) this.#watchDeath(SHADOWED_POLL_MS);
      else this.#connect();
    });
  }

  #exited(how: string): void {
    if (this.#hasExited || this.#isReleased) return;
    this.#hasExited = true;
    this.release();
    this.listener.onExit(how);
  }
}
