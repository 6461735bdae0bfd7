// A mesh-node.ts in network, mount, process and cgroup namespaces of its own, driven from a test. It runs beside the
// machine, the demo and other labs, and leaves nothing behind: its processes end with the test's process, namespaces,
// mounts, links and eBPF programs go with them, directories are removed at close or by whoever comes next.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  type DemoCgroups,
  demoName,
  makeCgroups,
  reapCgroups,
  removeCgroups,
  writableHierarchies,
} from '../../../demo/machine/hierarchies.ts';
import { reapRunDirs } from '../../../demo/machine/outside.ts';
import { Channel } from './channel.ts';
import type { LabCommand } from './mesh-inside.ts';
import type { MeshNode, MeshNodeOptions, MeshPod } from './mesh-node.ts';
import type { PodPrograms } from './pod-programs.ts';

const root = path.resolve(import.meta.dirname, '../../..');
const CGROUP_TRIES = 100;
const CGROUP_RETRY_MS = 50;

/** An object of the inner half as the test sees it: every method answers later. */
export type Remote<T> = {
  [K in keyof T as T[K] extends (...args: never[]) => unknown ? K : never]: T[K] extends (...args: infer A) => infer R
    ? (...args: A) => Promise<Awaited<R>>
    : never;
};

/** A program of ours in a pod, asked for things of type `C`. */
export class PodProgram<C> {
  readonly #programs: Remote<PodPrograms>;
  readonly #number: number;

  constructor(programs: Remote<PodPrograms>, number: number) {
    this.#programs = programs;
    this.#number = number;
  }

  async call<T>(command: C): Promise<T> {
    return (await this.#programs.call(this.#number, command)) as T;
  }

  async stop(): Promise<void> {
    await this.#programs.stop(this.#number);
  }
}

export class MeshLab {
  readonly directory: string;
  readonly node: Remote<MeshNode>;
  readonly programs: Remote<PodPrograms>;
  readonly #child: ChildProcess;
  readonly #cgroups: DemoCgroups;

  /** Resolves when the mesh is ready for pods. `label` as in network.ts. */
  static async open(label: string, options: Pick<MeshNodeOptions, 'arguments'> = {}): Promise<MeshLab> {
    execFileSync('make', ['-s', 'build/bpf/heddle.bpf.o', 'build/cni/heddle-cni'], { cwd: root, stdio: 'inherit' });
    const hierarchies = writableHierarchies();
    reapCgroups(hierarchies);
    reapRunDirs();
    const name = `${demoName(process.pid)}-${label}`;
    const directory = mkdtempSync(path.join(tmpdir(), `${name}-`));
    // Workers have users of their own and read their program from here.
    chmodSync(directory, 0o711);
    const mountsCgroup2 = !hierarchies.some(({ isUnified }) => isUnified);
    const cgroups = makeCgroups({ hierarchies, mountsCgroup2 }, name, directory);
    const { unified, mountAt, v1 } = cgroups;
    const enter = [path.join(root, 'demo/machine/enter.sh'), unified ?? '', mountAt ?? '', ...v1];
    const program = [path.resolve('node_modules/.bin/node'), '--disable-warning=ExperimentalWarning'];
    const inside = [...program, path.join(import.meta.dirname, 'mesh-inside.ts')];
    const told: MeshNodeOptions = { directory, label, ...options };
    const child = spawn(
      'unshare',
      ['--mount', '--propagation', 'private', 'sh', ...enter, '--', ...inside, JSON.stringify(told)],
      { cwd: root, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
    );
    const channel = new Channel(child, 'node');
    const lab = new MeshLab(directory, child, channel, cgroups);
    try {
      await channel.ready();
      await lab.node.start();
      return lab;
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  private constructor(directory: string, child: ChildProcess, channel: Channel, cgroups: DemoCgroups) {
    this.directory = directory;
    this.#child = child;
    this.#cgroups = cgroups;
    this.node = remote<MeshNode>('node', channel);
    this.programs = remote<PodPrograms>('programs', channel);
  }

  /** Starts one of our programs in a pod. */
  async program<C>(pod: MeshPod, file: string, prefix: string[] = []): Promise<PodProgram<C>> {
    return new PodProgram<C>(this.programs, await this.programs.fork(pod.netns, file, prefix));
  }

  /** Ends everything. Throws when something is left. */
  async close(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const gone = once(this.#child, 'exit');
      this.#child.kill('SIGKILL');
      await gone;
    }
    for (let tries = 0; !removeCgroups(this.#cgroups); tries++) {
      if (tries === CGROUP_TRIES)
        throw new Error(`remove the cgroups of "${this.directory}": expected them to be empty`);
      await delay(CGROUP_RETRY_MS);
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}

function remote<T>(target: LabCommand['target'], channel: Channel): Remote<T> {
  const call =
    (method: string) =>
    (...args: unknown[]) =>
      channel.call({ target, method, args } satisfies LabCommand);
  // A promise would be asked for `then`, which the object does not have.
  return new Proxy({}, { get: (_, method) => (method === 'then' ? undefined : call(String(method))) }) as Remote<T>;
}
