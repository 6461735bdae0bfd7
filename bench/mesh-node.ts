// One node with the real mesh on it: identity, destination and agent as processes, pods as network namespaces that join
// through the CNI plugin. Runs in namespaces of the benchmark's own, see main.ts.

import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { PodDescription } from '#agent/describe-pods.ts';
import { PodStatusWriter } from '#kube/status.ts';
import { createLog } from '#lib/log.ts';
import { AGENT_URL, Mesh } from '../demo/mesh.ts';
import { Network, type Place } from '../test/netns/support/network.ts';

const root = path.resolve(import.meta.dirname, '..');
const NODE_NAME = 'bench';
export const MESHED = 'meshed';
export const PLAIN = 'plain';
/** Workers say what their start cost at this level. */
const MESHED_ANNOTATIONS = { 'linkerd.io/inject': 'enabled', 'config.linkerd.io/proxy-log-level': 'info' };

/** The workers' cgroups are found by it when everything else is gone. `directory` is the run's own. */
export function cgroupRoot(directory: string): string {
  return path.basename(directory);
}

function podUid(namespace: string, name: string): string {
  return `uid-${namespace}-${name}`;
}

export interface BenchPod {
  namespace: string;
  name: string;
  place: Place;
  /** Milliseconds that the plugin's ADD took. */
  addMs: number;
}

export class MeshNode {
  readonly network = new Network('bench');
  readonly pods: BenchPod[] = [];
  readonly #directory: string;
  readonly #manifests: string;
  readonly #mesh: Mesh;
  readonly #status: PodStatusWriter;
  readonly #startCpuMs = new Map<string, number>();

  constructor(directory: string) {
    this.#directory = directory;
    this.#manifests = path.join(directory, 'manifests');
    mkdirSync(this.#manifests, { recursive: true });
    this.#status = new PodStatusWriter(this.#manifests);
    for (const name of [MESHED, PLAIN]) {
      const annotations = name === MESHED ? MESHED_ANNOTATIONS : {};
      this.#write(`ns-${name}`, { apiVersion: 'v1', kind: 'Namespace', metadata: { name, annotations } });
    }
    this.#mesh = new Mesh({
      root,
      runDir: directory,
      manifests: this.#manifests,
      nodeName: NODE_NAME,
      redirect: 'ebpf',
      arguments: { agent: ['--cgroup-root', cgroupRoot(directory)] },
      log: createLog({ level: 'debug', sink: { write: (line) => this.#onLine(line) } }).log,
      onLoss: (error) => {
        throw error;
      },
    });
  }

  async start(): Promise<void> {
    await this.#mesh.start(new AbortController().signal);
  }

  get agentPid(): number {
    return this.#mesh.agentPid;
  }

  /** Makes a pod and joins it as a runtime would. Rejects when the plugin refuses. */
  async addPod(namespace: string, name: string): Promise<BenchPod> {
    const place = this.network.addPod(`${namespace}-${name}`);
    this.#write(`pod-${namespace}-${name}`, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { namespace, name, uid: podUid(namespace, name) },
      spec: { nodeName: NODE_NAME, serviceAccountName: 'default', containers: [{ name: 'c' }] },
    });
    const podIPs = [{ ip: place.ipv4 }, { ip: place.ipv6 }];
    await this.#status.write(
      { namespace, name },
      {
        uid: podUid(namespace, name),
        nodeName: NODE_NAME,
        status: { phase: 'Running', podIP: place.ipv4, podIPs, conditions: [{ type: 'Ready', status: 'True' }] },
      },
    );
    const pod = { namespace, name, place, addMs: await this.#cniAdd(namespace, name, place) };
    this.pods.push(pod);
    return pod;
  }

  async #cniAdd(namespace: string, name: string, place: Place): Promise<number> {
    const containerId = `c-${namespace}-${name}`;
    const ips = [`${place.ipv4}/24`, `${place.ipv6}/64`].map((address) => ({ address, interface: 0 }));
    const input = {
      cniVersion: '1.0.0',
      name: 'bench',
      type: 'heddle-cni',
      runDir: this.#mesh.agentRunDir,
      prevResult: { cniVersion: '1.0.0', interfaces: [{ name: 'eth0', sandbox: place.netnsPath }], ips },
    };
    const startedMs = performance.now();
    const plugin = spawn(path.join(root, 'build/cni/heddle-cni'), [], {
      stdio: ['pipe', 'pipe', 'ignore'],
      env: {
        CNI_COMMAND: 'ADD',
        CNI_CONTAINERID: containerId,
        CNI_NETNS: place.netnsPath,
        CNI_IFNAME: 'eth0',
        CNI_PATH: path.join(root, 'build/cni'),
        CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_UID=uid-${namespace}-${name};K8S_POD_INFRA_CONTAINER_ID=${containerId}`,
      },
    });
    let output = '';
    plugin.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    plugin.stdin.end(JSON.stringify(input));
    const status = await new Promise<number | null>((resolve, reject) => {
      plugin.once('error', reject).once('close', resolve);
    });
    if (status !== 0) throw new Error(`CNI ADD of ${namespace}/${name} ended with status ${status}: ${output}`);
    return performance.now() - startedMs;
  }

  /** Process ids of the workers by pod name. */
  async workerPids(): Promise<Map<string, number>> {
    const response = await fetch(`${AGENT_URL}/debug/pods`);
    const pods = (await response.json()) as PodDescription[];
    const pids = new Map<string, number>();
    for (const { name, worker } of pods) {
      if (worker?.pid) pids.set(name, worker.pid);
    }
    return pids;
  }

  /** Milliseconds of CPU that a pod's worker had used, from its birth, when it began to accept connections. */
  startCpuMs({ namespace, name }: BenchPod): number {
    return this.#startCpuMs.get(podUid(namespace, name)) ?? Number.NaN;
  }

  /** The agent passes on what workers write; they tell their cost when they are ready. */
  #onLine(line: string): void {
    const output = (JSON.parse(line) as { line?: string }).line;
    if (!output?.startsWith('{')) return;
    const { message, podUid: uid, cpuMs } = JSON.parse(output) as Record<string, unknown>;
    if (message === 'ready' && typeof uid === 'string' && typeof cpuMs === 'number') this.#startCpuMs.set(uid, cpuMs);
  }

  #write(name: string, object: object): void {
    writeFileSync(path.join(this.#manifests, `${name}.json`), JSON.stringify(object));
  }

  get directory(): string {
    return this.#directory;
  }
}
