// A worker: one pod's proxy in node mode. Its life: connect with the agent, take a configuration, get a certificate,
// accept, and at the end drain. Nothing is accepted before the first certificate, so no connection is ever served in
// clear that should not be; what arrives earlier waits in the backlog.

import type { WorkerConfig } from '#api/worker-config.ts';
import { LINK_VERSION, type LinkDrain, type LinkState, type ListenerName, WorkerExit } from '#api/worker-link.ts';
import type { Clock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Log, LogLevel } from '#lib/log.ts';
import { Canaries, isCanary } from './canary.ts';
import { type ProcessConfig, parseWorkerConfig } from './config.ts';
import { AgentLink } from './control/agent-link.ts';
import { Identity } from './control/identity.ts';
import { Drain } from './drain.ts';
import { Inbound } from './inbound/inbound.ts';
import type { Target } from './inbound/labels.ts';
import type { AcceptedSocket } from './io/listen.ts';
import { selfTestHandles } from './io/stream-handle.ts';
import { createTlsContext, type TlsContext, type TlsMaterial } from './io/tls.ts';
import { Listeners } from './listeners.ts';
import { LiveConnections } from './live-connections.ts';
import { Metrics } from './observe/metrics.ts';
import { addProcessMetrics } from './observe/process-metrics.ts';
import { createOutbound, type Outbound } from './stack.ts';

export interface WorkerOptions {
  process: ProcessConfig;
  clock: Clock;
  log: Log;
  setLogLevel(level: LogLevel): void;
  /** Fields that every later log line carries. */
  setLogFields(fields: Record<string, string>): void;
  random: () => number;
  listeners: Readonly<Record<ListenerName, number>>;
  controlFd: number;
  /** Where a connection went before it was redirected; null when it was not, or nobody knows. */
  originalDestination(name: ListenerName, connection: AcceptedSocket): Target | null;
  /** Ends the process. */
  exit(status: number): void;
}

const STATES = ['starting', 'ready', 'draining'] as const;

export class Worker {
  readonly #options: WorkerOptions;
  readonly #listeners: Listeners;
  readonly #live = new LiveConnections();
  readonly #metrics: Metrics;
  readonly #link: AgentLink;
  readonly #drain: Drain;
  readonly #canaries: Canaries;
  #config: WorkerConfig | null = null;
  #identity: Identity | null = null;
  #tls: TlsContext | null = null;
  #inbound: Inbound | null = null;
  #outbound: Outbound | null = null;

