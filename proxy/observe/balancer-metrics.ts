// `outbound_{http,tcp,tls}_balancer_*`: what a balancer chooses from, how long requests wait for it, and when it went to
// fail-fast and back.

import { joinLabels, renderLabels } from './exposition.ts';
import type { BalancerRecorder, BalancerUpdate } from './recorder.ts';
import type { Registry } from './registry.ts';

const UPDATES: readonly BalancerUpdate[] = ['Reset', 'Add', 'Remove'];

/** `labels` are rendered; `wallMs` gives Unix time. */
export function balancerMetrics(
  registry: Registry,
  protocol: 'http' | 'tcp' | 'tls',
  labels: string,
  wallMs: () => number,
): BalancerRecorder {
  const series = (suffix: string, more: Record<string, string> = {}) =>
    registry.series(`outbound_${protocol}_balancer_${suffix}`, joinLabels(labels, renderLabels(more)));
  const ready = series('endpoints', { endpoint_state: 'ready' });
  const pending = series('endpoints', { endpoint_state: 'pending' });
  const all = series('p2c_endpoints');
  const updates = new Map(UPDATES.map((op) => [op, series('p2c_updates_total', { op })]));
  const [length, requests] = [series('queue_length'), series('queue_requests_total')];
  const latency = series('queue_latency_seconds');
  const gates = {
    open: { total: series('queue_gate_open_total'), time: series('queue_gate_open_time') },
    shut: { total: series('queue_gate_shut_total'), time: series('queue_gate_shut_time') },
  };
  return {
    endpoints: (readyCount, pendingCount) => {
      ready.set(readyCount);
      pending.set(pendingCount);
      all.set(readyCount + pendingCount);
    },
    update: (op) => updates.get(op)?.add(1),
    queueLength: (count) => length.set(count),
    dequeued: (waitMs) => {
      requests.add(1);
      latency.observe(waitMs / 1000);
    },
    gate: (isOpen) => {
      const { total, time } = isOpen ? gates.open : gates.shut;
      total.add(1);
      time.set(wallMs() / 1000);
    },
  };
}
