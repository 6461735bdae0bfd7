// Two meshed pods and a stranger on a node with the real agent and control plane: `client` calls `server` by a Service's
// cluster address through its own worker, mutual TLS and the server's worker; `stranger` has no worker.

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import path from 'node:path';
import { inNetns } from '#agent/netns.ts';
import { Annotation } from '#api/names.ts';
import { PodStatusWriter } from '#kube/status.ts';
import { openTcpListener, openTcpSocket } from '#lib/tcp-socket.ts';
import { AgentNode } from '../../netns/support/agent-node.ts';
import { ControlPlaneProcesses } from '../../netns/support/control-plane.ts';
import type { Place } from '../../netns/support/network.ts';

const root = path.resolve(import.meta.dirname, '../../..');
const NAMESPACE = 'shop';

/** Where the client finds the server. */
export const SERVICE = { host: '10.96.0.10', port: 80 };
/** Where the server's application listens. */
export const APPLICATION_PORT = 8080;

export class MeshedPair {
  readonly client: Place;
  readonly server: Place;
  readonly stranger: Place;
  readonly #node: AgentNode;
  readonly #controlPlane: ControlPlaneProcesses;

  private constructor(label: string) {
    this.#node = new AgentNode(label, { hasRealWorkers: true });
    this.#controlPlane = new ControlPlaneProcesses(path.join(this.#node.directory, 'control-plane'), this.manifests);
    this.client = this.#node.network.addPod('client');
    this.server = this.#node.network.addPod('server');
    this.stranger = this.#node.network.addPod('stranger');
  }

  /** `label`: as in test/netns/support/network.ts. Everything is up and both workers are ready when this resolves. */
  static async start(label: string): Promise<MeshedPair> {
    const pair = new MeshedPair(label);
    try {
      await pair.#start();
    } catch (error) {
      await pair.close();
      throw error;
    }
    return pair;
  }

  get manifests(): string {
    return this.#node.manifests;
  }

  /** The identity that a pod proves. */
  identityOf(pod: 'client' | 'server'): string {
    return `${pod}.${NAMESPACE}.serviceaccount.identity.heddle.cluster.local`;
  }

  /** A listening descriptor of the server's pod for `APPLICATION_PORT`; whoever listens on it closes it. */
  applicationListener(): number {
    return inNetns(this.server.netnsFd, () =>
      openTcpListener({ address: '0.0.0.0', port: APPLICATION_PORT, backlog: 256 }),
    );
  }

  /** A connection out of a pod. */
  connect(from: Place, to: { host: string; port: number }): net.Socket {
    const fd = inNetns(from.netnsFd, () => openTcpSocket(4));
    return new net.Socket({ fd, readable: true, writable: true }).connect(to);
  }

  /** Resolves when the server's application listens. */
  async whenApplicationListens(): Promise<void> {
    const deadlineMs = performance.now() + 10_000;
    for (;;) {
      // Within the pod, loopback leads to the application itself.
      const socket = this.connect(this.server, { host: '127.0.0.1', port: APPLICATION_PORT });
      const isConnected = await once(socket, 'connect').then(
        () => true,
        () => false,
      );
      socket.destroy();
      if (isConnected) return;
      if (performance.now() > deadlineMs) throw new Error(`no application listens on port ${APPLICATION_PORT}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** Sum of the series of a family, on the worker of `pod`, that have all these labels. */
  async metric(pod: 'client' | 'server', family: string, labels: Record<string, string> = {}): Promise<number> {
    const { text } = await this.#node.get('/proxies/metrics');
    // The comma keeps `pod` from being found in `dst_pod`.
    const wanted = Object.entries({ pod, ...labels }).map(([name, value]) => `,${name}="${value}"`);
    return text
      .split('\n')
      .filter((line) => line.startsWith(`${family}{`))
      .filter((line) => wanted.every((label) => line.replace('{', ',').includes(label)))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
  }

  /** What agent and workers logged. */
  get log(): string {
    return this.#node.child?.output ?? '';
  }

  async close(): Promise<void> {
    await this.#node.close();
    await this.#controlPlane.stop();
  }

  async #start(): Promise<void> {
    const node = this.#node;
    node.applyNamespace(NAMESPACE, { [Annotation.inject]: 'enabled' });
    for (const name of ['client', 'server'] as const) await this.#addPod(name);
    node.apply('service', {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { namespace: NAMESPACE, name: 'web' },
      spec: {
        clusterIP: SERVICE.host,
        selector: { app: 'server' },
        ports: [{ port: SERVICE.port, targetPort: APPLICATION_PORT }],
      },
    });
    await this.#controlPlane.start();
    node.addArguments(...this.#controlPlane.agentArguments);
    await node.spawn();
    for (const name of ['client', 'server'] as const) {
      const { status, output } = await node.cni('ADD', this[name], { namespace: NAMESPACE, name });
      if (status !== 0) throw new Error(`CNI ADD of "${name}" ended with ${status}: ${output?.msg}: ${this.log}`);
    }
  }

  async #addPod(name: 'client' | 'server'): Promise<void> {
    this.#node.applyPod(NAMESPACE, name);
    const { ipv4, ipv6 } = this[name];
    await new PodStatusWriter(this.manifests).write(
      { namespace: NAMESPACE, name },
      {
        uid: `uid-${name}`,
        nodeName: 'n1',
        status: {
          phase: 'Running',
          podIP: ipv4,
          podIPs: [{ ip: ipv4 }, { ip: ipv6 }],
          conditions: [{ type: 'Ready', status: 'True' }],
        },
      },
    );
  }
}

/** A program of others under build/conformance; made when it is missing. */
export function conformanceProgram(name: 'h2spec' | 'grpc-interop-client' | 'grpc-interop-server'): string {
  execFileSync('make', ['-s', `build/conformance/${name}`], { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] });
  return path.join(root, 'build/conformance', name);
}