  /** Throws `listener-missing`. */
  constructor(options: WorkerOptions) {
    this.#options = options;
    const { clock, log, process: own } = options;
    this.#listeners = new Listeners(options.listeners);
    this.#metrics = new Metrics(clock);
    this.#canaries = new Canaries(clock);
    this.#drain = new Drain({
      clock,
      log,
      live: this.#live,
      stopAccepting: () => {
        this.#listeners.close();
        this.#link.sendState();
      },
      finish: () => options.exit(WorkerExit.drained),
    });
    const startedMs = clock.wallMs();
    const linkErrors = this.#metrics.gauge('heddle_worker_link_errors_total');
    this.#link = new AgentLink({
      hello: {
        linkVersion: LINK_VERSION,
        workerVersion: own.workerVersion,
        pid: process.pid,
        podUid: own.podUid,
        startedMs,
      },
      state: () => this.state,
      onConfig: (json) => this.#configure(parseWorkerConfig(json)),
      onDrain: (drain) => this.#drain.begin(drain),
      onCanary: (token, seen) => this.#canaries.expect(token, seen),
      scrape: () => this.#metrics.scrape(),
      listeners: () => this.#listeners.handOver(),
      onConnected: () => this.#identity?.retryNow(),
      onLinkError: () => linkErrors.add(1),
      clock,
      log,
    });
    addProcessMetrics(this.#metrics, clock, log, { version: own.workerVersion, startedMs });
    this.#addWorkerMetrics();
  }

  /** Lets agents connect; everything else follows from what they say. */
  start(): void {
    this.#link.listen(this.#options.controlFd);
    void selfTestHandles().then((isGood) => {
      if (!isGood) this.#options.log.warn('sockets are slower than they could be: this Node is not the one expected');
    });
  }

  /** What the agent is told. */
  get state(): LinkState {
    const isReady = this.#listeners.isAccepting;
    const state = this.#drain.hasBegun ? 'draining' : isReady ? 'ready' : 'starting';
    return {
      state,
      reason: state === 'starting' ? this.#whyNotReady() : '',
      connections: this.#live.count,
      certificateExpires: Math.floor((this.#identity?.expiresMs ?? 0) / 1000),
    };
  }

  /** By a signal: the pod is going. The second time nothing is waited for. */
  terminate(): void {
    const graceMs = this.#drain.hasBegun ? 0 : (this.#config?.drainGraceMs ?? 0);
    this.#drain.begin({ graceMs, reason: 'shutdown' } satisfies LinkDrain);
  }

  #whyNotReady(): string {
    if (!this.#config) return 'no configuration yet';
    return this.#identity?.lastFailure || 'no certificate yet';
  }

  #configure(config: WorkerConfig): void {
    const { log, setLogLevel, setLogFields } = this.#options;
    const isFirst = this.#config === null;
    // First what can be refused: a configuration takes effect as a whole or not at all.
    this.#configureIdentity(config);
    this.#config = config;
    setLogLevel(config.logLevel);
    setLogFields({ pod: `${config.pod.namespace}/${config.pod.name}` });
    this.#metrics.setPodLabels(config.metricLabels);
    if (this.#inbound) this.#inbound.configure(config);
    else this.#inbound = this.#createInbound(config);
    this.#outbound ??= this.#createOutbound();
    log.info(isFirst ? 'configured' : 'configuration changed', { node: config.pod.node, ips: config.pod.ips });
    this.#acceptWhenReady();
  }

  #configureIdentity(config: WorkerConfig): void {
    if (!config.identity) {
      this.#identity?.close();
      this.#identity = null;
      this.#tls = null;
      return;
    }
    const { name, trustAnchorsPem } = config.identity;
    if (this.#identity) {
      this.#identity.configure(name, trustAnchorsPem);
      return;
    }
    const identity = this.#createIdentity();
    identity.configure(name, trustAnchorsPem);
    this.#identity = identity;
  }

  #createIdentity(): Identity {
    const { clock, log, random } = this.#options;
    const prefix = 'control_identity_cert';
    return new Identity({
      certify: (request, timeoutMs) => this.#link.certify(request, timeoutMs),
      apply: (material) => this.#applyMaterial(material),
      onCertificate: () => {
        this.#acceptWhenReady();
        this.#link.sendState();
      },
      metrics: {
        expiration: this.#metrics.gauge(`${prefix}_expiration_timestamp_seconds`),
        refreshed: this.#metrics.gauge(`${prefix}_refresh_timestamp_seconds`),
        succeeded: this.#metrics.gauge(`${prefix}_refreshes_total`, { result: 'ok' }),
        failed: this.#metrics.gauge(`${prefix}_refreshes_total`, { result: 'error' }),
      },
      clock,
      log,
      random,
    });
  }

  #applyMaterial(material: TlsMaterial): void {
    if (this.#tls) this.#tls.update(material);
    else this.#tls = createTlsContext(material);
  }

  #createInbound(config: WorkerConfig): Inbound {
    const { clock, log, random } = this.#options;
    return new Inbound(config, {
      clock,
      log,
      random,
      metrics: this.#metrics,
      live: this.#live,
      transport: this.#link,
      identity: () => (this.#identity && this.#tls ? { name: this.#identity.name, tls: this.#tls } : null),
    });
  }

  #createOutbound(): Outbound {
    const { clock, log, random } = this.#options;
    return createOutbound({
      clock,
      log,
      random,
      recorder: this.#metrics,
      transport: this.#link,
      live: this.#live,
      config: () => this.#config!,
      tls: () => this.#tls,
    });
  }

  /** Accepts as soon as there is a configuration, and a certificate for a pod that has an identity. */
  #acceptWhenReady(): void {
    if (!this.#config || this.#drain.hasBegun || this.#listeners.isAccepting) return;
    if (this.#identity && this.#identity.expiresMs === 0) return;
    const { log } = this.#options;
    this.#listeners.accept(
      (name, connection) => this.#accept(name, connection),
      (error) => log.error('cannot accept connections any more', { error }),
    );
    const { user, system } = process.cpuUsage();
    log.info('ready', { sinceStartMs: Math.round(performance.now()), cpuMs: Math.round((user + system) / 1000) });
    this.#link.sendState();
  }

  #accept(name: ListenerName, connection: AcceptedSocket): void {
    const target = this.#options.originalDestination(name, connection);
    if (!target) {
      this.#options.log.warn('connection refused: it was not redirected', { listener: name });
      connection.reset(new HeddleError('not-redirected', `accept on "${name}": expected a redirected connection`));
      return;
    }
    const isInbound = name === 'inbound4' || name === 'inbound6';
    if (!isInbound && isCanary(target)) {
      void this.#canaries.accept(connection);
      return;
    }
    const half = isInbound ? this.#inbound : this.#outbound;
    const release = this.#live.hold({ cut: (error) => connection.reset(error) });
    void half!.accept(connection, target).finally(release);
  }

  #addWorkerMetrics(): void {
    const metrics = this.#metrics;
    const disconnected = metrics.gauge('heddle_worker_agent_disconnected_seconds');
    const watches = metrics.gauge('heddle_worker_watches');
    const stale = metrics.gauge('heddle_worker_watch_stale_seconds');
    const full = metrics.gauge('heddle_worker_connections_refused_total', { reason: 'too many' });
    const states = STATES.map((name) => ({
      name,
      series: metrics.gauge('heddle_worker_state', { worker_state: name }),
    }));
    metrics.onScrape(() => {
      disconnected.set(this.#link.disconnectedSeconds);
      watches.set(this.#link.watches);
      stale.set(this.#link.staleSeconds);
      full.set(this.#listeners.refused);
      const { state } = this.state;
      for (const { name, series } of states) series.set(name === state ? 1 : 0);
    });
  }
}
