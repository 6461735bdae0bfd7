// Requests at a fixed rate, whether the ones before were answered or not: latency counts from the moment a request was
// due, so that a stall is seen by every request that it delayed.

import net from 'node:net';
import { Worker } from 'node:worker_threads';
import { ORIGIN_BODY } from '../pair/origin.ts';
import { Http1Response } from './http1-response.ts';
import { type LoadResult, Recorder } from './result.ts';

export interface OpenLoopOptions {
  host: string;
  port: number;
  ratePerSecond: number;
  seconds: number;
  /** Kept alive; a request that finds all of them busy waits for one. */
  connections: number;
}

const DRAIN_MS = 5_000;

/** Runs it. Requests that are not answered in five seconds after the last one was due have failed. */
export async function runOpenLoop(options: OpenLoopOptions): Promise<LoadResult> {
  const load = new OpenLoop(options);
  await load.connect();
  return await load.run();
}

export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

class OpenLoop {
  readonly #options: OpenLoopOptions;
  readonly #recorder = new Recorder();
  readonly #idle: net.Socket[] = [];
  readonly #open = new Set<net.Socket>();
  /** When the requests that wait for a connection were due. */
  readonly #waiting: number[] = [];
  readonly #dueMs = new Map<net.Socket, number>();
  readonly #count: number;
  readonly #request: string;
  #settled = 0;
  #finish: () => void = () => {};

  constructor(options: OpenLoopOptions) {
    this.#options = options;
    this.#count = options.ratePerSecond * options.seconds;
    this.#request = `GET / HTTP/1.1\r\nHost: ${options.host}:${options.port}\r\n\r\n`;
  }

  async connect(): Promise<void> {
    await Promise.all(Array.from({ length: this.#options.connections }, () => this.#connectOne()));
  }

  async run(): Promise<LoadResult> {
    const intervalMs = 1000 / this.#options.ratePerSecond;
    const startMs = nowMs() + 100;
    const finished = new Promise<void>((resolve) => {
      this.#finish = resolve;
    });
    const pacer = new Worker(new URL('./pacer.ts', import.meta.url), {
      workerData: { startMs, intervalMs, count: this.#count },
    });
    pacer.on('message', (index: number) => this.#isDue(startMs + index * intervalMs));
    const giveUp = setTimeout(() => this.#finish(), this.#options.seconds * 1000 + DRAIN_MS);
    await finished;
    clearTimeout(giveUp);
    await pacer.terminate();
    for (let missing = this.#count - this.#settled; missing > 0; missing--) this.#recorder.failed('no answer');
    for (const socket of this.#open) socket.destroy();
    return this.#recorder.result(this.#options.seconds * 1000);
  }

  #isDue(dueMs: number): void {
    const socket = this.#idle.pop();
    if (socket === undefined) this.#waiting.push(dueMs);
    else this.#send(socket, dueMs);
  }

  #send(socket: net.Socket, dueMs: number): void {
    this.#dueMs.set(socket, dueMs);
    socket.write(this.#request);
  }

  async #connectOne(): Promise<void> {
    const { host, port } = this.#options;
    const socket = net.connect({ host, port, noDelay: true });
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    const response = new Http1Response(ORIGIN_BODY);
    this.#open.add(socket);
    let failure = 'the connection was closed';
    socket.on('data', (bytes: Buffer) => {
      try {
        if (response.push(bytes)) this.#answered(socket);
      } catch (error) {
        failure = (error as Error).message;
        socket.destroy();
      }
    });
    socket.on('error', (error) => {
      failure = error.message;
    });
    socket.on('close', () => this.#lost(socket, failure));
    this.#release(socket);
  }

  #answered(socket: net.Socket): void {
    const dueMs = this.#dueMs.get(socket);
    if (dueMs === undefined) throw new Error('an answer to no request');
    this.#dueMs.delete(socket);
    this.#recorder.succeeded(nowMs() - dueMs);
    this.#settle();
    this.#release(socket);
  }

  #release(socket: net.Socket): void {
    const dueMs = this.#waiting.shift();
    if (dueMs === undefined) this.#idle.push(socket);
    else this.#send(socket, dueMs);
  }

  #lost(socket: net.Socket, why: string): void {
    this.#open.delete(socket);
    const at = this.#idle.indexOf(socket);
    if (at >= 0) this.#idle.splice(at, 1);
    if (this.#settled === this.#count) return;
    if (this.#dueMs.delete(socket)) {
      this.#recorder.failed(why);
      this.#settle();
    }
    this.#connectOne().catch((error: Error) => this.#recorder.failed(error.message));
  }

  #settle(): void {
    this.#settled += 1;
    if (this.#settled === this.#count) this.#finish();
  }
}
