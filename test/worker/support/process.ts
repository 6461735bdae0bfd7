// Workers as processes of their own, with real inherited sockets.

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { LISTENER_NAMES, type ListenerName, WorkerEnvironment } from '#api/worker-link.ts';
import { close } from '#lib/libc.ts';
import { localAddress, openTcpListener } from '#lib/tcp-socket.ts';
import { openUnixListener } from '#lib/unix-socket.ts';

export const ROOT = path.resolve(import.meta.dirname, '../../..');
export const NODE = realpathSync(path.join(ROOT, 'node_modules/.bin/node'));
export const FLAGS = ['--disable-warning=ExperimentalWarning'];
const MAIN = path.join(ROOT, 'test/worker/support/worker-main.ts');

const cleanUps: (() => void)[] = [];

/** Runs after the test, last first. */
export function onCleanUp(run: () => void): void {
  cleanUps.push(run);
}

export function cleanUp(): void {
  for (const run of cleanUps.splice(0).reverse()) run();
}

/** Resolves with the first truthy result of `probe`, asked whenever the event loop turns. */
export async function until<T>(what: string, probe: () => T | Promise<T>, timeoutMs = 15_000): Promise<NonNullable<T>> {
  for (const endMs = performance.now() + timeoutMs; ; ) {
    const result = await probe();
    if (result) return result;
    if (performance.now() > endMs) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The four listening sockets of a pod and its control socket, as the agent would hold them. */
export class Sockets {
  readonly listeners = {} as Record<ListenerName, number>;
  readonly ports = {} as Record<ListenerName, number>;
  readonly directory = mkdtempSync(path.join(os.tmpdir(), 'heddle-worker-'));
  readonly controlPath = path.join(this.directory, 'control.sock');

  constructor() {
    for (const name of LISTENER_NAMES) {
      const fd = openTcpListener({ address: name.endsWith('4') ? '0.0.0.0' : '::', port: 0, backlog: 4_096 });
      this.listeners[name] = fd;
      this.ports[name] = localAddress(fd)!.port;
    }
    onCleanUp(() => {
      for (const fd of Object.values(this.listeners)) close(fd);
      rmSync(this.directory, { recursive: true, force: true });
    });
  }
}

export interface SpawnOptions {
  sockets?: Sockets;
  main?: string;
  args?: string[];
  environment?: Record<string, string>;
  /** Puts this descriptor in the place of a listener. */
  listeners?: Partial<Record<ListenerName, number>>;
  flags?: string[];
  uid?: number;
  node?: string;
  cwd?: string;
}

export interface LogLine {
  level: string;
  message: string;
  [field: string]: unknown;
}

export class WorkerUnderTest {
  readonly sockets: Sockets;
  readonly child: ChildProcess;
  readonly lines: LogLine[] = [];
  /** What was written that is no log line. */
  readonly noise: string[] = [];
  /** Set when the process is gone. */
  status: { code: number | null; signal: string | null } | null = null;

  constructor(options: SpawnOptions = {}) {
    this.sockets = options.sockets ?? new Sockets();
    const controlPath = this.sockets.controlPath;
    rmSync(controlPath, { force: true });
    const controlFd = openUnixListener(controlPath);
    const descriptors = LISTENER_NAMES.map((name) => options.listeners?.[name] ?? this.sockets.listeners[name]);
    const { node = NODE, flags = FLAGS, main = MAIN, args = [], cwd = ROOT } = options;
    this.child = spawn(node, [...flags, main, ...args], {
      cwd,
      ...(options.uid !== undefined && { uid: options.uid, gid: options.uid }),
      stdio: ['ignore', 'pipe', 'pipe', ...descriptors, controlFd],
      env: {
        [WorkerEnvironment.podUid]: 'pod-uid',
        [WorkerEnvironment.workerVersion]: 'test',
        [WorkerEnvironment.logLevel]: 'debug',
        ...(process.env.NODE_COMPILE_CACHE && { NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE }),
        ...options.environment,
      },
    });
    // The worker holds its own; a connection to a dead worker must be refused.
    close(controlFd);
    this.#read();
    this.child.on('exit', (code, signal) => {
      this.status = { code, signal };
    });
    onCleanUp(() => this.child.kill('SIGKILL'));
  }

  get pid(): number {
    return this.child.pid!;
  }

  logged(message: string | RegExp): LogLine | undefined {
    return this.lines.find((line) =>
      typeof message === 'string' ? line.message === message : message.test(JSON.stringify(line)),
    );
  }

  whenLogged(message: string | RegExp): Promise<LogLine> {
    return until(`log line ${message}`, () => this.logged(message));
  }

  whenGone(): Promise<{ code: number | null; signal: string | null }> {
    return until('the worker ends', () => this.status);
  }

  #read(): void {
    let rest = '';
    const take = (chunk: Buffer): void => {
      const parts = (rest + chunk.toString()).split('\n');
      rest = parts.pop()!;
      for (const text of parts) {
        try {
          this.lines.push(JSON.parse(text) as LogLine);
        } catch {
          this.noise.push(text);
        }
      }
    };
    this.child.stderr!.on('data', take);
    this.child.stdout!.on('data', (chunk: Buffer) => this.noise.push(chunk.toString()));
  }
}

/** A port of 127.0.0.0/8 that nobody listens on. */
export async function freePort(address = '127.0.0.2'): Promise<number> {
  const server = net.createServer().listen(0, address);
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** The address that means `port` of the pod (worker-main.ts). */
export function inboundAddress(port: number): string {
  return `127.77.${port >> 8}.${port & 0xff}`;
}
