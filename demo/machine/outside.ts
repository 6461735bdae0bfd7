// The outer half of the demo. It makes one directory and one cgroup, starts the inner half in namespaces of its own
// (mounts, network, processes, cgroups), and takes both away afterwards. When the inner half ends, however it ends, the
// kernel ends every process in there and frees namespaces, links, mounts and eBPF programs with them.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { HeddleError } from '#lib/errors.ts';
import { type DemoCgroups, demoName, isStale, makeCgroups, reapCgroups, removeCgroups } from './hierarchies.ts';
import type { InsideOptions } from './inside.ts';
import type { Machine } from './preflight.ts';

/** How long the inner half may take to stop its pods before it is killed. */
const STOP_GRACE_MS = 20_000;
/** Killed processes leave their cgroups within milliseconds; a busy machine needs more. */
const CGROUP_TRIES = 100;
const CGROUP_RETRY_MS = 50;

export interface OutsideOptions {
  root: string;
  machine: Machine;
  /** Arguments for the inner half: script first. */
  inside: Omit<InsideOptions, 'runDir' | 'redirect'>;
}

/** Runs the inner half and resolves with its exit status. */
export async function runOutside({ root, machine, inside }: OutsideOptions): Promise<number> {
  const name = demoName(process.pid);
  reapCgroups(machine.hierarchies);
  reapRunDirs();
  const runDir = mkdtempSync(path.join(tmpdir(), `${name}-`));
  // Workers have users of their own and read their program from here.
  chmodSync(runDir, 0o711);
  const cgroups = makeCgroups(machine, name, runDir);
  try {
    const options: InsideOptions = { ...inside, runDir, redirect: machine.redirect };
    const file = path.join(runDir, 'inside.json');
    writeFileSync(file, JSON.stringify(options));
    return await superviseInside(startInside(root, cgroups, file));
  } finally {
    await removeAll(cgroups);
    rmSync(runDir, { recursive: true, force: true });
  }
}

function startInside(root: string, cgroups: DemoCgroups, file: string): ChildProcess {
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', path.join(root, 'demo/main.ts')];
  const enter = [path.join(root, 'demo/machine/enter.sh'), cgroups.unified ?? '', cgroups.mountAt ?? '', ...cgroups.v1];
  return spawn(
    'unshare',
    ['--mount', '--propagation', 'private', 'sh', ...enter, '--', ...node, '--inside', file],
    // A session of its own: Ctrl-C reaches the outer half alone, which then ends the pipe.
    { detached: true, stdio: ['pipe', 'inherit', 'inherit'] },
  );
}

/** The inner half stops in order when its standard input ends, which it also does when this process dies. */
async function superviseInside(child: ChildProcess): Promise<number> {
  let stops = 0;
  let timer: NodeJS.Timeout | undefined;
  const kill = (): void => {
    child.kill('SIGKILL');
  };
  const stop = (): void => {
    if (++stops > 1) {
      kill();
      return;
    }
    child.stdin?.end();
    timer = setTimeout(kill, STOP_GRACE_MS);
  };
  child.stdin?.on('error', () => {});
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, stop);
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  clearTimeout(timer);
  if (signal) process.stderr.write(`demo: ended by ${signal}\n`);
  return code ?? 1;
}

async function removeAll(cgroups: DemoCgroups): Promise<void> {
  for (let tries = 0; tries < CGROUP_TRIES; tries++) {
    if (removeCgroups(cgroups)) return;
    await delay(CGROUP_RETRY_MS);
  }
  throw new HeddleError('cgroup-left', `remove the cgroups of "${demoName(process.pid)}": expected them to be empty`);
}

/** Removes what killed ones left in the temporary directory. */
export function reapRunDirs(): void {
  for (const entry of readdirSync(tmpdir())) {
    if (isStale(entry)) rmSync(path.join(tmpdir(), entry), { recursive: true, force: true });
  }
}
