// A node for tests of the agent: directories, a manifest directory, pods' networks, the CNI plugin's binary as a
// runtime would call it, and an agent in this process. Workers are the stand-in unless real ones are asked for.

import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { Agent, uninstall } from '#agent/agent.ts';
import { type AgentConfig, parseConfig } from '#agent/config.ts';
import type { PodDescription } from '#agent/describe-pods.ts';
import { inNetns } from '#agent/netns.ts';
import { systemClock } from '#lib/clock.ts';
import { createLog } from '#lib/log.ts';
import { openTcpSocket } from '#lib/tcp-socket.ts';
import { makeAuthority } from '../../support/certificates.ts';
import { fetchLocal, freePort, MeshProcess } from './control-plane.ts';
import { Network, type Place } from './network.ts';

const root = path.resolve(import.meta.dirname, '../../..');

/** Heddle's sources with the stand-in as worker. `note` makes another version of it. */
export function standInSources(directory: string, note = ''): string {
  mkdirSync(path.join(directory, 'proxy'), { recursive: true });
  for (const name of ['lib', 'api', 'node_modules', 'package.json']) {
    symlinkSync(path.join(root, name), path.join(directory, name));
  }
  const program = readFileSync(path.join(import.meta.dirname, 'stand-in-worker.ts'), 'utf8');
  writeFileSync(path.join(directory, 'proxy/main.ts'), `${program}\nglobalThis.name = '${note}';\n`);
  return directory;
}

export interface CniResult {
  status: number;
  /** The result of the network, or the error object. */
  output: { code?: number; msg?: string; [key: string]: unknown } | null;
  milliseconds: number;
}

export class AgentNode {
  readonly label: string;
  readonly directory: string;
  readonly manifests: string;
  readonly network: Network;
  readonly logged: Record<string, unknown>[] = [];
  config: AgentConfig;
  arguments: readonly string[];
  sourceRoot: string;
  agent: Agent | null = null;
  child: MeshProcess | null = null;
  #adminPort = 0;

