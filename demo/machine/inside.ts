// The first steps of the inner half, in namespaces of its own: the mounts and links that make it a node.

import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { findHierarchies } from '#agent/worker/cgroup.ts';
import { HeddleError } from '#lib/errors.ts';

export interface InsideOptions {
  root: string;
  runDir: string;
  manifests: string;
  isOnce: boolean;
  isVerbose: boolean;
  redirect: 'ebpf' | 'nftables';
}

/**
 * Mounts the cgroup hierarchies as this cgroup namespace sees them over those of the machine, and brings up loopback and
 * forwarding. Returns the directory where cgroup2 is; null when there is none.
 */
export function enterNode(): string | null {
  const hierarchies = findHierarchies();
  for (const { mountPoint, isUnified, controllers } of hierarchies) {
    // The kernel refuses a second mount of the same file system on top of the first.
    run('umount', '--lazy', mountPoint);
    if (isUnified) run('mount', '-t', 'cgroup2', 'heddle-demo', mountPoint);
    else run('mount', '-t', 'cgroup', '-o', controllers.join(','), 'heddle-demo', mountPoint);
  }
  run('ip', 'link', 'set', 'lo', 'up');
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
  return hierarchies.find(({ isUnified }) => isUnified)?.mountPoint ?? null;
}

function run(command: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  if (status === 0) return;
  throw new HeddleError('node-setup', `run "${[command, ...args].join(' ')}": ${stderr.trim() || `status ${status}`}`);
}
