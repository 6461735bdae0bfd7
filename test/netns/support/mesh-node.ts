// One node with the real mesh on it: identity, destination and agent as processes, pods as network namespaces that join
// through the CNI plugin as a runtime would call it. Runs in namespaces of its own (mesh-lab.ts, bench/main.ts): it uses
// fixed addresses of the node's loopback, and whoever ends its first process ends everything in there.

import { spawn } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { PodDescription } from '#agent/describe-pods.ts';
import { identifyProcess, isSameProcess } from '#agent/worker/process-table.ts';
import { PodStatusWriter } from '#kube/status.ts';
import { createLog } from '#lib/log.ts';
import { AGENT_URL, Mesh, type MeshOptions, type MeshProcessName } from '../../../demo/mesh.ts';
import { Network, type Place } from './network.ts';

const root = path.resolve(import.meta.dirname, '../../..');
const NODE_NAME = 'mesh-node';
const LOG_LINES_MAX = 20_000;
const REQUEST_TIMEOUT_MS = 20_000;

export interface MeshNodeOptions {
  directory: string;
  /** As in network.ts. */
  label: string;
  arguments?: MeshOptions['arguments'];
}

export interface PodOptions {
  annotations?: Record<string, string>;
  labels?: Record<string, string>;
  serviceAccount?: string;
  ports?: number[];
  /** The Deployment that the pod belongs to. */
  deployment?: string;
  /** False: the pod has a network and a manifest, but the plugin never hears of it. */
  joins?: boolean;
}

export interface MeshPod {
  namespace: string;
  name: string;
  uid: string;
  /** Name of the network namespace, for `ip netns exec`. */
  netns: string;
  ipv4: string;
  ipv6: string;
  /** Milliseconds that the plugin's ADD took; 0 of a pod that did not join. */
  addMs: number;
}

export interface CniAnswer {
  status: number;
  /** The result of the network, or the error object; null when nothing was printed. */
  output: { code?: number; msg?: string; [key: string]: unknown } | null;
  milliseconds: number;
}

export class MeshNode {
  readonly network: Network;
  readonly pods: MeshPod[] = [];
  readonly directory: string;
  readonly #manifests: string;
  readonly #mesh: Mesh;
  readonly #status: PodStatusWriter;
  readonly #places = new Map<string, Place>();
  readonly #logged: string[] = [];
  readonly #losses: string[] = [];

  constructor(options: MeshNodeOptions) {
    this.directory = options.directory;
    this.network = new Network(options.label);
    this.#manifests = path.join(this.directory, 'manifests');
    mkdirSync(this.#manifests, { recursive: true });
    this.#status = new PodStatusWriter(this.#manifests);
    const sink = { write: (line: string) => this.#remember(line) };
    this.#mesh = new Mesh({
      root,
      runDir: this.directory,
      manifests: this.#manifests,
      nodeName: NODE_NAME,
      redirect: 'ebpf',
      log: createLog({ level: 'debug', sink }).log,
      onLoss: (error) => {
        this.#losses.push(error.message);
      },
      ...(options.arguments ? { arguments: options.arguments } : {}),
    });
  }

  /** Resolves when the mesh is ready for pods. */
  async start(): Promise<void> {
    await this.#mesh.start(new AbortController().signal);
  }

  async startProcess(name: MeshProcessName): Promise<void> {
    await this.#mesh.startProcess(name, new AbortController().signal);
  }

  async killProcess(name: MeshProcessName): Promise<void> {
    await this.#mesh.killProcess(name);
  }

  get agentPid(): number {
    return this.#mesh.agentPid;
  }

