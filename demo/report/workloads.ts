// The rows of `stat`: each workload with what it received. Pure.

import { workloadOf } from './edges.ts';
import type { Labels } from './exposition.ts';
import { bucketsOf, histogramQuantile, sumBy, type Window } from './scrape.ts';

/** The pods of a workload and how many of them are meshed. */
export interface WorkloadPods {
  name: string;
  pods: number;
  meshed: number;
}

export interface WorkloadRow extends WorkloadPods {
  /** Null without requests. */
  successRate: number | null;
  requestsPerSecond: number | null;
  p50Ms: number | null;
  p95Ms: number | null;
  p99Ms: number | null;
  /** Open connections from clients; null for a workload without a proxy. */
  tcpConnections: number | null;
}

export function computeWorkloads(window: Window, workloads: readonly WorkloadPods[]): WorkloadRow[] {
  const received = (labels: Labels): string | null => (labels.direction === 'inbound' ? workloadOf(labels) : null);
  const responses = window.increases('response_total');
  const totals = sumBy(responses, received);
  const successes = sumBy(responses, (labels) => (labels.classification === 'success' ? received(labels) : null));
  const connections = sumBy(window.gauges('tcp_open_connections'), (labels) =>
    labels.peer === 'src' ? received(labels) : null,
  );
  const latency = window.increases('response_latency_ms_bucket');
  return workloads.map((workload) => {
    const total = totals.get(workload.name) ?? 0;
    const buckets = bucketsOf(latency, (labels) => received(labels) === workload.name);
    return {
      ...workload,
      successRate: total === 0 ? null : (successes.get(workload.name) ?? 0) / total,
      requestsPerSecond: total === 0 ? null : total / window.seconds,
      p50Ms: histogramQuantile(buckets, 0.5),
      p95Ms: histogramQuantile(buckets, 0.95),
      p99Ms: histogramQuantile(buckets, 0.99),
      tcpConnections: workload.meshed > 0 ? (connections.get(workload.name) ?? 0) : null,
    };
  });
}
