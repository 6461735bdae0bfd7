// Which directories the node's container runtime uses, and by which rules it reads them: asked of the runtime (CRI
// Version and Status, whose verbose answer names them), else looked for where distributions put them.

import path from 'node:path';
import { z } from 'zod';
import type { RuntimeRules } from './install-plan.ts';

export interface CniDirectories {
  confDir: string;
  /** In the order in which the runtime searches them; the first is the one to install in. */
  binDirs: string[];
}

/** First versions whose libcni is 1.3 or later. CRI-O's DEL uses what it stored at ADD, which misses drop-ins. */
const DROP_IN_SINCE = { containerd: [2, 1] } as const;

/** `name` and `version` as CRI's Version answers: `containerd` and `v2.1.4-k3s1`. */
export function rulesOf(
  runtime: { name: string; version: string },
  options: { isInstalled: (type: string) => boolean; defaultNetwork?: string | null },
): RuntimeRules {
  const kind = /^cri-?o$/i.test(runtime.name) ? 'cri-o' : 'containerd';
  const [, major = '0', minor = '0'] = /^v?(\d+)\.(\d+)/.exec(runtime.version) ?? [];
  const [sinceMajor, sinceMinor] = DROP_IN_SINCE.containerd;
  const isRecent = Number(major) > sinceMajor || (Number(major) === sinceMajor && Number(minor) >= sinceMinor);
  const supportsDropIns = runtime.name === 'containerd' && isRecent;
  return { kind, supportsDropIns, defaultNetwork: options.defaultNetwork ?? null, isInstalled: options.isInstalled };
}

/** A runtime as a person writes it, such as `containerd@2.1.4`; null when it is not that. */
export function parseRuntime(text: string): { name: string; version: string } | null {
  const match = /^([a-z-]+)[ @/](v?\d+\.\d+.*)$/.exec(text);
  return match ? { name: match[1]!, version: match[2]! } : null;
}

const infoSchema = z.object({
  PluginDirs: z.array(z.string().min(1)).min(1),
  PluginConfDir: z.string().min(1),
  Networks: z.array(z.object({ Config: z.object({ Name: z.string(), Source: z.string() }) })).optional(),
});

/** What the runtime has loaded, from `info.cniconfig` of CRI's verbose Status (containerd); null when it is not that. */
export function parseCriConfig(
  cniconfig: string,
): (CniDirectories & { networks: { name: string; source: string }[] }) | null {
  let value: unknown;
  try {
    value = JSON.parse(cniconfig);
  } catch {
    // Not an error: other runtimes put other things there.
    return null;
  }
  const parsed = infoSchema.safeParse(value);
  if (!parsed.success) return null;
  const { PluginDirs, PluginConfDir, Networks = [] } = parsed.data;
  const networks = Networks.map(({ Config }) => ({ name: Config.Name, source: Config.Source }));
  return { confDir: PluginConfDir, binDirs: PluginDirs, networks };
}

interface Distribution extends CniDirectories {
  name: string;
  /** A path that only this distribution has. */
  sign: string;
}

/** Most particular first; the last is where everybody else has them. */
const DISTRIBUTIONS: readonly Distribution[] = [
  {
    name: 'MicroK8s',
    sign: '/var/snap/microk8s/current/args/cni-network',
    confDir: '/var/snap/microk8s/current/args/cni-network',
    binDirs: ['/var/snap/microk8s/current/opt/cni/bin'],
  },
  {
    name: 'k3s',
    sign: '/var/lib/rancher/k3s/agent/etc/cni/net.d',
    confDir: '/var/lib/rancher/k3s/agent/etc/cni/net.d',
    binDirs: ['/var/lib/rancher/k3s/data/cni'],
  },
  { name: 'GKE', sign: '/home/kubernetes/bin', confDir: '/etc/cni/net.d', binDirs: ['/home/kubernetes/bin'] },
  {
    name: 'OpenShift',
    sign: '/etc/cni/multus/net.d',
    confDir: '/etc/kubernetes/cni/net.d',
    binDirs: ['/var/lib/cni/bin'],
  },
  { name: 'others', sign: '/', confDir: '/etc/cni/net.d', binDirs: ['/opt/cni/bin'] },
];

/** The directories of the distribution whose sign `exists` (a path of the node), for where the runtime cannot be asked. */
export function guessDirectories(exists: (nodePath: string) => boolean): CniDirectories & { distribution: string } {
  const found = DISTRIBUTIONS.find(({ sign }) => exists(sign)) ?? DISTRIBUTIONS.at(-1)!;
  return { confDir: found.confDir, binDirs: [...found.binDirs], distribution: found.name };
}

/** A path of the node as the agent sees it, where the node's root is mounted at `hostRoot` (`/` for the same). */
export function onHost(hostRoot: string, nodePath: string): string {
  return path.join(hostRoot, nodePath);
}
