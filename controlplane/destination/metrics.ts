// What the destination and policy services count, under Linkerd's names. Series of a target live as long as somebody
// watches it.

import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { CallLabels, CallObserver } from '#lib/grpc/service.ts';
import { statusName } from '#lib/grpc/status.ts';

export interface EndpointLabels extends Record<string, string> {
  namespace: string;
  service: string;
  port: string;
  hostname: string;
}

export interface Watch {
  close(): void;
}

export interface EndpointWatch extends Watch {
  /** How many endpoints the watch was told of. */
  observe(endpoints: number): void;
}

export interface DestinationMetrics {
  registry: Registry;
  observer: CallObserver;
  endpointWatch(labels: EndpointLabels): EndpointWatch;
  endpointUpdate(labels: EndpointLabels): void;
  endpointOverflow(service: string): void;
  profileWatch(): Watch;
  profileUpdate(): void;
  profileOverflow(kind: string, host: string, port: number): void;
  /** Problems of the manifests, read at scrape time. */
  watchProblems(count: (severity: 'error' | 'warning') => number): void;
}

const TARGET = ['namespace', 'service', 'port', 'hostname'] as const;

export function createDestinationMetrics(): DestinationMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const counter = (name: string, help: string, labelNames: readonly string[] = []) =>
    new Counter({ name, help, labelNames, registers: [registry] });
  const gauge = (name: string, help: string, labelNames: readonly string[] = []) =>
    new Gauge({ name, help, labelNames, registers: [registry] });

  const subscribers = gauge('endpoints_subscribers', 'Streams that watch the endpoints of a target.', TARGET);
  const pods = gauge('endpoints_pods', 'Endpoints of a watched target.', TARGET);
  const updates = counter('endpoints_updates', 'Updates made for the streams of a target.', TARGET);
  const overflows = counter('endpoint_updates_queue_overflow', 'Endpoint streams closed for slowness.', ['service']);
  const profiles = gauge('profile_subscribers', 'Streams that watch a profile.');
  const profileUpdates = counter('profile_updates', 'Profiles sent.');
  const profileOverflows = counter('profile_updates_queue_overflow', 'Profile streams closed for slowness.', [
    'fqn',
    'port',
  ]);
  const endpointProfileOverflows = counter(
    'endpoint_profile_updates_queue_overflow',
    'Profile streams of single endpoints closed for slowness.',
  );
  return {
    registry,
    observer: callObserver(counter),
    endpointWatch: (labels) => watchTarget(labels, { subscribers, pods, updates }),
    endpointUpdate: (labels) => updates.inc(labels),
    endpointOverflow: (service) => overflows.inc({ service }),
    profileWatch: () => {
      profiles.inc();
      return once(() => profiles.dec());
    },
    profileUpdate: () => profileUpdates.inc(),
    profileOverflow: (kind, host, port) => {
      if (kind === 'service') profileOverflows.inc({ fqn: host, port: String(port) });
      else endpointProfileOverflows.inc();
    },
    watchProblems: (count) => {
      new Gauge({
        name: 'heddle_manifest_problems',
        help: 'Faults in the manifests at present.',
        labelNames: ['severity'],
        registers: [registry],
        collect() {
          for (const severity of ['error', 'warning'] as const) this.set({ severity }, count(severity));
        },
      });
    },
  };
}

/** Streams of each target, so that its series go with the last one. */
const counts = new WeakMap<Gauge, Map<string, number>>();

function watchTarget(
  labels: EndpointLabels,
  { subscribers, pods, updates }: { subscribers: Gauge; pods: Gauge; updates: Counter },
): EndpointWatch {
  const key = TARGET.map((name) => labels[name]).join(' ');
  const live = counts.get(subscribers) ?? new Map<string, number>();
  counts.set(subscribers, live);
  live.set(key, (live.get(key) ?? 0) + 1);
  subscribers.inc(labels);
  const { close } = once(() => {
    const left = (live.get(key) ?? 1) - 1;
    if (left > 0) {
      live.set(key, left);
      subscribers.dec(labels);
      return;
    }
    live.delete(key);
    for (const metric of [subscribers, pods, updates]) metric.remove(labels);
  });
  return { close, observe: (endpoints) => pods.set(labels, endpoints) };
}

function callObserver(counter: (name: string, help: string, labelNames: readonly string[]) => Counter): CallObserver {
  const names = ['grpc_service', 'grpc_method', 'grpc_type'];
  const started = counter('grpc_server_started_total', 'Calls started.', names);
  const handled = counter('grpc_server_handled_total', 'Calls ended, by status.', [...names, 'grpc_code']);
  const received = counter('grpc_server_msg_received_total', 'Messages received.', names);
  const sent = counter('grpc_server_msg_sent_total', 'Messages sent.', names);
  const labelsOf = ({ service, method, type }: CallLabels) => ({
    grpc_service: service,
    grpc_method: method,
    grpc_type: type,
  });
  return {
    started: (labels) => started.inc(labelsOf(labels)),
    received: (labels) => received.inc(labelsOf(labels)),
    sent: (labels) => sent.inc(labelsOf(labels)),
    handled: (labels, status) => handled.inc({ ...labelsOf(labels), grpc_code: statusName(status) }),
  };
}

function once(run: () => void): Watch {
  let isDone = false;
  return {
    close: () => {
      if (isDone) return;
      isDone = true;
      run();
    },
  };
}
