// One scrape of the node's workers: all are asked at once, what has come when the time is over is joined and sent. A
// slow or dead worker makes the answer partial, never late: who scrapes sees the node's error counter.

import type { ServerResponse } from 'node:http';
import type { Log } from '#lib/log.ts';
import { FamilyMerge } from './family-merge.ts';

export interface ScrapeTarget {
  /** `namespace/name`. */
  pod: string;
  scrape(onChunk: (chunk: Buffer) => void, timeoutMs: number): Promise<void>;
}

export interface ScrapeResult {
  merge: FamilyMerge;
  /** Pods whose text is missing or cut. */
  failed: string[];
  /** How many series each pod has, and how many did not fit. */
  series: { pod: string; taken: number; dropped: number }[];
}

/** A scraper waits 10 s by default; a node answers well before. */
export const SCRAPE_TIMEOUT_MS = 800;

/** How long a scraper may take to read what it asked for: as long as Prometheus waits by default. */
export const SEND_TIMEOUT_MS = 10_000;

/**
 * Sends the pieces as fast as they are read, and ends the response. A reader that takes longer than `timeoutMs` for all
 * is cut off: it holds the text of the whole node, and one of the few places.
 */
export async function sendPieces(
  response: ServerResponse,
  pieces: Iterable<Buffer>,
  timeoutMs = SEND_TIMEOUT_MS,
): Promise<void> {
  const timer = setTimeout(() => response.destroy(), timeoutMs);
  try {
    for (const piece of pieces) {
      if (response.destroyed) return;
      if (!response.write(piece)) await drained(response);
    }
    response.end();
    if (!response.writableFinished && !response.destroyed) await drained(response);
  } finally {
    clearTimeout(timer);
  }
}

/** Resolves when more can be written, everything was, or nothing ever will be. */
function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const events = ['drain', 'finish', 'close'];
    const done = (): void => {
      for (const event of events) response.off(event, done);
      resolve();
    };
    for (const event of events) response.once(event, done);
  });
}

/** Never rejects; takes at most `timeoutMs`. */
export async function scrapeWorkers(
  targets: readonly ScrapeTarget[],
  log: Log,
  timeoutMs = SCRAPE_TIMEOUT_MS,
): Promise<ScrapeResult> {
  const merge = new FamilyMerge();
  const failed: string[] = [];
  const series: ScrapeResult['series'] = [];
  await Promise.all(
    targets.map(async ({ pod, scrape }) => {
      const source = merge.source();
      try {
        await scrape((chunk) => source.push(chunk), timeoutMs);
        if (source.isTruncated) {
          log.warn('metrics of a worker are too long: the rest is missing', { pod });
          failed.push(pod);
        }
      } catch (error) {
        log.warn('worker gave no metrics in time', { pod, error });
        failed.push(pod);
      }
      series.push({ pod, taken: source.series, dropped: source.dropped });
      if (source.dropped > 0) {
        log.warn('a pod has too many series: the rest is missing', {
          pod,
          taken: source.series,
          dropped: source.dropped,
        });
      }
    }),
  );
  return { merge, failed, series };
}

/** Lets few scrapes run at once, since each holds the text of the whole node. */
export class ScrapeGate {
  readonly #max: number;
  #running = 0;

  constructor(max = 2) {
    this.#max = max;
  }

  /** Null when too many run already. */
  async run<T>(work: () => Promise<T>): Promise<T | null> {
    if (this.#running >= this.#max) return null;
    this.#running++;
    try {
      return await work();
    } finally {
      this.#running--;
    }
  }
}
