// A node for tests of the CNI side: a network namespace that stands for the node's own, with the reference plugins and
// cnitool run in it, so that nothing of a test reaches the machine's network or its /var/lib/cni.

import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { insertPlugin, type PluginSection, pluginSection } from '#agent/cni/conflist.ts';

const root = path.resolve(import.meta.dirname, '../../..');
export const HEDDLE_CNI = path.join(root, 'build/cni/heddle-cni');
export const REFERENCE_BIN = path.join(root, 'build/cni-reference/bin');
const VERB_MS = 20_000;

export interface Ran {
  status: number;
  stdout: string;
  stderr: string;
  durationMs: number;
}

export interface PodOptions {
  name: string;
  namespace?: string;
  /** null: a runtime that does not hand annotations over. */
  annotations?: Record<string, string> | null;
  ports?: { hostPort: number; containerPort: number; protocol: string }[];
}

/** Runs a command to its end; a failure is a status, not an exception. */
export function run(command: string, args: string[], env: NodeJS.ProcessEnv = process.env): Promise<Ran> {
  const startedMs = performance.now();
  return new Promise((resolve) => {
    execFile(command, args, { env, timeout: VERB_MS, maxBuffer: 4 << 20 }, (error, stdout, stderr) => {
      const code = error?.code;
      const status = error ? (typeof code === 'number' ? code : -1) : 0;
      resolve({ status, stdout, stderr, durationMs: performance.now() - startedMs });
    });
  });
}

export class CniNode {
  readonly directory: string;
  readonly runDir: string;
  readonly network: string;
  /** Where our plugin is. */
  binDir = path.dirname(HEDDLE_CNI);
  readonly #prefix: string;
  readonly #pods = new Set<string>();

  /** `kind` tells nodes of one test file apart; names carry the process, for who finds leftovers. */
  constructor(kind: string) {
    this.#prefix = `hcni${process.pid}${kind}`;
    this.network = `${this.#prefix}-net`;
    this.directory = mkdtempSync(path.join(os.tmpdir(), `${this.#prefix}-`));
    this.runDir = path.join(this.directory, 'run');
    for (const binary of [HEDDLE_CNI, path.join(REFERENCE_BIN, 'cnitool')]) {
      if (!existsSync(binary))
        throw new Error(`"${binary}" is missing: run "make build build/cni-reference/bin/cnitool"`);
    }
    for (const folder of ['net.d', 'cache', 'ipam', 'run'])
      mkdirSync(path.join(this.directory, folder), { mode: 0o700 });
    // libcni's cache directory is a mount point in the node's mount namespace.
    mkdirSync('/var/lib/cni', { recursive: true });
    execFileSync('ip', ['netns', 'add', `${this.#prefix}-node`]);
    execFileSync('ip', ['-n', `${this.#prefix}-node`, 'link', 'set', 'lo', 'up']);
  }

  get confDir(): string {
    return path.join(this.directory, 'net.d');
  }

  /** Writes the node's list: ptp, host-local and portmap, and our plugin behind them where a section is given. */
  configure(version: string, section: Partial<PluginSection> | null): void {
    const text = JSON.stringify({
      cniVersion: version,
      name: this.network,
      plugins: [
        {
          type: 'ptp',
          ipMasq: false,
          ipam: {
            type: 'host-local',
            dataDir: path.join(this.directory, 'ipam'),
            ranges: [[{ subnet: '10.213.0.0/16' }], [{ subnet: 'fd13::/64' }]],
            routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
          },
        },
        { type: 'portmap', backend: 'nftables', capabilities: { portMappings: true }, snat: false },
      ],
    });
    const bytes = new TextEncoder().encode(text);
    const whole = section === null ? bytes : insertPlugin(bytes, pluginSection({ runDir: this.runDir, ...section }));
    writeFileSync(path.join(this.confDir, '10-node.conflist'), whole);
  }

  /** A pod's network namespace; returns its path. */
  makePod(name: string): string {
    const netns = `${this.#prefix}-${name}`;
    execFileSync('ip', ['netns', 'add', netns]);
    this.#pods.add(netns);
    // Duplicate address detection costs a second for each address; nobody else is on this link.
    const setting = 'net.ipv6.conf.default.accept_dad=0';
    execFileSync('ip', ['netns', 'exec', netns, 'sysctl', '-qw', setting, setting.replace('default', 'all')]);
    return `/run/netns/${netns}`;
  }

  inodeOf(name: string): number {
    return statSync(`/run/netns/${this.#prefix}-${name}`).ino;
  }

  removePod(name: string): void {
    const netns = `${this.#prefix}-${name}`;
    execFileSync('ip', ['netns', 'delete', netns]);
    this.#pods.delete(netns);
  }

  /** Runs a command in the node's network namespace, with libcni's cache in the test's own directory. */
  onNode(command: string[], env: Record<string, string> = {}): Promise<Ran> {
    const mount = `mount --bind ${path.join(this.directory, 'cache')} /var/lib/cni && exec "$0" "$@"`;
    return run('ip', ['netns', 'exec', `${this.#prefix}-node`, 'sh', '-c', mount, ...command], {
      ...process.env,
      ...env,
    });
  }

  /** Starts a command in a pod; the caller kills it. */
  startInPod(name: string, command: string[]): ChildProcess {
    return spawn('ip', ['netns', 'exec', `${this.#prefix}-${name}`, ...command], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
  }

  /** Runs a command in a pod. */
  inPod(name: string, command: string[]): Promise<Ran> {
    return run('ip', ['netns', 'exec', `${this.#prefix}-${name}`, ...command]);
  }

  /** One verb of the chain through cnitool, as a runtime would run it. */
  cnitool(verb: 'add' | 'check' | 'del' | 'gc' | 'status', pod: PodOptions): Promise<Ran> {
    const { name, namespace = 'shop', annotations = {}, ports = [] } = pod;
    const capabilities = {
      ...(annotations === null
        ? {}
        : { 'io.kubernetes.cri.pod-annotations': { 'kubernetes.io/config.source': 'api', ...annotations } }),
      ...(ports.length === 0 ? {} : { portMappings: ports }),
    };
    return this.onNode(
      [path.join(REFERENCE_BIN, 'cnitool'), verb, this.network, `/run/netns/${this.#prefix}-${name}`],
      {
        CNI_PATH: `${this.binDir}:${REFERENCE_BIN}`,
        NETCONFPATH: this.confDir,
        CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_UID=uid-${name}`,
        CAP_ARGS: JSON.stringify(capabilities),
      },
    );
  }

  /** Addresses that host-local has given out and not got back. */
  leases(): string[] {
    const folder = path.join(this.directory, 'ipam', this.network);
    return existsSync(folder)
      ? readdirSync(folder)
          .filter((name) => /^[0-9a-f.:]+$/.test(name))
          .sort()
      : [];
  }

  /** Files that the plugin left in a folder of the run directory, parsed. */
  records(folder: 'missed' | 'open' | 'tombstones'): Record<string, unknown>[] {
    const where = path.join(this.runDir, folder);
    if (!existsSync(where)) return [];
    return readdirSync(where).map((name) => JSON.parse(readFileSync(path.join(where, name), 'utf8')));
  }

  forgetRecords(): void {
    for (const folder of ['missed', 'open', 'tombstones'])
      rmSync(path.join(this.runDir, folder), { recursive: true, force: true });
  }

  close(): void {
    for (const netns of [...this.#pods, `${this.#prefix}-node`]) {
      try {
        execFileSync('ip', ['netns', 'delete', netns], { stdio: 'ignore' });
      } catch {
        // Removed by its test already; what matters is that the others go.
      }
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}
