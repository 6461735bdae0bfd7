// The inbound half of a worker, put together: policies by port, the application's ports, and what serves a connection.

import type { WorkerConfig } from '#api/worker-config.ts';
import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import type { Log } from '#lib/log.ts';
import type { WatchTransport } from '../control/watch.ts';
import { connectTcp } from '../io/connect.ts';
import type { LiveConnections } from '../live-connections.ts';
import type { Metrics } from '../observe/metrics.ts';
import { type AcceptOptions, acceptInbound } from './accept.ts';
import { Applications } from './application.ts';
import type { Target } from './labels.ts';
import { InboundMetrics } from './metrics.ts';
import { Ports } from './ports.ts';
import { InboundServer } from './serve.ts';

export interface InboundOptions {
  clock: Clock;
  log: Log;
  random: () => number;
  metrics: Metrics;
  live: LiveConnections;
  transport: WatchTransport;
  /** Null: the pod has no identity. */
  identity: AcceptOptions['identity'];
  /** connectTcp, but for tests. */
  connect?: typeof connectTcp;
}

export class Inbound {
  #config: WorkerConfig;
  readonly #ports: Ports;
  readonly #accept: AcceptOptions;

  constructor(config: WorkerConfig, options: InboundOptions) {
    this.#config = config;
    const { clock, log, random, live, transport } = options;
    const metrics = new InboundMetrics(options.metrics);
    this.#ports = new Ports(config, { transport, clock, log, random });
    const shared = {
      clock,
      log,
      metrics,
      ports: this.#ports,
      connect: options.connect ?? connectTcp,
      connectTimeoutMs: () => this.#config.inbound.connectTimeoutMs,
      detectTimeoutMs: () => this.#config.inbound.detectTimeoutMs,
    };
    const server = new InboundServer({ ...shared, random, live, applications: new Applications(shared) });
    this.#accept = {
      ...shared,
      server,
      identity: options.identity,
      proxyPort: () => this.#config.inbound.proxyPort,
      podAddresses: () => this.#config.pod.ips,
    };
  }

  /** Takes a changed configuration; connections that are open are judged by it too. */
  configure(config: WorkerConfig): void {
    this.#config = config;
    this.#ports.configure(config);
  }

  /** Serves a connection that was meant for `target`; resolves once it is known by whom. Never rejects. */
  accept(connection: Duplex, target: Target): Promise<void> {
    return acceptInbound(connection, target, this.#accept);
  }
}
