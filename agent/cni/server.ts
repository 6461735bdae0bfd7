// The socket that the CNI plugin talks to: `<run dir>/cni.sock`, 0600 in a directory of 0700, peers of uid 0 only, one
// request per connection. A socket is bound under another name and renamed: an agent that takes over from another
// leaves no moment without one. It stays on SIGTERM; a plugin then finds that nobody listens and decides by itself.

import { chmodSync, lstatSync, mkdirSync, renameSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { CniCode, type CniOperation, CniRunFile } from '#api/cni-message.ts';
import { type Clock, systemClock, type Timer } from '#lib/clock.ts';
import { describeError, HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { peerCredentials } from '#lib/tcp-socket.ts';
import { UNIX_PATH_BYTES_MAX } from '#lib/unix-socket.ts';
import { runExchange } from './exchange.ts';
import { type CniHandler, cniFailed } from './handler.ts';
import { encodeReply } from './request.ts';

/** Requests that are received or handled at one time. */
export const CNI_CONNECTIONS_MAX = 256;
const BACKLOG = 512;
/** How long a peer may take to read its reply. */
const FLUSH_MS = 1_000;

export interface CniServerOptions {
  runDir: string;
  handler: CniHandler;
  log: Log;
  clock?: Clock;
  connectionsMax?: number;
  /** Called once for each answered connection; `op` is null where no request was understood. For metrics. */
  onDone?: (done: { op: CniOperation | null; code: number; durationMs: number }) => void;
}

export interface CniServer {
  readonly path: string;
  /** Requests being received or handled now. */
  readonly inFlight: number;
  /** Takes no new requests; resolves when those in flight are answered, or cuts them off after `graceMs`. */
  close(graceMs?: number): Promise<void>;
}

/** Listens. Throws HeddleError when the directory is not ours alone or the socket cannot be made. */
export async function startCniServer(options: CniServerOptions): Promise<CniServer> {
  const { runDir, log, clock = systemClock } = options;
  const socketPath = path.join(runDir, CniRunFile.socket);
  const temporary = `${socketPath}.${process.pid}`;
  if (Buffer.byteLength(temporary) > UNIX_PATH_BYTES_MAX) {
    throw new HeddleError(
      'bad-run-dir',
      `listen in run directory "${runDir}": expected a path of at most ${UNIX_PATH_BYTES_MAX - 20} bytes`,
    );
  }
  prepareDirectory(runDir);
  const connections = new Connections({ ...options, clock });
  const server = net.createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => connections.serve(socket));
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ path: temporary, backlog: BACKLOG }, resolve);
  });
  server.on('error', (error) => log.error('CNI socket', { error }));
  chmodSync(temporary, 0o600);
  renameSync(temporary, socketPath);
  return {
    path: socketPath,
    get inFlight() {
      return connections.size;
    },
    close: async (graceMs = 2_000) => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      await connections.drain(graceMs);
      await closed;
    },
  };
}

function prepareDirectory(runDir: string): void {
  mkdirSync(runDir, { recursive: true, mode: 0o700 });
  const entry = lstatSync(runDir);
  if (!entry.isDirectory() || entry.uid !== process.geteuid?.()) {
    throw new HeddleError('bad-run-dir', `use run directory "${runDir}": expected a directory that the agent owns`);
  }
  chmodSync(runDir, 0o700);
}

/** What is open, its bound, and its end. */
class Connections {
  readonly #options: CniServerOptions & { clock: Clock };
  readonly #open = new Map<net.Socket, Promise<void>>();

  constructor(options: CniServerOptions & { clock: Clock }) {
    this.#options = options;
  }

  get size(): number {
    return this.#open.size;
  }

  serve(socket: net.Socket): void {
    const { log, connectionsMax = CNI_CONNECTIONS_MAX } = this.#options;
    // A plugin that was killed resets its connection: `close` follows and is all that counts.
    socket.on('error', (error) => log.debug('CNI connection', { error }));
    if (this.#open.size >= connectionsMax) {
      // An undecided code: pods that are not meshed must not wait for a busy agent.
      const message = `the agent is busy with ${this.#open.size} requests: expected fewer than ${connectionsMax}`;
      socket.end(encodeReply(cniFailed(CniCode.deadline, message)), () => socket.destroy());
      log.warn('CNI request refused', { cause: message });
      return;
    }
    const done = this.#exchange(socket)
      .then(() => this.#finish(socket))
      .finally(() => this.#open.delete(socket));
    this.#open.set(socket, done);
  }

  async #exchange(socket: net.Socket): Promise<void> {
    const { log, handler, clock, onDone } = this.#options;
    const startedMs = clock.nowMs();
    const refuse = (code: number, cause: string): void => {
      log.warn('CNI request refused', { cause });
      socket.end(encodeReply(cniFailed(code, cause)));
      onDone?.({ op: null, code, durationMs: clock.nowMs() - startedMs });
    };
    try {
      const fd = descriptorOf(socket);
      const { uid, pid } = peerCredentials(fd);
      if (uid !== 0 && uid !== process.geteuid?.()) {
        refuse(CniCode.badEnvironment, `peer process "${pid}" runs as uid ${uid}: expected 0`);
        return;
      }
      const { op, reply } = await runExchange({ socket, fd, handler, clock });
      if (op === null) log.warn('CNI request refused', { cause: reply.message, peer: pid });
      onDone?.({ op, code: reply.code, durationMs: clock.nowMs() - startedMs });
    } catch (error) {
      refuse(CniCode.internal, describeError(error));
    }
  }

  /** Sees the reply off: a peer that does not read it must not keep the connection. */
  async #finish(socket: net.Socket): Promise<void> {
    if (!socket.writableFinished && !socket.destroyed) {
      await new Promise<void>((resolve) => {
        const timer = this.#options.clock.after(FLUSH_MS, resolve);
        const done = (): void => {
          timer.cancel();
          resolve();
        };
        socket.once('finish', done);
        socket.once('close', done);
      });
    }
    socket.destroy();
  }

  async drain(graceMs: number): Promise<void> {
    const { clock, log } = this.#options;
    const timers: Timer[] = [];
    const overdue = new Promise<void>((resolve) => {
      timers.push(
        clock.after(graceMs, () => {
          for (const socket of this.#open.keys()) socket.destroy();
          timers.push(clock.after(FLUSH_MS, resolve));
        }),
      );
    });
    await Promise.race([overdue, Promise.all(this.#open.values())]);
    for (const timer of timers) timer.cancel();
    if (this.#open.size > 0)
      log.warn('CNI requests still in the hands of their handler', { requests: this.#open.size });
  }
}

/** Node keeps the descriptor of a socket to itself; there is no public way to read what comes beside the bytes. */
function descriptorOf(socket: net.Socket): number {
  const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd;
  if (typeof fd !== 'number' || fd < 0) {
    throw new HeddleError('no-descriptor', 'read the descriptor of a connection: expected the Node that is pinned');
  }
  return fd;
}