  /** `label`: as in network.ts. */
  constructor(label: string, options: { arguments?: string[]; hasRealWorkers?: boolean } = {}) {
    execFileSync('make', ['-s', 'build/bpf/heddle.bpf.o', 'build/cni/heddle-cni'], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    this.label = label;
    this.directory = mkdtempSync(path.join(os.tmpdir(), `${label}-`));
    execFileSync('chmod', ['755', this.directory]);
    this.manifests = path.join(this.directory, 'manifests');
    mkdirSync(this.manifests);
    this.network = new Network(label);
    writeFileSync(this.anchors, makeAuthority().certificatePem);
    this.sourceRoot = options.hasRealWorkers ? root : standInSources(path.join(this.directory, 'src'));
    this.arguments = [
      ...['--node-name', 'n1', '--run-dir', this.runDir, '--state-dir', path.join(this.directory, 'state')],
      ...['--source', `dir:${this.manifests}`, '--trust-anchors', this.anchors],
      ...['--token-file', path.join(this.directory, 'token'), '--bpffs-dir', path.join(this.directory, 'bpf')],
      ...['--bpf-object', path.join(root, 'build/bpf/heddle.bpf.o'), '--cgroup-root', `${label}-${process.pid}`],
      ...['--admin-addr', '127.0.0.1:0', '--log-level', 'debug', ...(options.arguments ?? [])],
    ];
    this.config = parseConfig(this.arguments, root);
  }

  /** Options given later count. */
  addArguments(...more: string[]): void {
    this.arguments = [...this.arguments, ...more];
    this.config = parseConfig(this.arguments, root);
  }

  get runDir(): string {
    return path.join(this.directory, 'run');
  }

  get anchors(): string {
    return path.join(this.directory, 'anchors.pem');
  }

  async start(): Promise<Agent> {
    const { log } = createLog({ level: 'debug', sink: { write: (line) => this.logged.push(JSON.parse(line)) } });
    const options = {
      config: this.config,
      sourceRoot: this.sourceRoot,
      environment: () => undefined,
      clock: systemClock,
      log,
    };
    this.agent = await Agent.start(options);
    return this.agent;
  }

  /** As a process of its own, which can be killed. */
  async spawn(): Promise<MeshProcess> {
    this.#adminPort ||= await freePort();
    this.child = new MeshProcess('agent/main.ts', [...this.arguments, '--admin-addr', `127.0.0.1:${this.#adminPort}`]);
    await this.child.ready(this.#adminPort);
    return this.child;
  }

  async stop(): Promise<void> {
    await this.child?.end();
    this.child = null;
    await this.agent?.stop();
    this.agent = null;
  }

  /** Everything away, workers included. */
  async close(): Promise<void> {
    await this.stop();
    const { log } = createLog({ sink: { write: () => {} } });
    await uninstall(this.config, log);
    this.network.close();
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** Writes a manifest; the same name replaces it. */
  apply(name: string, ...objects: object[]): void {
    writeFileSync(
      path.join(this.manifests, `${name}.json`),
      JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }),
    );
  }

  applyNamespace(name: string, annotations: Record<string, string> = {}): void {
    this.apply(`ns-${name}`, { apiVersion: 'v1', kind: 'Namespace', metadata: { name, annotations } });
  }

  /** The ServiceAccount and the label `app` have the pod's name. */
  applyPod(namespace: string, name: string, annotations: Record<string, string> = {}): void {
    const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { namespace, name } };
    this.apply(`pod-${namespace}-${name}`, account, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { namespace, name, uid: `uid-${name}`, annotations, labels: { app: name } },
      spec: {
        nodeName: 'n1',
        serviceAccountName: name,
        containers: [{ name: 'c', ports: [{ containerPort: 8080 }] }],
      },
    });
  }

  /** Calls the plugin as a runtime would. */
  async cni(
    op: string,
    place: Place,
    options: {
      namespace: string;
      name: string;
      containerId?: string;
      ips?: string[];
      annotations?: Record<string, string>;
    },
  ): Promise<CniResult> {
    const { namespace, name, containerId = `c-${name}`, ips = [place.ipv4, place.ipv6] } = options;
    const addresses = ips.map((ip) => ({ address: `${ip}/${ip.includes(':') ? 64 : 24}`, interface: 0 }));
    const input = {
      cniVersion: '1.0.0',
      name: 'hdlnet',
      type: 'heddle-cni',
      runDir: this.runDir,
      capabilities: { 'io.kubernetes.cri.pod-annotations': true },
      runtimeConfig: {
        'io.kubernetes.cri.pod-annotations': { 'kubernetes.io/config.source': 'api', ...options.annotations },
      },
      prevResult: { cniVersion: '1.0.0', interfaces: [{ name: 'eth0', sandbox: place.netnsPath }], ips: addresses },
    };
    const startedMs = performance.now();
    const plugin = spawn(path.join(root, 'build/cni/heddle-cni'), [], {
      timeout: 30_000,
      stdio: ['pipe', 'pipe', 'ignore'],
      env: {
        CNI_COMMAND: op,
        CNI_CONTAINERID: containerId,
        CNI_NETNS: place.netnsPath,
        CNI_IFNAME: 'eth0',
        CNI_PATH: path.join(root, 'build/cni'),
        CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_UID=uid-${name};K8S_POD_INFRA_CONTAINER_ID=${containerId}`,
      },
    });
    let stdout = '';
    plugin.stdout.on('data', (chunk) => {
      stdout += chunk;
    });
    plugin.stdin.end(JSON.stringify(input));
    const status = await new Promise<number | null>((resolve) => plugin.once('close', resolve));
    return {
      status: status ?? -1,
      output: stdout.trim() === '' ? null : JSON.parse(stdout),
      milliseconds: performance.now() - startedMs,
    };
  }

  /** One answer of the agent's HTTP port. */
  get(pathname: string): Promise<{ status: number; text: string }> {
    return fetchLocal(this.child ? this.#adminPort : this.agent!.adminAddress()!.port, pathname);
  }

  async pods(): Promise<PodDescription[]> {
    return JSON.parse((await this.get('/debug/pods')).text);
  }
}

/** Sends text from inside a pod and returns the first line that comes back. */
export async function exchange(from: Place, to: { host: string; port: number }, text = 'hello'): Promise<string> {
  const family = to.host.includes(':') ? 6 : 4;
  // The socket is of the namespace it is made in; Node makes its own too late for that.
  const socket = new net.Socket({
    fd: inNetns(from.netnsFd, () => openTcpSocket(family)),
    readable: true,
    writable: true,
  });
  socket.connect({ host: to.host, port: to.port });
  return await new Promise((resolve, reject) => {
    let answer = '';
    socket.setTimeout(10_000, () => socket.destroy(new Error('no answer within 10 s')));
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('closed without an answer')));
    socket.on('data', (bytes) => {
      answer += bytes.toString();
      if (!answer.includes('\n')) return;
      resolve(answer.slice(0, answer.indexOf('\n')));
      socket.destroy();
    });
    socket.write(text);
  });
}
