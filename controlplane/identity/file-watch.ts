// Notices changed files by their contents, at an interval. Kubernetes swaps mounted Secrets by renaming a directory
// behind a symbolic link, editors rename, some file systems send no events: reading a few small files finds them all.

import { readFile } from 'node:fs/promises';
import type { Clock, Timer } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';

/** Certificates and keys are a few KiB. */
export const WATCHED_FILE_BYTES_MAX = 1024 * 1024;

/** The contents of the watched files by the names they were asked under. */
export type FileContents<Name extends string> = Readonly<Record<Name, string>>;

export interface FileWatchOptions<Name extends string> {
  paths: Readonly<Record<Name, string>>;
  intervalMs: number;
  clock: Clock;
  /** The files were read and differ from the last time. */
  onChange: (files: FileContents<Name>) => void;
  /** Reading failed; said once for each different message. */
  onError: (error: HeddleError) => void;
}

export class FileWatch<Name extends string> {
  readonly #options: FileWatchOptions<Name>;
  #last = '';
  #lastError = '';
  #timer: Timer | null = null;
  #isClosed = false;

  constructor(options: FileWatchOptions<Name>) {
    this.#options = options;
  }

  /** Reads once, then again at every interval until `close`. */
  async start(): Promise<void> {
    await this.#read();
    if (this.#isClosed) return;
    this.#timer = this.#options.clock.after(this.#options.intervalMs, () => void this.start());
  }

  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
  }

  async #read(): Promise<void> {
    try {
      const files = await readFiles(this.#options.paths);
      if (this.#isClosed) return;
      this.#lastError = '';
      const all = JSON.stringify(files);
      if (all === this.#last) return;
      this.#last = all;
      this.#options.onChange(files);
    } catch (error) {
      const failure =
        error instanceof HeddleError ? error : new HeddleError('read-file', 'read files', { cause: error });
      if (failure.message === this.#lastError) return;
      this.#lastError = failure.message;
      this.#options.onError(failure);
    }
  }
}

/** Reads the files as text. Throws `read-file` naming the first that cannot be read or is too long. */
export async function readFiles<Name extends string>(
  paths: Readonly<Record<Name, string>>,
): Promise<FileContents<Name>> {
  const entries = await Promise.all(
    Object.entries<string>(paths).map(async ([name, path]) => {
      let text: string;
      try {
        text = await readFile(path, 'utf8');
      } catch (cause) {
        throw new HeddleError('read-file', `read "${path}": expected a readable file`, { cause });
      }
      if (text.length <= WATCHED_FILE_BYTES_MAX) return [name, text];
      throw new HeddleError('read-file', `read "${path}": expected at most ${WATCHED_FILE_BYTES_MAX} bytes`);
    }),
  );
  return Object.fromEntries(entries) as FileContents<Name>;
}
