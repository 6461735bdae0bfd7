// iperf3: one TCP stream as fast as it goes. A "request" of its result is a MiB that arrived.

import { runLoad, type Target } from './command.ts';
import type { LoadResult } from './result.ts';

const MIB = 1024 * 1024;

/** Runs the client. Rejects when it fails or when nothing arrived. */
export async function runIperf3(target: Target, seconds: number): Promise<LoadResult> {
  const argv = ['iperf3', '-c', target.host, '-p', String(target.port), '-t', String(seconds), '-J'];
  return parseIperf3(await runLoad(target.netns, argv, seconds));
}

/** Reads the JSON report: what counts is what the receiver saw. */
export function parseIperf3(output: string): LoadResult {
  const report = JSON.parse(output) as {
    error?: string;
    end?: { sum_received?: { bytes: number; bits_per_second: number } };
  };
  if (report.error !== undefined) throw new Error(`iperf3: ${report.error}`);
  const received = report.end?.sum_received;
  if (received === undefined || !(received.bytes > 0)) throw new Error('iperf3: nothing arrived');
  return {
    requests: received.bytes / MIB,
    rps: received.bits_per_second / 8 / MIB,
    p50Ms: null,
    p99Ms: null,
    p999Ms: null,
    failures: 0,
    gbps: received.bits_per_second / 1e9,
  };
}
