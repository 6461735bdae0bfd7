// A process of the mesh itself (control plane, agent): started, waited for until it says it is ready, stopped in order,
// and missed when it ends by itself.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { HeddleError } from '#lib/errors.ts';
import { OutputTail } from './output-tail.ts';

const POLL_MS = 50;
const STOP_GRACE_MS = 8000;
const REQUEST_TIMEOUT_MS = 2000;

export interface MeshProcessOptions {
  name: string;
  argv: readonly [string, ...string[]];
  /** Answers 200 once the process serves. */
  readyUrl: string;
  /** Added to this process's own environment. */
  environment?: Readonly<Record<string, string>>;
  readyTimeoutMs: number;
  onLine?: (line: string) => void;
  /** The process ended although nobody asked it to. */
  onLoss: (error: HeddleError) => void;
}

export class MeshProcess {
  readonly #options: MeshProcessOptions;
  readonly #output: OutputTail;
  readonly #child: ChildProcess;
  #exit: string | null = null;
  #isStopping = false;

  constructor(options: MeshProcessOptions) {
    this.#options = options;
    this.#output = new OutputTail(options.onLine);
    const [file, ...args] = options.argv;
    const env = { ...process.env, ...options.environment };
    this.#child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], env });
    this.#output.follow(this.#child.stdout!);
    this.#output.follow(this.#child.stderr!);
    this.#child.once('error', (error) => this.#ended(error.message));
    this.#child.once('close', (code, signal) => this.#ended(signal ?? `status ${code}`));
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Throws `not-ready` with what the process said last. */
  async waitReady(signal: AbortSignal): Promise<void> {
    const { readyUrl, readyTimeoutMs } = this.#options;
    const untilMs = performance.now() + readyTimeoutMs;
    let answer = 'no answer';
    while (performance.now() < untilMs && !signal.aborted && this.#exit === null) {
      const response = await fetch(readyUrl, { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) }).catch(() => null);
      if (response?.ok) return;
      if (response) answer = (await response.text()).trim();
      await delay(POLL_MS);
    }
    throw this.#failure(
      this.#exit === null ? `not ready within ${readyTimeoutMs} ms: ${answer}` : `ended with ${this.#exit}`,
    );
  }

  /** Resolves when the process is gone: by itself, or killed after a while. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    this.#isStopping = true;
    if (this.#exit !== null) return;
    const gone = once(this.#child, 'close');
    this.#child.kill(signal);
    const cut = setTimeout(() => this.#child.kill('SIGKILL'), STOP_GRACE_MS);
    await gone;
    clearTimeout(cut);
  }

  #ended(how: string): void {
    if (this.#exit !== null) return;
    this.#exit = how;
    if (!this.#isStopping) this.#options.onLoss(this.#failure(`ended with ${how}`));
  }

  #failure(what: string): HeddleError {
    const said = this.#output.last(8).map((line) => `\n    ${line}`);
    return new HeddleError('not-ready', `run ${this.#options.name}: ${what}${said.join('')}`);
  }
}
