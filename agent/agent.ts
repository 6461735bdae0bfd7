// The agent put together: what starts in which order, what it says of its health, and how it ends. Ending leaves
// workers, links and files as they are; the next agent takes them over. Only `uninstall` takes anything away.

import { mkdirSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import path from 'node:path';
import { openSource } from '#kube/open.ts';
import type { Clock } from '#lib/clock.ts';
import type { ListenAddress } from '#lib/grpc/server.ts';
import { releaseIdleMemory } from '#lib/idle-memory.ts';
import type { Log } from '#lib/log.ts';
import { AdminServer } from './admin.ts';
import { chooseRedirector, uninstallRedirection } from './choose-redirector.ts';
import { CniInstaller } from './cni/install.ts';
import { markReady } from './cni/run-dir.ts';
import { type CniServer, startCniServer } from './cni/server.ts';
import { uninstallCni } from './cni/uninstall.ts';
import { type CniConfig, installerOptions } from './cni-options.ts';
import { CniRequests } from './cni-requests.ts';
import type { AgentConfig } from './config.ts';
import { describePods } from './describe-pods.ts';
import { AgentMetrics } from './metrics.ts';
import { POD_CACHE_KINDS, PodCache } from './pods.ts';
import { Reconciler } from './reconcile.ts';
import { findCgroupRoot } from './redirect/cgroup-root.ts';
import type { Redirector } from './redirect/redirector.ts';
import { ControlPlane } from './relay/control-plane.ts';
import { Relay } from './relay/relay.ts';
import { RelaySession } from './relay/session.ts';
import { SandboxStore } from './sandboxes.ts';
import { ScrapeGate, type ScrapeTarget, scrapeWorkers, sendPieces } from './scrape.ts';
import { TrustAnchors } from './trust-anchors.ts';
import { findHierarchies, WorkerCgroups } from './worker/cgroup.ts';
import { purgeWorkers, type WorkerServices } from './worker/pod-host.ts';
import { removeUnusedRuntimes, stageRuntime, type WorkerRuntime } from './worker/runtime.ts';
import { limitProcess } from './worker/spawn.ts';
import type { MeshSettings } from './worker-config.ts';

export interface AgentOptions {
  config: AgentConfig;
  /** Directory of Heddle's package.json. */
  sourceRoot: string;
  /** Variables that tell a process in a pod where the API server is. */
  environment: (name: string) => string | undefined;
  clock: Clock;
  log: Log;
}

/** Where the agent answers on the node itself, `/debug` included. */
export const ADMIN_SOCKET = 'admin.sock';
const RUNTIME_SWEEP_MS = 60_000;

export class Agent {
  readonly #options: AgentOptions;
  readonly #log: Log;
  readonly #config: AgentConfig;
  readonly #stop = new AbortController();
  readonly #scrapes = new ScrapeGate();
  readonly #pods: PodCache;
  readonly #anchors: TrustAnchors;
  readonly #controlPlane: ControlPlane;
  readonly #relay: Relay;
  readonly #redirector: Redirector;
  readonly #metrics: AgentMetrics;
  readonly #reconciler: Reconciler;
  readonly #admin: AdminServer;
  readonly #installer: CniInstaller | null;
  #cni: CniServer | null = null;
  #notReady: string | null = 'the agent is starting';

  /** Brings an agent up. Resolves when it answers the CNI plugin. Throws when it cannot serve this node at all. */
  static async start(options: AgentOptions): Promise<Agent> {
    const { config, log, sourceRoot } = options;
    limitProcess();
    mkdirSync(config.runDir, { recursive: true, mode: 0o700 });
    const runtime = await stageRuntime({ stateDir: config.stateDir, sourceRoot, log });
    const agent = new Agent(options, runtime);
    await agent.#start(runtime);
    return agent;
  }

  private constructor(options: AgentOptions, runtime: WorkerRuntime) {
    const { config, clock, log } = options;
    this.#options = options;
    this.#config = config;
    this.#log = log;
    this.#anchors = new TrustAnchors({ file: config.trustAnchors, clock, log });
    this.#pods = new PodCache({ nodeName: config.nodeName, clock });
    this.#controlPlane = this.#connectControlPlane();
    this.#relay = new Relay({ upstream: this.#controlPlane, clock, log });
    const cgroupRoot = findCgroupRoot(path.join(config.runDir, 'cgroup2'));
    this.#redirector = chooseRedirector(config, cgroupRoot, log);
    this.#installer = config.cni && new CniInstaller({ ...installerOptions(config.cni, config), clock, log });
    this.#metrics = new AgentMetrics({
      installation: this.#installer && (() => this.#installer!.state),
      enrolments: () => this.#reconciler.enrolments(),
      relay: () => this.#relay.stats(),
      redirection: () => this.#redirector.counters(),
    });
    this.#reconciler = new Reconciler({
      pods: this.#pods,
      store: new SandboxStore(config.runDir, log),
      runDir: config.runDir,
      services: {
        workers: this.#workerServices(runtime, workerCgroups(config, cgroupRoot)),
        redirector: this.#redirector,
        clock,
        log,
      },
      settings: () => this.#settings(),
      events: this.#metrics,
      clock,
      log,
    });
    this.#admin = new AdminServer({
      notReady: () => this.#notReady ?? this.#notInstalled(),
      metrics: this.#metrics,
      proxiesMetrics: (pod, response) => this.#proxiesMetrics(pod, response),
      pods: () => describePods(this.#reconciler.enrolments(), this.#redirector.kind),
      scrapeTargets: () => this.#scrapeTargets(null).map(({ pod }) => ({ pod, labels: {} })),
    });
  }

  async #start(runtime: WorkerRuntime): Promise<void> {
    const { config, clock, log, environment } = this.#options;
    const address = await this.#admin.listen(config.adminListen);
    await this.#admin.listenUnix(path.join(config.runDir, ADMIN_SOCKET));
    const source = openSource(config.source, { log, clock, environment, nodeName: config.nodeName });
    await source.start(POD_CACHE_KINDS, this.#pods, this.#stop.signal);
    await this.#reconciler.start();
    this.#anchors.onChange = () => this.#reconciler.reconcileAll();
    this.#cni = await startCniServer({
      runDir: config.runDir,
      handler: new CniRequests({
        reconciler: this.#reconciler,
        pods: this.#pods,
        log,
        notReady: () => this.#notReady,
      }),
      log,
      clock,
      onDone: (done) => this.#metrics.cniDone(done),
    });
    this.#notReady = null;
    markReady(config.runDir);
    await this.#installer?.start();
    this.#sweepRuntimes(runtime);
    releaseIdleMemory(clock);
    log.info('agent is ready', { node: config.nodeName, admin: address, redirect: this.#redirector.kind });
  }

  /** The address of the HTTP port. */
  adminAddress(): ListenAddress | null {
    return this.#admin.address;
  }

  /** Ends the agent's own work. Traffic goes on. */
  async stop(): Promise<void> {
    this.#notReady = 'the agent is stopping';
    this.#stop.abort();
    await this.#installer?.stop();
    await this.#cni?.close();
    this.#reconciler.stop();
    this.#relay.close();
    this.#controlPlane.close();
    this.#anchors.close();
    this.#admin.close();
    this.#redirector.close();
  }

  /** Pods are served all the same: those that run, and those that come by a configuration of before. */
  #notInstalled(): string | null {
    const state = this.#installer?.state;
    if (!state || state.isInstalled) return null;
    return `the CNI plugin is not installed: ${state.cause ?? 'the runtime has no network yet'}`;
  }

  #connectControlPlane(): ControlPlane {
    const { destination, policy, identity, tokenFile } = this.#config;
    const tls = (serverIdentity: string) => ({ serverIdentity, trustAnchorsPem: () => this.#anchors.pem });
    return new ControlPlane({
      destination: { address: destination.address, tls: tls(destination.identity) },
      policy: { address: policy.address, tls: tls(policy.identity) },
      identity: { address: identity.address, tls: tls(identity.identity) },
      tokenFile,
    });
  }

  #workerServices(runtime: WorkerRuntime, cgroups: WorkerCgroups): WorkerServices {
    const { clock, log } = this.#options;
    return {
      directory: path.join(this.#config.runDir, 'workers'),
      runtime,
      cgroups,
      clock,
      log,
      logLevel: this.#config.workerLogLevel,
      openSession: (link, podUid, sessionLog) =>
        new RelaySession({
          link,
          podUid,
          relay: this.#relay,
          certify: (request, uid, signal) => this.#controlPlane.certify(request, uid, signal),
          onCertified: (status) => this.#metrics.certified(status),
          clock,
          log: sessionLog,
        }),
      exempt: (worker) => this.#redirector.exempt(worker),
      unexempt: (worker) => this.#redirector.unexempt(worker),
    };
  }

  #settings(): MeshSettings {
    const { nodeName, trustDomain, clusterDomain, controlPlaneNamespace, clusterNetworks, defaultInboundPolicy } =
      this.#config;
    return {
      nodeName,
      trustDomain,
      clusterDomain,
      controlPlaneNamespace,
      clusterNetworks,
      defaultInboundPolicy,
      trustAnchorsPem: this.#anchors.pem,
    };
  }

  #scrapeTargets(pod: string | null): ScrapeTarget[] {
    return this.#reconciler.enrolments().flatMap(({ sandbox, worker }) => {
      const name = `${sandbox.pod.namespace}/${sandbox.pod.name}`;
      if (!worker || (pod !== null && pod !== name)) return [];
      const scrape: ScrapeTarget['scrape'] = async (onChunk, timeoutMs) => {
        if (worker.current) await worker.current.scrape(onChunk, timeoutMs);
      };
      return [{ pod: name, scrape }];
    });
  }

  async #proxiesMetrics(pod: string | null, response: ServerResponse): Promise<void> {
    const targets = this.#scrapeTargets(pod);
    if (pod !== null && targets.length === 0) {
      response.writeHead(404, { 'content-type': 'text/plain' });
      response.end(`no worker of pod "${pod}" on this node: expected namespace/name of a meshed pod\n`);
      return;
    }
    const isDone = await this.#scrapes.run(async () => {
      const { merge, failed, series } = await scrapeWorkers(targets, this.#log);
      this.#metrics.scraped(failed.length, series);
      response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' });
      await sendPieces(response, merge.text());
      return true;
    });
    if (isDone) return;
    response.writeHead(503, { 'content-type': 'text/plain', 'retry-after': '1' });
    response.end('too many scrapes at once: expected one or two\n');
  }

  /** Old runtimes go when their last worker is gone, which may be long after the roll-out. */
  #sweepRuntimes(runtime: WorkerRuntime): void {
    const used = new Set([runtime.version]);
    for (const { worker } of this.#reconciler.enrolments()) {
      for (const process of worker?.processes() ?? []) used.add(process.version);
    }
    const removed = removeUnusedRuntimes(this.#config.stateDir, used);
    if (removed.length > 0) this.#log.info('removed runtimes that no worker uses', { versions: removed });
    const again = this.#options.clock.after(RUNTIME_SWEEP_MS, () => this.#sweepRuntimes(runtime));
    this.#stop.signal.addEventListener('abort', () => again.cancel(), { once: true });
  }
}

