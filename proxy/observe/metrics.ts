// The worker's metrics: the recorder that the layers report to, and the text that the agent asks for.

import type { Clock } from '#lib/clock.ts';
import { balancerMetrics } from './balancer-metrics.ts';
import { expose, joinLabels, renderLabels } from './exposition.ts';
import { FAMILIES } from './families.ts';
import { backendMetrics, httpMetrics, inboundRouteMetrics, outboundRouteMetrics } from './http-metrics.ts';
import type { Direction, Labels, ProfileRouteRecorder, Recorder } from './recorder.ts';
import { Registry, type RegistryLimits, type Series } from './registry.ts';
import { TransportMetrics } from './transport-metrics.ts';

const SWEEP_INTERVAL_MS = 60_000;

const REQUEST_FAMILIES = { request: 'request_total', response: 'response_total', latency: 'response_latency_ms' };
const ROUTE_FAMILIES = {
  request: 'route_request_total',
  response: 'route_response_total',
  latency: 'route_response_latency_ms',
};
const ATTEMPT_FAMILIES = {
  request: 'route_actual_request_total',
  response: 'route_actual_response_total',
  latency: null,
};

/** A counter's handle, for what has no recorder of its own. */
export interface Counter {
  add(amount: number): void;
}

/** Everything that is counted in this worker. */
export class Metrics implements Recorder {
  readonly #registry: Registry;
  readonly #clock: Clock;
  readonly #transports: TransportMetrics;
  readonly #collectors: (() => void)[] = [];
  #podLabels: Labels = {};

  constructor(clock: Clock, limits?: RegistryLimits) {
    this.#clock = clock;
    this.#registry = new Registry(FAMILIES, limits);
    this.#transports = new TransportMetrics(this.#registry);
    const series = this.gauge('heddle_worker_series');
    const overflows = this.gauge('heddle_worker_series_overflows_total');
    this.#collectors.push(() => {
      series.set(this.#registry.seriesCount);
      overflows.set(this.#registry.overflows);
    });
    this.#scheduleSweep();
  }

  /** Connections that are open now, of both directions and both sides. */
  get openConnections(): number {
    return this.#transports.openConnections;
  }

  /** The labels of the pod, put on every series from the next scrape on. */
  setPodLabels(labels: Labels): void {
    this.#podLabels = labels;
  }

  /** A series that exists as long as the worker; collectors set it. */
  gauge(family: string, labels: Labels = {}): Series {
    return this.#registry.series(family, renderLabels(labels)).pin();
  }

  counter(family: string, labels: Labels): Counter {
    return this.#registry.series(family, renderLabels(labels));
  }

  /** Calls `collect` before each scrape. */
  onScrape(collect: () => void): void {
    this.#collectors.push(collect);
  }

  /** The text of all series in pieces of about 32 KiB. Values may move on between two pieces. */
  *scrape(): Generator<string, void, void> {
    this.#transports.settle();
    for (const collect of this.#collectors) collect();
    yield* expose(this.#registry, this.#podLabels);
  }

  http(direction: Direction, labels: Labels) {
    return httpMetrics(this.#registry, REQUEST_FAMILIES, render(direction, labels));
  }

  profileRoute(direction: Direction, labels: Labels): ProfileRouteRecorder {
    const rendered = render(direction, labels);
    const retryable = this.#registry.series('route_retryable_total', rendered);
    const skipped = this.#registry.series(
      'route_retryable_total',
      joinLabels(rendered, renderLabels({ skipped: 'no_budget' })),
    );
    return {
      effective: httpMetrics(this.#registry, ROUTE_FAMILIES, rendered),
      actual: httpMetrics(this.#registry, ATTEMPT_FAMILIES, rendered),
      retryable: (isBudgetSpent) => (isBudgetSpent ? skipped : retryable).add(1),
    };
  }

  route(direction: Direction, protocol: 'http' | 'grpc', labels: Labels) {
    const make = direction === 'inbound' ? inboundRouteMetrics : outboundRouteMetrics;
    return make(this.#registry, protocol, renderLabels(labels));
  }

  backend(protocol: 'http' | 'grpc', labels: Labels) {
    return backendMetrics(this.#registry, protocol, renderLabels(labels));
  }

  balancer(protocol: 'http' | 'tcp' | 'tls', labels: Labels) {
    return balancerMetrics(this.#registry, protocol, renderLabels(labels), () => this.#clock.wallMs());
  }

  transport(direction: Direction, peer: 'src' | 'dst', labels: Labels) {
    return this.#transports.recorder(renderLabels({ direction, peer, ...labels }));
  }

  httpError(direction: Direction, error: string, labels: Labels): void {
    this.counter(`${direction}_http_errors_total`, { ...labels, error }).add(1);
  }

  tcpError(direction: Direction, error: string, labels: Labels): void {
    this.counter(`${direction}_tcp_errors_total`, { ...labels, error }).add(1);
  }

  detected(direction: Direction, result: string, durationMs: number, labels: Labels): void {
    const name = `${direction}_tcp_detect_http`;
    this.counter(`${name}_results_total`, { ...labels, result }).add(1);
    this.#registry.series(`${name}_duration_seconds`, renderLabels(labels)).observe(durationMs / 1000);
  }

  #scheduleSweep(): void {
    this.#clock.after(SWEEP_INTERVAL_MS, () => {
      this.#registry.sweep(this.#clock.nowMs());
      this.#scheduleSweep();
    });
  }
}

function render(direction: Direction, labels: Labels): string {
  return renderLabels({ direction, ...labels });
}
