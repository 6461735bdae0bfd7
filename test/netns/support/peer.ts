// The test's side of peer-program.ts: starts the program inside a namespace and asks it to do things.

import { type ChildProcess, fork } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { inNetns } from '#agent/netns.ts';
import type { Endpoint } from '#lib/tcp-socket.ts';
import type { Place } from './network.ts';

export interface DialOptions {
  host: string;
  port: number;
  /** Local address to bind first, and port. */
  bind?: string;
  bindPort?: number;
  device?: string;
  mark?: number;
  mptcp?: boolean;
  fastOpen?: boolean;
  /** Text to send; the server echoes it. */
  echo?: string;
  /** Where the same socket is connected before, and disconnected again. */
  first?: { host: string; port: number };
}

/** What a server of `serve` says about a connection. */
export interface ServerView {
  server: string;
  /** TCP_NODELAY of the accepted socket, which this program never sets. */
  isNoDelay: boolean;
  peer: string;
  peerPort: number;
  localAddress: string;
  localPort: number;
}

export interface DialResult {
  /** The name of the errno that ended it, e.g. `ECONNREFUSED`. */
  error: string | null;
  firstError?: string | null;
  /** getpeername() and getsockname() of the client. */
  peer: Endpoint | null;
  local: Endpoint | null;
  /** TCP_NODELAY of the connected socket, which this program never sets. */
  isNoDelay: boolean | null;
  reply: ServerView | null;
  echo: string | null;
}

export interface FloodResult {
  complete: number;
  failures: string[];
}

export type Command =
  | { op: 'serve'; name: string; port: number; host?: string }
  | { op: 'stopServing' }
  | { op: 'serveUdp'; port: number }
  | ({ op: 'dial' } & DialOptions)
  | ({ op: 'udp' } & DialOptions)
  | { op: 'flood'; host: string; port: number; connections: number; parallel: number }
  | { op: 'bindAndListen'; host: string; port: number; reuse: boolean }
  | { op: 'hold'; host: string; port: number }
  | { op: 'touchHeld' }
  | { op: 'release' }
  | { op: 'setUid'; uid: number };

export interface PeerOptions {
  uid?: number;
  gid?: number;
  /** A cgroup2 directory that the program is moved into before it does anything. */
  cgroup?: string;
}

const open = new Set<Peer>();
process.once('exit', () => {
  for (const peer of open) peer.kill();
});

export class Peer {
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();
  #next = 1;

  /** Starts the program in the namespace and waits until it listens to commands. */
  static async start(place: Place, options: PeerOptions = {}): Promise<Peer> {
    const child = inNetns(place.netnsFd, () =>
      fork(path.join(import.meta.dirname, 'peer-program.ts'), {
        execPath: path.resolve('node_modules/.bin/node'),
        execArgv: ['--disable-warning=ExperimentalWarning'],
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
        ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.gid ?? options.uid }),
      }),
    );
    if (options.cgroup) writeFileSync(path.join(options.cgroup, 'cgroup.procs'), String(child.pid));
    const peer = new Peer(child);
    await peer.#reply(0);
    return peer;
  }

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.pid = child.pid!;
    open.add(this);
    child.on('message', (message: { id: number; result?: never; failure?: string }) => {
      const waiting = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if (message.failure === undefined) waiting?.resolve(message.result as never);
      else waiting?.reject(new Error(message.failure));
    });
    child.on('exit', () => {
      open.delete(this);
      for (const { reject } of this.#waiting.values()) reject(new Error('the peer program ended'));
    });
  }

  serve(name: string, port: number, host?: string): Promise<Endpoint> {
    return this.#ask({ op: 'serve', name, port, ...(host === undefined ? {} : { host }) });
  }

  stopServing(): Promise<void> {
    return this.#ask({ op: 'stopServing' });
  }

  serveUdp(port: number): Promise<number> {
    return this.#ask({ op: 'serveUdp', port });
  }

  dial(options: DialOptions): Promise<DialResult> {
    return this.#ask({ op: 'dial', ...options });
  }

  /** The echo of a datagram, or the name of the errno. */
  udp(options: DialOptions): Promise<string> {
    return this.#ask({ op: 'udp', ...options });
  }

  flood(options: { host: string; port: number; connections: number; parallel: number }): Promise<FloodResult> {
    return this.#ask({ op: 'flood', ...options });
  }

  /** Null when both calls succeeded, else the name of the errno. */
  bindAndListen(options: { host: string; port: number; reuse: boolean }): Promise<string | null> {
    return this.#ask({ op: 'bindAndListen', ...options });
  }

  hold(host: string, port: number): Promise<void> {
    return this.#ask({ op: 'hold', host, port });
  }

  touchHeld(): Promise<number> {
    return this.#ask({ op: 'touchHeld' });
  }

  release(): Promise<void> {
    return this.#ask({ op: 'release' });
  }

  /** The program becomes another user, for good. */
  setUid(uid: number): Promise<void> {
    return this.#ask({ op: 'setUid', uid });
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  /** Ends the program and waits until it is gone. */
  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    this.kill();
    await gone;
  }

  #ask<T>(command: Command): Promise<T> {
    const id = this.#next++;
    this.#child.send({ id, command });
    return this.#reply(id);
  }

  #reply<T>(id: number): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
    });
  }
}
