// The test's side of relay-program.ts: starts the relay inside a pod's namespace on its listeners, as the agent starts
// a worker.

import { type ChildProcess, fork } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { inNetns, type Listeners } from '#agent/netns.ts';
import { LISTENER_NAMES, type ListenerName } from '#api/worker-link.ts';
import type { Place } from './network.ts';

export interface RelayReport {
  connections: Record<ListenerName, number>;
  /** The last 4096. */
  destinations: { name: ListenerName; address: string; port: number }[];
  refused: number;
  capEffective: string;
}

export interface RelayOptions {
  uid: number;
  /** A cgroup2 directory of its own, or none. */
  cgroup?: string;
  /** After so many it refuses: a loop ends there. */
  connectionsMax?: number;
  /** Runs with the process id, before the relay can accept anything. */
  beforeReady?: (pid: number) => void;
}

const open = new Set<Relay>();
process.once('exit', () => {
  for (const relay of open) relay.kill();
});

export class Relay {
  readonly pid: number;
  readonly #child: ChildProcess;

  static async start(place: Place, listeners: Readonly<Listeners>, options: RelayOptions): Promise<Relay> {
    const child = inNetns(place.netnsFd, () =>
      fork(path.join(import.meta.dirname, 'relay-program.ts'), [String(options.connectionsMax ?? 100_000)], {
        execPath: path.resolve('node_modules/.bin/node'),
        execArgv: ['--disable-warning=ExperimentalWarning'],
        stdio: ['ignore', 'inherit', 'inherit', ...LISTENER_NAMES.map((name) => listeners[name]), 'ipc'],
        uid: options.uid,
        gid: options.uid,
      }),
    );
    if (options.cgroup) writeFileSync(path.join(options.cgroup, 'cgroup.procs'), String(child.pid));
    options.beforeReady?.(child.pid!);
    await new Promise<void>((resolve, reject) => {
      child.once('message', () => resolve());
      child.once('exit', (code) => reject(new Error(`the relay ended with "${code}"`)));
    });
    return new Relay(child);
  }

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.pid = child.pid!;
    open.add(this);
    child.once('exit', () => open.delete(this));
  }

  report(): Promise<RelayReport> {
    return new Promise<RelayReport>((resolve, reject) => {
      const onExit = () => reject(new Error('the relay ended'));
      this.#child.once('exit', onExit);
      this.#child.once('message', (message) => {
        this.#child.off('exit', onExit);
        resolve(message as RelayReport);
      });
      this.#child.send('report');
    });
  }

  /** Takes no new connections and ends with its last one; resolves then. */
  drain(): Promise<void> {
    const gone = this.#gone();
    this.#child.send('drain');
    return gone;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  async stop(): Promise<void> {
    const gone = this.#gone();
    this.kill();
    await gone;
  }

  #gone(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return Promise.resolve();
    return new Promise((resolve) => this.#child.once('exit', () => resolve()));
  }
}
