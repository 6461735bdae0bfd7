// wrk, Debian's HTTP load generator: keep-alive connections as fast as they go, one thread.

import { spawn } from 'node:child_process';

export interface WrkOptions {
  /** Network namespace to run in; absent: the machine's. */
  netns?: string;
  url: string;
  connections: number;
  durationSeconds: number;
}

export interface WrkResult {
  requests: number;
  rps: number;
  p50Ms: number;
  p99Ms: number;
  /** Responses that were not 2xx or 3xx, and sockets that failed. */
  failures: number;
}

/** Runs wrk. Rejects with its output when it fails or cannot be read. */
export async function runWrk(options: WrkOptions): Promise<WrkResult> {
  const { netns, url, connections, durationSeconds } = options;
  const wrk = ['wrk', '-t1', `-c${connections}`, `-d${durationSeconds}s`, '--latency', url];
  const [file, ...args] = netns === undefined ? wrk : ['ip', 'netns', 'exec', netns, ...wrk];
  const child = spawn(file!, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const status = await new Promise<number | null>((resolve, reject) => child.on('error', reject).on('close', resolve));
  if (status !== 0) throw new Error(`wrk ended with status ${status}: ${output}`);
  return parseWrk(output);
}

export function parseWrk(output: string): WrkResult {
  const number = (pattern: RegExp) => {
    const found = pattern.exec(output);
    if (found === null) throw new Error(`wrk printed no ${pattern}: ${output}`);
    return Number(found[1]);
  };
  const optional = (pattern: RegExp) => Number(pattern.exec(output)?.[1] ?? 0);
  const socketErrors =
    /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(output)?.slice(1) ?? [];
  return {
    requests: number(/(\d+) requests in/),
    rps: number(/Requests\/sec:\s+([\d.]+)/),
    p50Ms: milliseconds(/50%\s+([\d.]+)(us|ms|s)/.exec(output)),
    p99Ms: milliseconds(/99%\s+([\d.]+)(us|ms|s)/.exec(output)),
    failures: optional(/Non-2xx or 3xx responses: (\d+)/) + socketErrors.reduce((sum, count) => sum + Number(count), 0),
  };
}

function milliseconds(found: RegExpExecArray | null): number {
  if (found === null) return Number.NaN;
  const factor = { us: 0.001, ms: 1, s: 1000 }[found[2] as 'us' | 'ms' | 's'];
  return Number(found[1]) * factor;
}
