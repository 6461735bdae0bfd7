// One run of the demo on its node: DNS, mesh, pods, until somebody ends it; and what it shows meanwhile.

import { cpSync, mkdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  DEFAULT_CLUSTER_DOMAIN,
  DEFAULT_CONTROL_PLANE_NAMESPACE,
  DEFAULT_TRUST_DOMAIN,
  identityName,
} from '#api/names.ts';
import { DirectorySource } from '#kube/directory.ts';
import { ownerOf, serviceAccountOf } from '#kube/pod.ts';
import type { Pod } from '#kube/resources.ts';
import { PodStatusWriter } from '#kube/status.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { DnsServer } from './dns/server.ts';
import { ZONE_KINDS, Zone } from './dns/zone.ts';
import type { InsideOptions } from './machine/inside.ts';
import { Mesh } from './mesh.ts';
import type { Workload } from './report/edges.ts';
import type { WorkloadPods } from './report/workloads.ts';
import { PodNetwork } from './runner/cni.ts';
import { containerPath } from './runner/container.ts';
import { NodeRunner } from './runner/node.ts';
import type { PodRunner } from './runner/pod.ts';

const SUBNET = '10.42.0.0/24';
const GATEWAY = '10.42.0.1';
const DNS_PORT = 53;
const PODS_READY_TIMEOUT_MS = 90_000;
const POLL_MS = 100;

export interface SessionOptions {
  inside: InsideOptions;
  /** Where cgroup2 is; null where there is none. */
  cgroup2: string | null;
  log: Log;
  /** Says what is being done. */
  progress: (text: string) => void;
}

export class Session {
  readonly #options: SessionOptions;
  readonly #stop = new AbortController();
  readonly #dns: DnsServer;
  readonly #zone = new Zone(DEFAULT_CLUSTER_DOMAIN);
  readonly #mesh: Mesh;
  readonly #node: NodeRunner;
  readonly #source: DirectorySource;
  /** Processes of the mesh that ended by themselves. */
  readonly losses: string[] = [];

  constructor(options: SessionOptions) {
    this.#options = options;
    const { inside, cgroup2, log } = options;
    const nodeName = os.hostname().toLowerCase();
    const manifests = path.join(inside.runDir, 'manifests');
    cpSync(inside.manifests, manifests, { recursive: true });
    this.#source = new DirectorySource({ directory: manifests, log });
    this.#dns = new DnsServer({ zone: this.#zone, log });
    const podsCgroup = cgroup2 === null ? null : path.join(cgroup2, 'pods');
    if (podsCgroup !== null) mkdirSync(podsCgroup);
    this.#mesh = new Mesh({
      root: inside.root,
      runDir: inside.runDir,
      manifests,
      nodeName,
      redirect: inside.redirect,
      log,
      onLoss: (error) => {
        this.losses.push(error.message);
      },
    });
    this.#node = new NodeRunner({
      nodeName,
      network: new PodNetwork({
        stateDir: path.join(inside.runDir, 'cni'),
        binDirs: ['build/cni-reference/bin', 'build/cni'].map((directory) => path.join(inside.root, directory)),
        cnitool: path.join(inside.root, 'build/cni-reference/bin/cnitool'),
        subnet: SUBNET,
        gateway: GATEWAY,
        heddle: { runDir: this.#mesh.agentRunDir, controlPlaneNamespace: DEFAULT_CONTROL_PLANE_NAMESPACE },
      }),
      status: new PodStatusWriter(manifests),
      stateDir: path.join(inside.runDir, 'pods'),
      cgroupDir: podsCgroup,
      resolvConf,
      programs: path.join(inside.root, 'demo/app'),
      path: containerPath(inside.root),
      log,
    });
  }

  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /** Ends `start` and whatever waits on `signal`. */
  abort(): void {
    this.#stop.abort();
  }

  /** Resolves when every pod is ready. Throws `not-ready` with what keeps those that are not. */
  async start(): Promise<void> {
    const { progress } = this.#options;
    await this.#dns.listen('0.0.0.0', DNS_PORT);
    await this.#source.start(ZONE_KINDS, this.#zone, this.signal);
    progress('starting identity, destination and agent');
    await this.#mesh.start(this.signal);
    progress('starting pods');
    await this.#source.start(['Pod'], this.#node, this.signal);
    await this.#waitForPods();
  }

  /** Pods, then mesh, then the rest. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#node.close();
    await this.#mesh.stop();
    this.#dns.close();
  }

  get pods(): readonly PodRunner[] {
    return this.#node.pods;
  }

  /** Workloads by name, with the identity that their pods have. */
  workloads(): Workload[] {
    const found = this.pods.map(({ pod }) => ({ name: workloadName(pod), identity: identityOf(pod) }));
    return [...new Map(found.map((workload) => [workload.name, workload])).values()];
  }

  /** Workloads with how many pods they have, and how many of them `isMeshed` says are meshed. */
  workloadPods(isMeshed: (pod: PodRunner) => boolean): WorkloadPods[] {
    const rows = new Map<string, WorkloadPods>();
    for (const runner of this.pods) {
      const name = workloadName(runner.pod);
      const row = rows.get(name) ?? { name, pods: 0, meshed: 0 };
      row.pods++;
      if (isMeshed(runner)) row.meshed++;
      rows.set(name, row);
    }
    return [...rows.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async #waitForPods(): Promise<void> {
    const untilMs = performance.now() + PODS_READY_TIMEOUT_MS;
    let ready = -1;
    while (!this.signal.aborted) {
      const waiting = this.pods.filter((pod) => !pod.isReady);
      const count = this.pods.length - waiting.length;
      if (count !== ready) this.#options.progress(`${count} of ${this.pods.length} pods ready`);
      ready = count;
      if (waiting.length === 0 && this.pods.length > 0) return;
      if (performance.now() > untilMs || this.losses.length > 0) {
        const troubles = waiting.map((pod) => `\n  ${pod.name}: ${pod.trouble}`).join('');
        const losses = this.losses.map((loss) => `\n  ${loss}`).join('');
        throw new HeddleError('not-ready', `start the pods: expected all of them to be ready${losses}${troubles}`);
      }
      await delay(POLL_MS);
    }
  }
}

function workloadName(pod: Pod): string {
  return `${pod.metadata.namespace ?? 'default'}/${ownerOf(pod)?.name ?? pod.metadata.name}`;
}

function identityOf(pod: Pod): string {
  return identityName({
    serviceAccount: serviceAccountOf(pod),
    namespace: pod.metadata.namespace ?? 'default',
    controlPlaneNamespace: DEFAULT_CONTROL_PLANE_NAMESPACE,
    trustDomain: DEFAULT_TRUST_DOMAIN,
  });
}

/** As the kubelet writes it for dnsPolicy ClusterFirst. */
function resolvConf({ metadata: { namespace = 'default' } }: Pod): string {
  const domain = DEFAULT_CLUSTER_DOMAIN;
  const search = [`${namespace}.svc.${domain}`, `svc.${domain}`, domain].join(' ');
  return `search ${search}\nnameserver ${GATEWAY}\noptions ndots:5 timeout:2\n`;
}
