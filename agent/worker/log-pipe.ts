// What a worker writes to standard output and error. It goes through a named pipe in the pod's directory that the
// worker itself holds open for reading too: writing never fails because no agent reads, and the next agent reads what
// is left in it. The descriptor does not block: a worker that writes while the pipe is full loses lines, not time.

import { closeSync, constants, openSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { isErrno } from '#lib/libc.ts';
import type { Log, LogFields } from '#lib/log.ts';
import { LogLevel } from '#lib/log.ts';
import { makeFifo } from '#lib/unix-socket.ts';

/** A longer line is cut: it is no log line but a dump. */
export const LOG_LINE_BYTES_MAX = 16 * 1024;
/** Lines of one pod in one second; the rest is dropped and counted. */
export const LOG_LINES_PER_SECOND_MAX = 200;

/** Opens the pipe for a worker to inherit, making it where needed. The caller closes the descriptor. */
export function openLogPipe(file: string): number {
  try {
    makeFifo(file, 0o600);
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error;
  }
  return openSync(file, constants.O_RDWR | constants.O_NONBLOCK);
}

export interface LogPipeReader {
  close(): void;
}

/** Reads the pipe until closed, writing each line to `log` at the worker's level with the worker's fields. */
export function readLogPipe(file: string, log: Log, nowMs: () => number): LogPipeReader {
  const socket = new Socket({ fd: openLogPipe(file), readable: true, writable: false });
  const lines = new LogLines(log, nowMs);
  socket.on('data', (chunk) => lines.push(chunk as Buffer));
  socket.on('error', (error) => log.warn('cannot read the log of the worker', { error }));
  socket.unref();
  return {
    close: () => {
      lines.flush();
      socket.destroy();
    },
  };
}

/** Removes the pipe; one that is gone is fine. */
export function removeLogPipe(file: string): void {
  rmSync(file, { force: true });
}

/** Cuts bytes into lines, bounds them, and writes them to a log. */
export class LogLines {
  readonly #log: Log;
  readonly #nowMs: () => number;
  #rest: Buffer = Buffer.alloc(0);
  #isCut = false;
  #windowMs = Number.NEGATIVE_INFINITY;
  #lines = 0;
  #dropped = 0;

  constructor(log: Log, nowMs: () => number) {
    this.#log = log;
    this.#nowMs = nowMs;
  }

  push(chunk: Buffer): void {
    let at = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, at)) {
      this.#append(chunk.subarray(at, end));
      this.#emit();
      at = end + 1;
    }
    this.#append(chunk.subarray(at));
  }

  /** Writes an unfinished last line. */
  flush(): void {
    if (this.#rest.length > 0) this.#emit();
  }

  #append(bytes: Buffer): void {
    if (bytes.length === 0) return;
    const room = LOG_LINE_BYTES_MAX - this.#rest.length;
    if (bytes.length > room) this.#isCut = true;
    this.#rest = Buffer.concat([this.#rest, bytes.subarray(0, room)]);
  }

  #emit(): void {
    const text = this.#rest.toString('utf8');
    const isCut = this.#isCut;
    this.#rest = Buffer.alloc(0);
    this.#isCut = false;
    if (text.trim() === '' || !this.#admit()) return;
    const { level, message, fields } = parseLine(text);
    this.#log[level](message, isCut ? { ...fields, cut: true } : fields);
  }

  #admit(): boolean {
    const nowMs = this.#nowMs();
    if (nowMs - this.#windowMs >= 1000) {
      if (this.#dropped > 0) this.#log.warn('worker logs too much: lines were dropped', { lines: this.#dropped });
      this.#windowMs = nowMs;
      this.#lines = 0;
      this.#dropped = 0;
    }
    if (this.#lines++ < LOG_LINES_PER_SECOND_MAX) return true;
    this.#dropped++;
    return false;
  }
}

/** A line of the worker's own logger, or what the runtime wrote when it broke. */
function parseLine(text: string): { level: LogLevel; message: string; fields: LogFields } {
  if (text.startsWith('{')) {
    try {
      const { level, message, time: _, ...fields } = JSON.parse(text) as Record<string, unknown>;
      if (typeof message === 'string' && typeof level === 'string' && Object.hasOwn(LogLevel, level)) {
        return { level: level as LogLevel, message, fields };
      }
    } catch {
      // A line that was cut, or not ours: written as it is below.
    }
  }
  return { level: 'warn', message: 'worker wrote', fields: { line: text } };
}

/** Closes a descriptor that {@link openLogPipe} opened. */
export function closeLogPipe(fd: number): void {
  closeSync(fd);
}