  /** Where things are: seen inside and outside alike. */
  paths(): { manifests: string; keys: string; agentRun: string } {
    return { manifests: this.#manifests, keys: this.#mesh.keysDirectory, agentRun: this.#mesh.agentRunDir };
  }

  /** What the mesh's processes wrote, oldest first. */
  logged(): string[] {
    return this.#logged;
  }

  /** Processes of the mesh that ended although nobody asked them to. */
  losses(): string[] {
    return this.#losses;
  }

  /** Writes a manifest, JSON or text as it is; the same name replaces it. */
  apply(name: string, manifest: object | string): void {
    const text = typeof manifest === 'string' ? manifest : JSON.stringify(manifest);
    writeFileSync(path.join(this.#manifests, `${name}.yaml`), text);
  }

  withdraw(name: string): void {
    rmSync(path.join(this.#manifests, `${name}.yaml`));
  }

  addNamespace(name: string, annotations: Record<string, string> = {}): void {
    this.apply(`ns-${name}`, { apiVersion: 'v1', kind: 'Namespace', metadata: { name, annotations } });
  }

  /** Makes a pod and joins it as a runtime would. Rejects when the plugin refuses. */
  async addPod(namespace: string, name: string, options: PodOptions = {}): Promise<MeshPod> {
    const pod = this.makePod(namespace, name);
    await this.describePod(pod, options);
    if (options.joins === false) return pod;
    const { status, output, milliseconds } = await this.cni('ADD', pod);
    if (status !== 0) throw new Error(`CNI ADD of ${namespace}/${name} ended with status ${status}: ${output?.msg}`);
    pod.addMs = milliseconds;
    return pod;
  }

  /** The network of a pod, and nothing else of it. */
  makePod(namespace: string, name: string): MeshPod {
    const place = this.network.addPod(`${namespace}-${name}`);
    const { ipv4, ipv6 } = place;
    const pod = { namespace, name, uid: `u-${namespace}-${name}`, netns: place.name, ipv4, ipv6, addMs: 0 };
    this.#places.set(pod.netns, place);
    this.pods.push(pod);
    return pod;
  }

  /** The node's own end of the pods' links: not a pod, and never meshed. */
  bridge(): MeshPod {
    const { name, ipv4, ipv6 } = this.network.node;
    return { namespace: '', name: 'bridge', uid: '', netns: name, ipv4, ipv6, addMs: 0 };
  }

  /** The pod's manifest and status, as the API server would have them. */
  async describePod(pod: MeshPod, options: PodOptions = {}): Promise<void> {
    const { namespace, name, uid } = pod;
    const { annotations = {}, serviceAccount = 'default', ports = [], deployment } = options;
    const hash = '7d4b9c6f8';
    const labels = { ...options.labels, ...(deployment ? { 'pod-template-hash': hash } : {}) };
    const owner = {
      apiVersion: 'apps/v1',
      kind: 'ReplicaSet',
      name: `${deployment}-${hash}`,
      uid: 'r',
      controller: true,
    };
    const container = { name: 'c', ports: ports.map((containerPort) => ({ containerPort })) };
    const account = { namespace, name: serviceAccount };
    this.apply(`sa-${namespace}-${serviceAccount}`, { apiVersion: 'v1', kind: 'ServiceAccount', metadata: account });
    this.apply(`pod-${namespace}-${name}`, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { namespace, name, uid, annotations, labels, ...(deployment ? { ownerReferences: [owner] } : {}) },
      spec: { nodeName: NODE_NAME, serviceAccountName: serviceAccount, containers: [container] },
    });
    const podIPs = [{ ip: pod.ipv4 }, { ip: pod.ipv6 }];
    const conditions = [{ type: 'Ready', status: 'True' as const }];
    const status = { phase: 'Running' as const, podIP: pod.ipv4, podIPs, conditions };
    await this.#status.write({ namespace, name }, { uid, nodeName: NODE_NAME, status });
  }

  /** One verb of the plugin, with its own address list when `ips` is given. */
  async cni(
    verb: 'ADD' | 'CHECK' | 'DEL' | 'STATUS',
    pod: MeshPod,
    options: { ips?: string[] } = {},
  ): Promise<CniAnswer> {
    const { namespace, name, uid } = pod;
    const { netnsPath } = this.#place(pod);
    const containerId = `c-${namespace}-${name}`;
    const ips = (options.ips ?? [pod.ipv4, pod.ipv6]).map((ip) => `${ip}/${ip.includes(':') ? 64 : 24}`);
    const interfaces = [{ name: 'eth0', sandbox: netnsPath }];
    const input = {
      cniVersion: '1.0.0',
      name: 'mesh',
      type: 'heddle-cni',
      runDir: this.#mesh.agentRunDir,
      prevResult: { cniVersion: '1.0.0', interfaces, ips: ips.map((address) => ({ address, interface: 0 })) },
    };
    const startedMs = performance.now();
    const plugin = spawn(path.join(root, 'build/cni/heddle-cni'), [], {
      stdio: ['pipe', 'pipe', 'ignore'],
      timeout: 60_000,
      env: {
        CNI_COMMAND: verb,
        CNI_CONTAINERID: containerId,
        CNI_NETNS: netnsPath,
        CNI_IFNAME: 'eth0',
        CNI_PATH: path.join(root, 'build/cni'),
        CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_UID=${uid};K8S_POD_INFRA_CONTAINER_ID=${containerId}`,
      },
    });
    let stdout = '';
    plugin.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    plugin.stdin.end(JSON.stringify(input));
    const status = await new Promise<number | null>((resolve, reject) => {
      plugin.once('error', reject).once('close', resolve);
    });
    const output = stdout.trim() === '' ? null : JSON.parse(stdout);
    return { status: status ?? -1, output, milliseconds: performance.now() - startedMs };
  }

  /** One answer of the agent's HTTP port. */
  async get(pathname: string): Promise<{ status: number; type: string; text: string }> {
    const response = await fetch(`${AGENT_URL}${pathname}`, { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
    return { status: response.status, type: response.headers.get('content-type') ?? '', text: await response.text() };
  }

  async describePods(): Promise<PodDescription[]> {
    return JSON.parse((await this.get('/debug/pods')).text);
  }

  /** Process ids of the workers by pod name. */
  async workerPids(): Promise<Map<string, number>> {
    const pids = new Map<string, number>();
    for (const { name, worker } of await this.describePods()) {
      if (worker?.pid) pids.set(name, worker.pid);
    }
    return pids;
  }

  /** Ends a process with SIGKILL. Resolves with the time, on the clock that all programs share, when it was gone. */
  async kill(pid: number): Promise<number> {
    const identity = identifyProcess(pid);
    if (identity === null) throw new Error(`kill process ${pid}: expected one that runs`);
    process.kill(pid, 'SIGKILL');
    while (isSameProcess(identity)) await new Promise((resolve) => setImmediate(resolve));
    return Number(process.hrtime.bigint()) / 1e6;
  }

  #place({ netns }: MeshPod): Place {
    const place = this.#places.get(netns);
    if (!place) throw new Error(`find the network of pod "${netns}": expected one of this node`);
    return place;
  }

  #remember(line: string): void {
    this.#logged.push(line);
    if (this.#logged.length > LOG_LINES_MAX) this.#logged.shift();
  }
}
