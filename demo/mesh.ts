// The mesh's own processes on the demo's node: identity, destination with policy, agent; their certificates, keys and
// tokens made by the command line as an operator would. All addresses are of the node's own network namespace.

import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { DEFAULT_CONTROL_PLANE_NAMESPACE, Port } from '#api/names.ts';
import type { HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { runCommand } from './runner/command.ts';
import { MeshProcess } from './runner/process.ts';

export type MeshProcessName = 'identity' | 'destination' | 'agent';

export interface MeshOptions {
  root: string;
  runDir: string;
  manifests: string;
  nodeName: string;
  redirect: 'ebpf' | 'nftables';
  log: Log;
  onLoss: (error: HeddleError) => void;
  /** Further arguments of each. */
  arguments?: Partial<Record<MeshProcessName, readonly string[]>>;
}

export const AGENT_URL = `http://127.0.0.1:${Port.agentAdmin}`;
const CLI_TIMEOUT_MS = 20_000;
const READY_TIMEOUT_MS = 60_000;
const IDENTITY_ADMIN = '127.0.0.1:9990';
const DESTINATION_ADMIN = '127.0.0.1:9996';

export class Mesh {
  readonly #options: MeshOptions;
  readonly #keys: string;
  readonly #processes = new Map<MeshProcessName, MeshProcess>();

  constructor(options: MeshOptions) {
    this.#options = options;
    this.#keys = path.join(options.runDir, 'identity');
  }

  /** The agent's run directory, which the CNI plugin is told. */
  get agentRunDir(): string {
    return path.join(this.#options.runDir, 'agent');
  }

  /** Brings everything up, each once what it needs is ready. Throws `not-ready` or `command-failed`. */
  async start(signal: AbortSignal): Promise<void> {
    await this.#makeIdentity();
    await this.startProcess('identity', signal);
    // The agent comes up without a control plane too, and retries.
    await Promise.all([this.startProcess('destination', signal), this.startProcess('agent', signal)]);
  }

  /** Starts one of them, the first time or again. Resolves when it is ready. */
  async startProcess(name: MeshProcessName, signal: AbortSignal): Promise<void> {
    const start = {
      identity: () => this.#identity(),
      destination: () => this.#destination(),
      agent: () => this.#agent(),
    };
    const started = start[name]();
    this.#processes.delete(name);
    this.#processes.set(name, started);
    await started.waitReady(signal);
  }

  /** Ends one of them with SIGKILL; resolves when it is gone. */
  async killProcess(name: MeshProcessName): Promise<void> {
    await this.#processes.get(name)?.stop('SIGKILL');
  }

  get agentPid(): number {
    return this.#processes.get('agent')?.pid ?? 0;
  }

  /** Keys, certificates and tokens: `anchor`, `issuer`, `tokens`, `anchors.pem`. */
  get keysDirectory(): string {
    return this.#keys;
  }

  /** Agent first: it says goodbye to its workers' streams, and needs nobody for it. */
  async stop(): Promise<void> {
    for (const running of [...this.#processes.values()].toReversed()) await running.stop();
  }

  async #makeIdentity(): Promise<void> {
    mkdirSync(this.#keys, { recursive: true, mode: 0o700 });
    const at = (...parts: string[]): string => path.join(this.#keys, ...parts);
    await Promise.all([
      this.#heddle('identity', 'create-anchor', '--out', at('anchor')).then(() =>
        this.#heddle('identity', 'create-issuer', '--anchor', at('anchor'), '--out', at('issuer')),
      ),
      this.#heddle('identity', 'create-token-key', '--out', at('tokens')).then(() =>
        Promise.all([this.#token('heddle-agent'), this.#token('heddle-destination')]),
      ),
    ]);
    // The anchor's key is of no more use: a real one is kept away from the cluster.
    copyFileSync(at('anchor', 'ca.crt'), at('anchors.pem'));
  }

  /** A token for one of the mesh's own ServiceAccounts, bound to this node. */
  async #token(serviceAccount: string): Promise<void> {
    const claims = ['--namespace', DEFAULT_CONTROL_PLANE_NAMESPACE, '--service-account', serviceAccount];
    const binding = ['--node', this.#options.nodeName, '--lifetime', '24h'];
    const key = path.join(this.#keys, 'tokens/token.key');
    const token = await this.#heddle('identity', 'issue-token', '--key', key, ...claims, ...binding);
    writeFileSync(path.join(this.#keys, `${serviceAccount}.token`), token, { mode: 0o600 });
  }

  #identity(): MeshProcess {
    const at = (...parts: string[]): string => path.join(this.#keys, ...parts);
    return this.#spawn('identity', 'controlplane/identity/main.ts', `http://${IDENTITY_ADMIN}/ready`, [
      ...['--identity-addr', `127.0.0.1:${Port.identity}`, '--admin-addr', IDENTITY_ADMIN],
      ...['--issuer-dir', at('issuer'), '--trust-anchors', at('anchors.pem'), '--token-keys', at('tokens/token.pub')],
      ...['--source', `dir:${this.#options.manifests}`],
    ]);
  }

  #destination(): MeshProcess {
    return this.#spawn('destination', 'controlplane/destination/main.ts', `http://${DESTINATION_ADMIN}/ready`, [
      ...['--destination-addr', `127.0.0.1:${Port.destination}`, '--policy-addr', `127.0.0.1:${Port.policy}`],
      ...['--admin-addr', DESTINATION_ADMIN, '--source', `dir:${this.#options.manifests}`],
      ...['--identity-addr', `127.0.0.1:${Port.identity}`, '--trust-anchors', path.join(this.#keys, 'anchors.pem')],
      ...['--token-file', path.join(this.#keys, 'heddle-destination.token')],
    ]);
  }

  #agent(): MeshProcess {
    const { runDir, manifests, nodeName, redirect } = this.#options;
    const stateDir = path.join(runDir, 'agent-state');
    // Workers read their program from here with users of their own.
    for (const directory of [stateDir, this.agentRunDir]) mkdirSync(directory, { recursive: true, mode: 0o755 });
    return this.#spawn('agent', 'agent/main.ts', `${AGENT_URL}/ready`, [
      ...['--node-name', nodeName, '--run-dir', this.agentRunDir, '--state-dir', stateDir],
      ...['--bpffs-dir', path.join(this.agentRunDir, 'bpf'), '--redirect', redirect],
      ...['--source', `dir:${manifests}`, '--trust-anchors', path.join(this.#keys, 'anchors.pem')],
      ...['--token-file', path.join(this.#keys, 'heddle-agent.token')],
      ...['--identity-addr', `127.0.0.1:${Port.identity}`, '--destination-addr', `127.0.0.1:${Port.destination}`],
      ...['--policy-addr', `127.0.0.1:${Port.policy}`, '--admin-addr', `127.0.0.1:${Port.agentAdmin}`],
    ]);
  }

  #spawn(name: MeshProcessName, main: string, readyUrl: string, args: string[]): MeshProcess {
    const { root, log, onLoss } = this.#options;
    const program = [process.execPath, '--disable-warning=ExperimentalWarning', path.join(root, main)] as const;
    return new MeshProcess({
      name,
      argv: [...program, ...args, ...(this.#options.arguments?.[name] ?? [])],
      readyUrl,
      // As in the image: without the cache each process carries the compiler's memory.
      environment: { NODE_COMPILE_CACHE: path.join(root, 'build/node-cache') },
      readyTimeoutMs: READY_TIMEOUT_MS,
      onLine: (line) => log.debug('output', { process: name, line }),
      onLoss,
    });
  }

  async #heddle(...args: string[]): Promise<string> {
    return await runCommand([path.join(this.#options.root, 'bin/heddle'), ...args], { timeoutMs: CLI_TIMEOUT_MS });
  }
}
