// `process_*` and `proxy_build_info`, read from the process when somebody scrapes. No library: a worker cannot afford
// one. Names as Prometheus' clients have them.

import { readdirSync, readFileSync } from 'node:fs';
import type { Clock } from '#lib/clock.ts';
import type { Log } from '#lib/log.ts';
import type { Metrics } from './metrics.ts';

/** Size of a page in /proc/self/statm: 4 KiB on every machine that Node is built for with default kernels. */
const PAGE_BYTES = 4096;

export interface ProcessInfo {
  version: string;
  /** Unix time in milliseconds. */
  startedMs: number;
}

/** Registers the collectors. */
export function addProcessMetrics(metrics: Metrics, clock: Clock, log: Log, info: ProcessInfo): void {
  metrics.gauge('proxy_build_info', { version: info.version, vendor: 'heddle' }).set(1);
  metrics.gauge('process_start_time_seconds').set(info.startedMs / 1000);
  const cpu = metrics.gauge('process_cpu_seconds_total');
  const now = metrics.gauge('process_clock_time_seconds');
  const resident = metrics.gauge('process_resident_memory_bytes');
  const virtual = metrics.gauge('process_virtual_memory_bytes');
  const open = metrics.gauge('process_open_fds');
  metrics.gauge('process_max_fds').set(maxDescriptors(log));
  metrics.onScrape(() => {
    const { user, system } = process.cpuUsage();
    cpu.set((user + system) / 1e6);
    now.set(clock.wallMs() / 1000);
    try {
      const [total, inMemory] = readFileSync('/proc/self/statm', 'utf8').split(' ').map(Number);
      virtual.set((total ?? 0) * PAGE_BYTES);
      resident.set((inMemory ?? 0) * PAGE_BYTES);
      open.set(readdirSync('/proc/self/fd').length);
    } catch (error) {
      log.debug('cannot read the state of the process for its metrics', { error });
    }
  });
}

function maxDescriptors(log: Log): number {
  try {
    const limit = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
    return Number(limit ?? 0);
  } catch (error) {
    log.debug('cannot read the limits of the process', { error });
    return 0;
  }
}
