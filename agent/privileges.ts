// What the agent may do: the capabilities it needs and no others, in every thread and in whatever it starts. A thread
// can only give up its own, and Node has several before the first line of JavaScript runs; so the agent narrows its
// bounding set and executes itself again, which leaves one thread with what capabilities(7) computes for root from it.

import { readFileSync } from 'node:fs';
import { HeddleError } from '#lib/errors.ts';
import {
  CAPABILITY_MAX,
  capabilities,
  dropBoundingCapability,
  hasBoundingCapability,
  setNoNewPrivileges,
} from '#lib/libc.ts';
import type { Log } from '#lib/log.ts';

/** Numbers of linux/capability.h, each with what needs it. */
export const NEEDED_CAPABILITIES = {
  /** Files that are replaced keep their owner: network configurations. */
  CAP_CHOWN: 0,
  /** The runtime's and the network plugins' files, whoever owns them. */
  CAP_DAC_OVERRIDE: 1,
  /** Workers have uids of their own. */
  CAP_KILL: 5,
  CAP_SETGID: 6,
  CAP_SETUID: 7,
  /** A worker's bounding set is emptied. */
  CAP_SETPCAP: 8,
  /** Programs on sockets and cgroups, nftables, the interface of the probe. */
  CAP_NET_ADMIN: 12,
  /** Entering namespaces, mounting bpffs and cgroup2, fanotify. */
  CAP_SYS_ADMIN: 21,
  /** The programs' own two are known since Linux 5.8; before, CAP_SYS_ADMIN covers them. */
  CAP_PERFMON: 38,
  CAP_BPF: 39,
} as const;

/** Set in the environment of the second execution. */
export const CONFINED = 'HEDDLE_AGENT_CONFINED';
/** Of JavaScript. The text of a scrape is outside of it; with 100 pods the agent needs a tenth. */
const HEAP_MIB_MAX = 512;

/** Throws `missing-capability` naming what the process lacks. */
export function assertCapabilities(): void {
  const { effective } = capabilities();
  const last = Number(readFileSync('/proc/sys/kernel/cap_last_cap', 'utf8'));
  const missing = Object.entries(NEEDED_CAPABILITIES)
    .filter(([, number]) => (effective & (1n << BigInt(number))) === 0n)
    .filter(([, number]) => number <= last)
    .map(([name]) => name);
  if (missing.length === 0) return;
  throw new HeddleError(
    'missing-capability',
    `start the agent without "${missing.join(', ')}": expected ${Object.keys(NEEDED_CAPABILITIES).join(', ')}`,
  );
}

/** Capabilities that the process could use and does not need, by number. */
export function excessCapabilities(): number[] {
  const { permitted } = capabilities();
  const needed = new Set<number>(Object.values(NEEDED_CAPABILITIES));
  const numbers = Array.from({ length: CAPABILITY_MAX + 1 }, (_, number) => number);
  return numbers.filter((number) => !needed.has(number) && (permitted & (1n << BigInt(number))) !== 0n);
}

/**
 * Executes the process again with what it needs; does not return then. Returns in the second execution, and throws there
 * when it still has more. The pid stays, so whoever started the agent notices nothing.
 */
export function confine(env: NodeJS.ProcessEnv, log: Log): void {
  if (env[CONFINED] === String(process.pid)) {
    delete env[CONFINED];
    const excess = excessCapabilities();
    if (excess.length === 0) return;
    throw new HeddleError('excess-capability', `give up capabilities "${excess.join(', ')}": expected them gone`);
  }
  assertCapabilities();
  const needed = new Set<number>(Object.values(NEEDED_CAPABILITIES));
  for (let number = 0; number <= CAPABILITY_MAX; number++) {
    if (!needed.has(number) && hasBoundingCapability(number)) dropBoundingCapability(number);
  }
  setNoNewPrivileges();
  const [node, ...rest] = process.argv as [string, ...string[]];
  const flags = [...process.execArgv, `--max-old-space-size=${HEAP_MIB_MAX}`];
  log.debug('gave up what the agent does not need', { capabilities: Object.keys(NEEDED_CAPABILITIES) });
  process.execve!(process.execPath, [node, ...flags, ...rest], { ...definedOf(env), [CONFINED]: String(process.pid) });
}

function definedOf(env: NodeJS.ProcessEnv): Record<string, string> {
  return Object.fromEntries(Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined));
}
