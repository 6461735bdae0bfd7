// The node's pod network: a list of reference plugins with Heddle's behind them, driven by cnitool as a container
// runtime drives libcni. Spec: CNI 1.1.0; conventions: annotations and CNI_ARGS as containerd hands them over.

import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { allContainers } from '#kube/pod.ts';
import type { Pod } from '#kube/resources.ts';
import { HeddleError } from '#lib/errors.ts';
import { runCommand } from './command.ts';

export interface CniOptions {
  /** Directory for the list, the addresses given out, and libcni's cache. */
  stateDir: string;
  /** Directories of plugin binaries. */
  binDirs: readonly string[];
  cnitool: string;
  subnet: string;
  /** First address of the subnet: the bridge's own, and the pods' way out. */
  gateway: string;
  heddle: { runDir: string; controlPlaneNamespace: string };
}

const NETWORK = 'heddle-demo';
const ADD_TIMEOUT_MS = 60_000;
const DEL_TIMEOUT_MS = 10_000;
const ANNOTATIONS_CAPABILITY = 'io.kubernetes.cri.pod-annotations';

/** The list as a runtime would find it. */
export function networkList(options: Pick<CniOptions, 'stateDir' | 'subnet' | 'gateway' | 'heddle'>): object {
  return {
    cniVersion: '1.1.0',
    name: NETWORK,
    plugins: [
      {
        type: 'bridge',
        bridge: 'cni0',
        isGateway: true,
        hairpinMode: true,
        ipam: {
          type: 'host-local',
          dataDir: path.join(options.stateDir, 'ipam'),
          ranges: [[{ subnet: options.subnet, gateway: options.gateway }]],
          routes: [{ dst: '0.0.0.0/0' }],
        },
      },
      { type: 'portmap', backend: 'nftables', capabilities: { portMappings: true } },
      { type: 'heddle-cni', ...options.heddle, capabilities: { [ANNOTATIONS_CAPABILITY]: true } },
    ],
  };
}

/** What a runtime tells the plugins of a pod beside its namespace. */
export function podEnvironment(pod: Pod): { CNI_ARGS: string; CAP_ARGS: string } {
  const { name, namespace = 'default', uid = '', annotations } = pod.metadata;
  const portMappings = allContainers(pod.spec)
    .flatMap((container) => container.ports ?? [])
    .filter(({ hostPort }) => hostPort !== undefined)
    .map(({ hostPort, containerPort, protocol = 'TCP' }) => ({
      hostPort,
      containerPort,
      protocol: protocol.toLowerCase(),
    }));
  return {
    CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_UID=${uid}`,
    CAP_ARGS: JSON.stringify({
      portMappings,
      // The kubelet adds annotations of its own to every pod, so that plugins never see none.
      [ANNOTATIONS_CAPABILITY]: { 'kubernetes.io/config.source': 'file', ...annotations },
    }),
  };
}

export class PodNetwork {
  readonly #options: CniOptions;
  readonly #confDir: string;

  constructor(options: CniOptions) {
    this.#options = options;
    this.#confDir = path.join(options.stateDir, 'net.d');
    mkdirSync(this.#confDir, { recursive: true });
    mkdirSync(path.join(options.stateDir, 'cache'), { recursive: true });
    writeFileSync(path.join(this.#confDir, '10-demo.conflist'), JSON.stringify(networkList(options), null, 2));
  }

  /** Wires the namespace and returns the pod's addresses. Throws `command-failed` with the plugin's message. */
  async add(pod: Pod, netns: string): Promise<string[]> {
    const stdout = await this.#cnitool('add', pod, netns, ADD_TIMEOUT_MS);
    return readAddresses(stdout);
  }

  async del(pod: Pod, netns: string): Promise<void> {
    await this.#cnitool('del', pod, netns, DEL_TIMEOUT_MS);
  }

  /** libcni's cache is always below /var/lib; in a mount namespace of the call that is a directory of ours. */
  async #cnitool(verb: 'add' | 'del', pod: Pod, netns: string, timeoutMs: number): Promise<string> {
    const { stateDir, cnitool, binDirs } = this.#options;
    const script = 'mount --bind "$1" /var/lib && shift && exec "$@"';
    const isolated = ['--mount', '--propagation', 'private', 'sh', '-c', script, 'sh', path.join(stateDir, 'cache')];
    const env = { ...podEnvironment(pod), NETCONFPATH: this.#confDir, CNI_PATH: binDirs.join(':') };
    return await runCommand(['unshare', ...isolated, cnitool, verb, NETWORK, netns], { timeoutMs, env });
  }
}

/** The addresses of a CNI result, without their prefix lengths. */
function readAddresses(text: string): string[] {
  const result = JSON.parse(text) as { ips?: { address?: string }[] };
  const addresses = (result.ips ?? []).flatMap(({ address }) => address?.split('/')[0] ?? []);
  if (addresses.length > 0) return addresses;
  throw new HeddleError('cni-result', `read the result of network "${NETWORK}": expected at least one address`);
}
