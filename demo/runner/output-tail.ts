// The last lines that a process wrote: shown when something fails, and never more than a bound.

import type { Readable } from 'node:stream';

const LINES_MAX = 200;
const LINE_CHARS_MAX = 4096;

export class OutputTail {
  readonly #lines: string[] = [];
  readonly #onLine: (line: string) => void;

  /** `onLine` sees every line as it comes. */
  constructor(onLine: (line: string) => void = () => {}) {
    this.#onLine = onLine;
  }

  /** Reads a stream to its end. */
  follow(stream: Readable): void {
    let rest = '';
    stream.setEncoding('utf8');
    stream.on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop()!.slice(0, LINE_CHARS_MAX);
      for (const line of lines) this.#add(line);
    });
    stream.on('end', () => {
      if (rest !== '') this.#add(rest);
    });
  }

  last(count: number): string[] {
    return this.#lines.slice(-count);
  }

  #add(line: string): void {
    const cut = line.slice(0, LINE_CHARS_MAX);
    this.#lines.push(cut);
    if (this.#lines.length > LINES_MAX) this.#lines.shift();
    this.#onLine(cut);
  }
}
