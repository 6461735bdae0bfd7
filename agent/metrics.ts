// The agent's own metrics: what it answered the CNI plugin, the state of its pods, their workers, certificates, the
// relay, redirection. Gauges are read from the parts when somebody scrapes; counters are counted as things happen.

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { type Status, statusName } from '#lib/grpc/status.ts';
import type { InstallState } from './cni/install.ts';
import type { Enrolment } from './enrolment.ts';
import type { ReconcileEvents } from './reconcile.ts';
import { DRIFT_KINDS, type DriftKind } from './redirect/redirector.ts';
import type { RelayStats } from './relay/relay.ts';
import type { ScrapeResult } from './scrape.ts';
import { processStatus } from './worker/process-table.ts';

export interface MetricsSources {
  enrolments: () => readonly Enrolment[];
  relay: () => readonly RelayStats[];
  /** Null where the agent does not install the CNI plugin. */
  installation: (() => InstallState) | null;
  /** Totals of the redirection programs by outcome. */
  redirection: () => Record<string, bigint>;
}

const DURATION_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

export class AgentMetrics implements ReconcileEvents {
  readonly #registry = new Registry();
  readonly #cniRequests;
  readonly #cniDuration;
  readonly #enrollSeconds;
  readonly #drifts;
  readonly #canaries;
  readonly #certificates;
  readonly #scrapeErrors;
  readonly #series;
  readonly #seriesDropped;

