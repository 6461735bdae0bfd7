// h2load, the HTTP/2 load generator of nghttp2 (Debian's nghttp2-client): streams as fast as they go, one thread. Its
// summary has no percentiles, so they come from its log, one line per request.

import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { runLoad, type Target } from './command.ts';
import { type LoadResult, percentiles } from './result.ts';

export interface H2loadOptions {
  target: Target;
  seconds: number;
  connections: number;
  streams: number;
  /** For its log; removed by the caller. */
  directory: string;
  path?: string;
  headers?: readonly string[];
  /** Makes it a POST. */
  body?: Buffer;
  /** What every response must carry. */
  responseBytes: number;
}

/** Runs h2load. Rejects when it fails, cannot be read, or when the bodies were not of the expected size. */
export async function runH2load(options: H2loadOptions): Promise<LoadResult> {
  const { target, seconds, connections, streams, directory, headers = [], body } = options;
  const log = path.join(directory, 'h2load.log');
  const data = path.join(directory, 'h2load.body');
  rmSync(log, { force: true });
  if (body) writeFileSync(data, body);
  const output = await runLoad(
    target.netns,
    [
      ...['h2load', '-t', '1', '-c', String(connections), '-m', String(streams), '-D', String(seconds)],
      ...['--log-file', log, ...headers.flatMap((header) => ['-H', header]), ...(body ? ['-d', data] : [])],
      `http://${target.host}:${target.port}${options.path ?? '/'}`,
    ],
    seconds,
  );
  return parseH2load(output, readFileSync(log, 'latin1'), { seconds, responseBytes: options.responseBytes });
}

/** The summary says what failed and how many bytes came; the log has a line per request. */
export function parseH2load(
  summary: string,
  log: string,
  { seconds, responseBytes }: { seconds: number; responseBytes: number },
): LoadResult {
  const numbers = (pattern: RegExp) => {
    const found = pattern.exec(summary);
    if (found === null) throw new Error(`h2load printed no ${pattern}: ${summary}`);
    return found.slice(1).map(Number) as [number, ...number[]];
  };
  const [succeeded, failed, errored, timedOut] = numbers(
    /(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout/,
  ) as [number, number, number, number];
  const [bodyBytes] = numbers(/\((\d+)\) data/);
  const latenciesMs: number[] = [];
  let wrongStatus = 0;
  for (const line of log.split('\n')) {
    if (line === '') continue;
    const [, status, microseconds] = line.split('\t');
    if (status === '200') latenciesMs.push(Number(microseconds) / 1000);
    else wrongStatus += 1;
  }
  if (succeeded === 0) throw new Error(`h2load: no request succeeded: ${summary}`);
  // Those that were under way at the end have sent a part.
  const mean = bodyBytes / succeeded;
  if (Math.abs(mean / responseBytes - 1) > 0.05) {
    throw new Error(`h2load: ${mean.toFixed(1)} bytes per response: expected ${responseBytes}`);
  }
  return {
    requests: succeeded,
    rps: succeeded / seconds,
    ...percentiles(latenciesMs),
    failures: Math.max(failed + errored + timedOut, wrongStatus),
  };
}