function workerCgroups(config: AgentConfig, cgroupRoot: string): WorkerCgroups {
  const legacy = findHierarchies().filter(({ isUnified }) => !isUnified);
  return new WorkerCgroups({
    hierarchies: [...legacy, { mountPoint: cgroupRoot, isUnified: true, controllers: [] }],
    rootName: config.cgroupRoot,
    limits: { memoryBytes: config.workerMemoryBytes, processes: config.workerProcesses },
  });
}

/**
 * Takes the mesh off this node: first the CNI configuration, so that no pod comes that would be meshed, then redirection,
 * so that nothing is sent to a worker that ends, then the workers and what they left. The plugin's executable stays as
 * long as pods would call it when they end; false then: run it again when they are gone.
 */
export async function uninstall(config: AgentConfig, log: Log): Promise<boolean> {
  const { cni, runDir } = config;
  const isGone = cni ? await uninstallPlugin(cni, log) : true;
  const cgroupRoot = findCgroupRoot(path.join(runDir, 'cgroup2'));
  const pods = uninstallRedirection(config, cgroupRoot, log);
  const cgroups = workerCgroups(config, cgroupRoot);
  const directory = path.join(runDir, 'workers');
  const uids = [...new Set([...pods, ...cgroups.pods()])];
  await Promise.all(uids.map((podUid) => purgeWorkers(podUid, { directory, cgroups, log, unexempt: () => {} })));
  cgroups.removeRoot();
  removeUnusedRuntimes(config.stateDir, new Set());
  log.info('uninstalled', { pods: pods.length });
  return isGone;
}

async function uninstallPlugin({ confDir, binDir, cacheDir, isForced }: CniConfig, log: Log): Promise<boolean> {
  const result = await uninstallCni({ confDir, binDirs: [binDir], cacheDir, log, force: isForced });
  return result.binaryRemoved;
}