  constructor(sources: MetricsSources) {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    this.#cniRequests = new Counter({
      name: 'heddle_cni_requests_total',
      help: 'Requests of the CNI plugin by verb and answer code.',
      labelNames: ['op', 'code'] as const,
      registers,
    });
    this.#cniDuration = new Histogram({
      name: 'heddle_cni_request_duration_seconds',
      help: 'Time to answer the CNI plugin.',
      labelNames: ['op'] as const,
      buckets: DURATION_BUCKETS,
      registers,
    });
    this.#enrollSeconds = new Histogram({
      name: 'heddle_pod_enroll_seconds',
      help: 'Time until a pod is meshed: listeners, worker ready, redirection.',
      buckets: DURATION_BUCKETS,
      registers,
    });
    this.#drifts = new Counter({
      name: 'heddle_pod_drift_total',
      help: 'Times a meshed pod was found not as it should be, by what differed.',
      labelNames: ['kind'] as const,
      registers,
    });
    for (const kind of DRIFT_KINDS) this.#drifts.inc({ kind }, 0);
    this.#canaries = new Counter({
      name: 'heddle_pod_canaries_total',
      help: 'Connections made inside pods to see that they reach the worker; skipped where none could tell.',
      labelNames: ['result'] as const,
      registers,
    });
    this.#certificates = new Counter({
      name: 'heddle_identity_requests_total',
      help: 'Certificate requests relayed for workers, by the status of the identity service.',
      labelNames: ['status'] as const,
      registers,
    });
    this.#scrapeErrors = new Counter({
      name: 'heddle_worker_scrape_errors_total',
      help: 'Workers that gave no metrics, or not all, to a scrape of the node.',
      registers,
    });
    this.#series = new Gauge({
      name: 'heddle_metrics_series',
      help: "Series of the pod's worker in the last scrape of it.",
      labelNames: ['namespace', 'pod'] as const,
      registers,
    });
    this.#seriesDropped = new Counter({
      name: 'heddle_metrics_series_dropped_total',
      help: 'Series that a scrape left out because their pod, or the node, has too many; the log names the pod.',
      registers,
    });
    podGauges(this.#registry, sources);
    workerGauges(this.#registry, sources);
    nodeGauges(this.#registry, sources);
    if (sources.installation) installationMetrics(this.#registry, sources.installation);
  }

  cniDone({ op, code, durationMs }: { op: string | null; code: number; durationMs: number }): void {
    this.#cniRequests.inc({ op: op ?? 'none', code: String(code) });
    if (op !== null) this.#cniDuration.observe({ op }, durationMs / 1000);
  }

  enrolled(milliseconds: number): void {
    this.#enrollSeconds.observe(milliseconds / 1000);
  }

  drifted(kind: DriftKind): void {
    this.#drifts.inc({ kind });
  }

  canary(result: 'ok' | 'skipped' | 'failed'): void {
    this.#canaries.inc({ result });
  }

  certified(status: Status): void {
    this.#certificates.inc({ status: statusName(status) });
  }

  /** A scrape of the workers: how many gave no answer or half of one, and what the others had. */
  scraped(failed: number, series: ScrapeResult['series']): void {
    this.#scrapeErrors.inc(failed);
    for (const { dropped } of series) this.#seriesDropped.inc(dropped);
    // A scrape of one pod tells nothing of the others.
    if (series.length > 1) this.#series.reset();
    for (const { pod: name, taken } of series) {
      const [namespace = '', pod = ''] = name.split('/');
      this.#series.set({ namespace, pod }, taken);
    }
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }
}

/** A meshed pod whose worker is not ready counts as pending: its traffic waits. */
function stateOf(enrolment: Enrolment): 'meshed' | 'pending' | 'drift' | 'unmeshed' {
  if (enrolment.sandbox.slot === null) return 'unmeshed';
  if (enrolment.drifts.length > 0) return 'drift';
  return enrolment.isAttached && enrolment.worker?.state === 'ready' ? 'meshed' : 'pending';
}

function podGauges(registry: Registry, sources: MetricsSources): void {
  new Gauge({
    name: 'heddle_pods',
    help: 'Sandboxes on this node by state.',
    labelNames: ['state'] as const,
    registers: [registry],
    collect() {
      const counts = { meshed: 0, pending: 0, drift: 0, unmeshed: 0 };
      for (const enrolment of sources.enrolments()) counts[stateOf(enrolment)]++;
      for (const [state, count] of Object.entries(counts)) this.set({ state }, count);
    },
  });
  new Gauge({
    name: 'heddle_pod_annotation_problems',
    help: 'Annotations that could not be read; the pod has the default.',
    labelNames: ['namespace', 'pod'] as const,
    registers: [registry],
    collect() {
      this.reset();
      for (const { sandbox, problems } of sources.enrolments()) {
        if (problems.length > 0) this.set({ namespace: sandbox.pod.namespace, pod: sandbox.pod.name }, problems.length);
      }
    },
  });
}

type PodLabels = { namespace: string; pod: string };

function workerGauges(registry: Registry, { enrolments }: MetricsSources): void {
  const gauge = (
    name: string,
    help: string,
    read: (worker: NonNullable<Enrolment['worker']>) => number | null,
  ): void => {
    new Gauge({
      name,
      help,
      labelNames: ['namespace', 'pod'] as const,
      registers: [registry],
      collect() {
        this.reset();
        for (const { sandbox, worker } of enrolments()) {
          const value = worker ? read(worker) : null;
          const labels: PodLabels = { namespace: sandbox.pod.namespace, pod: sandbox.pod.name };
          if (value !== null) this.set(labels, value);
        }
      },
    });
  };
  gauge('heddle_worker_up', 'Whether the worker of the pod is ready.', (worker) => (worker.state === 'ready' ? 1 : 0));
  gauge('heddle_worker_restarts', 'Deaths of workers of the pod since the agent started.', (worker) => worker.restarts);
  gauge('heddle_worker_generation', 'How many workers the pod has had.', (worker) => worker.generation);
  gauge('heddle_worker_rss_bytes', 'Resident memory of the current worker.', (worker) =>
    worker.current ? (processStatus(worker.current.pid)?.residentBytes ?? null) : null,
  );
  gauge('heddle_drain_connections', 'Connections of workers of the pod that were replaced.', (worker) =>
    worker
      .processes()
      .filter((process) => process !== worker.current)
      .reduce((sum, process) => sum + (process.state?.connections ?? 0), 0),
  );
  gauge('heddle_identity_expires_in_seconds', "Life left of the worker's certificate.", (worker) => {
    const expires = worker.current?.state?.certificateExpires ?? 0;
    return expires === 0 ? null : expires - Date.now() / 1000;
  });
}

function nodeGauges(registry: Registry, sources: MetricsSources): void {
  new Gauge({
    name: 'heddle_relay_targets',
    help: 'Watches on the control plane by kind; stale ones have an answer but no stream, empty ones have no answer.',
    labelNames: ['kind', 'state'] as const,
    registers: [registry],
    collect() {
      for (const { kind, targets, fresh, stale } of sources.relay()) {
        this.set({ kind, state: 'fresh' }, fresh);
        this.set({ kind, state: 'stale' }, stale);
        this.set({ kind, state: 'empty' }, targets - fresh - stale);
      }
    },
  });
  new Gauge({
    name: 'heddle_relay_subscribers',
    help: 'Watches of workers that the relay feeds, by kind.',
    labelNames: ['kind'] as const,
    registers: [registry],
    collect() {
      for (const { kind, subscribers } of sources.relay()) this.set({ kind }, subscribers);
    },
  });
  new Counter({
    name: 'heddle_redirect_outcomes_total',
    help: 'What the redirection programs did with connections, since they were loaded.',
    labelNames: ['outcome'] as const,
    registers: [registry],
    collect() {
      this.reset();
      for (const [outcome, total] of Object.entries(sources.redirection())) this.inc({ outcome }, Number(total));
    },
  });
}

function installationMetrics(registry: Registry, state: () => InstallState): void {
  const registers = [registry];
  new Gauge({
    name: 'heddle_cni_installed',
    help: "Whether the CNI plugin is in the chain of the runtime's network, and its executable is the agent's own.",
    labelNames: ['mode'] as const,
    registers,
    collect() {
      this.reset();
      const { mode, isInstalled } = state();
      this.set({ mode }, isInstalled ? 1 : 0);
    },
  });
  new Gauge({
    name: 'heddle_cni_binary_sha_match',
    help: "Whether the plugin's executable on the node is the agent's own.",
    registers,
    collect() {
      this.set(state().binaryMatches ? 1 : 0);
    },
  });
  new Gauge({
    name: 'heddle_cni_war',
    help: 'Whether repairs of the CNI configuration are delayed because somebody undoes them again and again.',
    registers,
    collect() {
      this.set(state().isWar ? 1 : 0);
    },
  });
  new Counter({
    name: 'heddle_cni_conflist_rewrites_total',
    help: 'Times that others undid the installation, by who did.',
    labelNames: ['by'] as const,
    registers,
    collect() {
      this.reset();
      for (const [by, total] of Object.entries(state().rewrites)) this.inc({ by }, total);
    },
  });
}
