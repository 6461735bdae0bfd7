// Asking another process to do things, over Node's IPC: one request, one answer, in any order. Both sides are here.

import type { ChildProcess } from 'node:child_process';

interface Answer {
  id: number;
  result?: unknown;
  failure?: string;
}

/** The side that asks. */
export class Channel {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  #next = 1;
  #end: string | null = null;

  /** `name` is how errors call the process. */
  constructor(child: ChildProcess, name: string) {
    this.#child = child;
    child.on('message', ({ id, result, failure }: Answer) => {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (failure === undefined) waiting?.resolve(result);
      else waiting?.reject(new Error(`${name}: ${failure}`));
    });
    const ended = (how: string) => {
      this.#end = `${name}: the process ended with ${how}`;
      for (const { reject } of this.#waiting.values()) reject(new Error(this.#end));
      this.#waiting.clear();
    };
    child.once('exit', (code, signal) => ended(signal ?? `status ${code}`));
    child.once('error', (error) => ended(error.message));
  }

  /** Resolves when the process listens to commands. */
  ready(): Promise<void> {
    return this.#answer(0) as Promise<void>;
  }

  call<T>(command: unknown): Promise<T> {
    const id = this.#next++;
    const answer = this.#answer(id);
    if (this.#end === null) this.#child.send({ id, command });
    return answer as Promise<T>;
  }

  #answer(id: number): Promise<unknown> {
    if (this.#end !== null) return Promise.reject(new Error(this.#end));
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }
}

/** The side that is asked: runs each command, and ends with the process that asks. */
export function answerCommands<C>(run: (command: C) => unknown): void {
  process.on('disconnect', () => process.exit(0));
  process.on('message', async ({ id, command }: { id: number; command: C }) => {
    let answer: Answer;
    try {
      answer = { id, result: (await run(command)) ?? null };
    } catch (error) {
      answer = { id, failure: error instanceof Error ? error.message : String(error) };
    }
    if (process.connected) process.send!(answer);
  });
  process.send!({ id: 0, result: null });
}
