// What the demo needs of the machine, looked at without changing anything: every probe runs in namespaces that end with
// it. What is missing is said all at once.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import type { Hierarchy } from '#agent/worker/cgroup.ts';
import { HeddleError } from '#lib/errors.ts';
import { writableHierarchies } from './hierarchies.ts';

const TOOLS = ['unshare', 'nsenter', 'mount', 'hostname', 'ip', 'nft', 'nginx', 'redis-server'];
const PROBE_TIMEOUT_MS = 20_000;

/** Files that `make build` makes, by what they are. */
const BUILT: Record<string, string> = {
  'CNI plugin': 'build/cni/heddle-cni',
  'eBPF object': 'build/bpf/heddle.bpf.o',
  cnitool: 'build/cni-reference/bin/cnitool',
  'bridge plugin': 'build/cni-reference/bin/bridge',
};

export interface Machine {
  hierarchies: Hierarchy[];
  /** Where no cgroup2 is mounted, the demo mounts one for itself. */
  mountsCgroup2: boolean;
  redirect: 'ebpf' | 'nftables';
}

/** Throws `unfit-machine` that names everything that is missing. `wanted` narrows how pods may be redirected. */
export function inspectMachine(root: string, wanted?: Machine['redirect']): Machine {
  if (process.getuid?.() !== 0) throw unfit(['run as root: namespaces, cgroups and eBPF need it']);
  const missing = [
    ...TOOLS.filter((tool) => !isInPath(tool)).map((tool) => `command "${tool}": expected in PATH`),
    ...Object.entries(BUILT)
      .filter(([, file]) => !existsSync(path.join(root, file)))
      .map(([what, file]) => `${what} "${file}": expected to be built, run "make build"`),
    ...(existsSync('/etc/resolv.conf') ? [] : ['/etc/resolv.conf: expected a file, which pods see their own of']),
  ];
  if (missing.length > 0) throw unfit(missing);
  const isolated = probe('true');
  if (isolated !== null) throw unfit([`namespaces: ${isolated}`]);

  const hierarchies = writableHierarchies();
  const mountsCgroup2 = !hierarchies.some(({ isUnified }) => isUnified);
  const cgroup2 = mountsCgroup2 ? probe('mount -t cgroup2 none /mnt') : null;
  const object = quote(path.join(root, 'build/bpf/heddle.bpf.o'));
  const ebpf =
    wanted === 'nftables'
      ? 'not asked for'
      : (cgroup2 ?? probe(`mount -t bpf bpf /mnt && bpftool prog loadall ${object} /mnt/probe`));
  if (ebpf === null) return { hierarchies, mountsCgroup2, redirect: 'ebpf' };
  const nftables =
    wanted === 'ebpf'
      ? 'not asked for'
      : probe('nft add table inet probe && nft add chain inet probe c "{ type nat hook output priority -100; }"');
  if (nftables === null) return { hierarchies, mountsCgroup2: mountsCgroup2 && cgroup2 === null, redirect: 'nftables' };
  throw unfit([`redirection by eBPF: ${ebpf}`, `redirection by nftables: ${nftables}`]);
}

/** Runs a script in namespaces of its own; null when it succeeds, else why not. */
function probe(script: string): string | null {
  const { status, stderr, error } = spawnSync(
    'unshare',
    ['--mount', '--propagation', 'private', '--net', '--pid', '--fork', '--cgroup', 'sh', '-c', script],
    { encoding: 'utf8', timeout: PROBE_TIMEOUT_MS },
  );
  if (status === 0) return null;
  const lines = (error?.message ?? stderr).trim().split('\n');
  return lines.at(-1) || `"${script}" ended with status ${status}`;
}

function isInPath(tool: string): boolean {
  const directories = (process.env.PATH ?? '').split(':');
  return directories.some((directory) => existsSync(path.join(directory, tool)));
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function unfit(reasons: string[]): HeddleError {
  return new HeddleError('unfit-machine', `this machine cannot run the demo:\n  ${reasons.join('\n  ')}`);
}
