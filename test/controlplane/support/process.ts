// A control-plane process under test: the real main.ts on free ports of loopback, its log lines, its end.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import readline from 'node:readline';

const ROOT = path.resolve(import.meta.dirname, '../../..');
const NODE = path.join(ROOT, 'node_modules/.bin/node');
const START_TIMEOUT_MS = 20_000;

export type LogLine = Record<string, unknown> & { message?: string; level?: string };

export class ProcessUnderTest {
  readonly lines: LogLine[] = [];
  /** Output that is no log line. */
  readonly text: string[] = [];
  readonly #child: ChildProcess;
  readonly #ended: Promise<{ code: number | null; signal: string | null }>;
  #wake: () => void = () => {};

  constructor(main: string, args: readonly string[]) {
    this.#child = spawn(NODE, ['--disable-warning=ExperimentalWarning', path.join(ROOT, main), ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    readline.createInterface({ input: this.#child.stderr! }).on('line', (line) => {
      if (line.startsWith('{')) this.lines.push(JSON.parse(line) as LogLine);
      else this.text.push(line);
      this.#wake();
    });
    this.#ended = once(this.#child, 'close').then(([code, signal]) => {
      this.#wake();
      return { code, signal };
    });
  }

  /** The first log line with this message, now or later. Rejects when the process ends or takes too long. */
  async logged(message: string): Promise<LogLine> {
    const deadline = AbortSignal.timeout(START_TIMEOUT_MS);
    deadline.addEventListener('abort', () => this.#wake());
    for (;;) {
      const found = this.lines.find((line) => line.message === message);
      if (found) return found;
      if (this.#child.exitCode !== null) throw new Error(`ended before "${message}": ${this.text.join('\n')}`);
      if (deadline.aborted) throw new Error(`no "${message}" in ${START_TIMEOUT_MS} ms: ${JSON.stringify(this.lines)}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  ended(): Promise<{ code: number | null; signal: string | null }> {
    return this.#ended;
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Ends it, whatever it does. */
  async stop(): Promise<void> {
    if (this.#child.exitCode === null) this.#child.kill('SIGKILL');
    await this.#ended;
  }
}
