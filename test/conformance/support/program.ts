// A program of others, run in a pod, its output kept for when something goes wrong.

import { type ChildProcess, spawn } from 'node:child_process';
import type { Place } from '../../netns/support/network.ts';

/** How much of a program's output is kept, from its end. */
const OUTPUT_CHARACTERS_MAX = 200_000;

export class Program {
  readonly child: ChildProcess;
  output = '';
  readonly #ended: Promise<number | null>;

  /** `ip netns exec` becomes the program, so that a signal reaches it. */
  constructor(place: Place, argv: readonly string[]) {
    this.child = spawn('ip', ['netns', 'exec', place.name, ...argv], { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.child.stdout!, this.child.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.output = (this.output + text).slice(-OUTPUT_CHARACTERS_MAX);
      });
    }
    const { promise, resolve, reject } = Promise.withResolvers<number | null>();
    this.child.once('error', reject).once('close', resolve);
    this.#ended = promise;
  }

  /** Resolves with its status. It is killed when that takes longer than `timeoutMs`, and this rejects. */
  async end(timeoutMs: number): Promise<number | null> {
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.child.kill('SIGKILL');
    }, timeoutMs);
    const status = await this.#ended.finally(() => clearTimeout(timer));
    if (isLate)
      throw new Error(`program "${this.child.spawnargs.join(' ')}" took over ${timeoutMs} ms: ${this.output}`);
    return status;
  }

  /** Ends it and waits until it is gone. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.#ended;
  }
}
