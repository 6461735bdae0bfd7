// What `make conformance` prints: how many cases of a suite passed. Each suite leaves its counts in a file.

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const directory = path.resolve(import.meta.dirname, '../../../build/reports/conformance');

/** The suites, in the order in which they are printed. */
export const SUITES = ['h2spec', 'grpcInterop', 'http1', 'tls', 'websocket'] as const;
export type SuiteName = (typeof SUITES)[number];

export interface Counts {
  passed: number;
  total: number;
}

/** Counts the cases of one suite as they end; `write` when all have. */
export class Tally {
  readonly #suite: SuiteName;
  readonly #total: number;
  #passed = 0;

  constructor(suite: SuiteName, total: number) {
    this.#suite = suite;
    this.#total = total;
  }

  /** Runs one case, which passes unless it throws. */
  async case(run: () => Promise<void> | void): Promise<void> {
    await run();
    this.#passed++;
  }

  write(): void {
    writeCounts(this.#suite, { passed: this.#passed, total: this.#total });
  }
}

export function writeCounts(suite: SuiteName, counts: Counts): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(path.join(directory, `${suite}.json`), JSON.stringify(counts));
}

/** Null: the suite did not get that far. */
export function readCounts(suite: SuiteName): Counts | null {
  try {
    return JSON.parse(readFileSync(path.join(directory, `${suite}.json`), 'utf8')) as Counts;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

/** What a suite has to show beside its counts; `make conformance` prints it. */
export function writeLines(suite: SuiteName, lines: readonly string[]): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(linesFile(suite), lines.map((line) => `${line}\n`).join(''));
}

export function readLines(suite: SuiteName): string {
  return existsSync(linesFile(suite)) ? readFileSync(linesFile(suite), 'utf8') : '';
}

function linesFile(suite: SuiteName): string {
  return path.join(directory, `${suite}.txt`);
}

export function forgetCounts(): void {
  rmSync(directory, { recursive: true, force: true });
}
