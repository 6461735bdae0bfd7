// One container: the host's own program in the pod's network namespace, with mounts, host name and IPC of its own, in a
// cgroup of its own, started again as its pod's restart policy says.

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Container } from '#kube/resources.ts';
import { Backoff } from '#lib/backoff.ts';
import { HeddleError } from '#lib/errors.ts';
import type { ContainerCgroup } from './cgroup.ts';
import { OutputTail } from './output-tail.ts';

export interface ContainerEnvironment {
  /** File of the network namespace; null for the node's own. */
  netns: string | null;
  hostname: string;
  resolvConf: string;
  hosts: string;
  /** Seen as /srv in the container: where the programs of the manifests are. */
  programs: string;
  /** PATH in the container. */
  path: string;
  env: Record<string, string>;
}

const ENTER = fileURLToPath(new URL('./enter-container.sh', import.meta.url));
const RESTART = { minMs: 200, maxMs: 10_000, jitter: 0.1 };

/** The command line that starts the container's program as the process it is given to. */
export function commandLine(container: Container, environment: ContainerEnvironment, procsFile: string): string[] {
  const program = [...(container.command ?? []), ...(container.args ?? [])];
  if (program.length === 0) {
    throw new HeddleError('no-command', `start container "${container.name}": expected a command, images are not run`);
  }
  const { netns, hostname, resolvConf, hosts, programs } = environment;
  const network = netns === null ? [] : ['nsenter', `--net=${netns}`];
  const namespaces = ['unshare', '--mount', '--uts', '--ipc', '--propagation', 'private'];
  const workingDir = container.workingDir ?? '/srv';
  return [
    ...network,
    ...namespaces,
    ...['sh', ENTER, procsFile, hostname, resolvConf, hosts, programs, workingDir],
    ...userOf(container),
    ...program,
  ];
}

/** securityContext as setpriv(1) takes it. */
function userOf({ securityContext }: Container): string[] {
  if (!securityContext) return [];
  const { runAsUser, runAsGroup = runAsUser, capabilities } = securityContext;
  const flags: string[] = [];
  if (runAsUser !== undefined) flags.push(`--reuid=${runAsUser}`, `--regid=${runAsGroup}`, '--clear-groups');
  if (capabilities?.drop?.includes('ALL')) {
    const kept = (capabilities.add ?? []).map((name) => `,+${name.toLowerCase()}`).join('');
    flags.push(`--bounding-set=-all${kept}`, `--inh-caps=-all${kept}`);
  }
  return flags.length === 0 ? [] : ['setpriv', ...flags, '--'];
}

export class RunningContainer {
  readonly name: string;
  readonly output: OutputTail;
  readonly #container: Container;
  readonly #environment: ContainerEnvironment;
  readonly #cgroup: ContainerCgroup;
  readonly #commandLine: typeof commandLine;
  readonly #backoff = new Backoff(RESTART);
  #child: ChildProcess | null = null;
  #endWait: () => void = () => {};
  #isStopping = false;

  constructor(options: {
    container: Container;
    environment: ContainerEnvironment;
    cgroup: ContainerCgroup;
    onLine?: (line: string) => void;
    /** How it is started, {@link commandLine} unless told otherwise. */
    commandLine?: typeof commandLine;
  }) {
    this.name = options.container.name;
    this.#container = options.container;
    this.#environment = options.environment;
    this.#cgroup = options.cgroup;
    this.#commandLine = options.commandLine ?? commandLine;
    this.output = new OutputTail(options.onLine);
  }

  get isRunning(): boolean {
    return this.#child !== null;
  }

  /**
   * Starts the program and, as long as `shouldRestart` says so of its exit status, starts it again with back-off.
   * Resolves with the last status when it is not started again.
   */
  async run(shouldRestart: (status: number) => boolean): Promise<number> {
    for (;;) {
      const status = await this.#runOnce();
      if (this.#isStopping || !shouldRestart(status)) return status;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, this.#backoff.next());
        this.#endWait = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      if (this.#isStopping) return status;
    }
  }

  /** SIGTERM to the program, then after the grace SIGKILL to all that the container holds. */
  async stop(graceMs: number): Promise<void> {
    this.#isStopping = true;
    this.#endWait();
    const child = this.#child;
    if (child) {
      const gone = new Promise<void>((resolve) => child.once('close', () => resolve()));
      child.kill('SIGTERM');
      const cut = setTimeout(() => this.#cgroup.kill(), graceMs);
      await gone;
      clearTimeout(cut);
    }
    if (existsSync(this.#cgroup.directory)) this.#cgroup.kill();
  }

  async #runOnce(): Promise<number> {
    const [file, ...args] = this.#commandLine(this.#container, this.#environment, this.#cgroup.procsFile) as [
      string,
      ...string[],
    ];
    const child = spawn(file, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: '/',
      env: {
        PATH: this.#environment.path,
        HOME: '/root',
        HOSTNAME: this.#environment.hostname,
        ...this.#environment.env,
        ...Object.fromEntries((this.#container.env ?? []).map(({ name, value = '' }) => [name, value])),
      },
    });
    this.#child = child;
    this.output.follow(child.stdout);
    this.output.follow(child.stderr);
    return await new Promise((resolve) => {
      const end = (status: number): void => {
        this.#child = null;
        resolve(status);
      };
      child.once('error', () => end(127));
      child.once('close', (code) => end(code ?? 128));
    });
  }
}

/** The search path of a container: the pinned Node first, then the machine's programs. */
export function containerPath(root: string): string {
  return [path.join(root, 'node_modules/.bin'), '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'].join(
    ':',
  );
}
