// The control plane as processes on loopback: an anchor, an issuer, token keys and tokens by the command line, then the
// identity and the destination service. Ports are free ones; everything lies in one directory.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';

const root = path.resolve(import.meta.dirname, '../../..');
const NODE = path.join(root, 'node_modules/.bin/node');

/** A port that is free now. */
export async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}

/** One answer over loopback; rejects when nobody listens. */
export function fetchLocal(port: number, pathname: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const request = http.get({ host: '127.0.0.1', port, path: pathname, agent: false, timeout: 5_000 }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode!, text }));
      response.on('error', reject);
    });
    request.on('timeout', () => request.destroy(new Error('no answer within 5 s')));
    request.on('error', reject);
  });
}

/** A process of the mesh with its output, for when something goes wrong. */
export class MeshProcess {
  readonly child: ChildProcess;
  output = '';

  constructor(main: string, args: readonly string[]) {
    this.child = spawn(NODE, ['--disable-warning=ExperimentalWarning', path.join(root, main), ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      // As the images have it: without it every process brings a compiler.
      env: { ...process.env, NODE_COMPILE_CACHE: path.join(root, 'build/compile-cache') },
    });
    for (const stream of [this.child.stdout!, this.child.stderr!]) {
      stream.on('data', (chunk) => {
        this.output = (this.output + chunk).slice(-200_000);
      });
    }
  }

  /** Resolves when `/ready` says so; rejects with the output when the process ends or takes longer than 20 s. */
  async ready(adminPort: number): Promise<void> {
    const deadlineMs = performance.now() + 20_000;
    let answer = '';
    while (performance.now() < deadlineMs && this.child.exitCode === null) {
      const { status, text } = await fetchLocal(adminPort, '/ready').catch((error) => ({
        status: 0,
        text: String(error),
      }));
      if (status === 200) return;
      answer = text;
      await new Promise<void>((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(`not ready: ${answer}: ${this.output}`);
  }

  /** Ends it and waits until it is gone. */
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => this.child.once('exit', () => resolve()));
    this.child.kill(signal);
    await gone;
  }
}

export class ControlPlaneProcesses {
  readonly #directory: string;
  readonly #manifests: string;
  readonly ports = { identity: 0, identityAdmin: 0, destination: 0, policy: 0, destinationAdmin: 0 };
  identity: MeshProcess | null = null;
  destination: MeshProcess | null = null;

  constructor(directory: string, manifests: string) {
    this.#directory = directory;
    this.#manifests = manifests;
    mkdirSync(directory, { recursive: true });
    const heddle = (...args: string[]) =>
      execFileSync(path.join(root, 'bin/heddle'), ['identity', ...args], { encoding: 'utf8' });
    heddle('create-anchor', '--out', this.#at('anchor'));
    heddle('create-issuer', '--anchor', this.#at('anchor'), '--out', this.#at('issuer'));
    heddle('create-token-key', '--out', this.#at('tokens'));
    copyFileSync(this.#at('anchor/ca.crt'), this.anchors);
    for (const account of ['heddle-agent', 'heddle-destination']) {
      const claims = ['--namespace', 'heddle', '--service-account', account, '--node', 'n1', '--lifetime', '1h'];
      writeFileSync(
        this.#at(`${account}.token`),
        heddle('issue-token', '--key', this.#at('tokens/token.key'), ...claims),
      );
    }
  }

  get anchors(): string {
    return this.#at('anchors.pem');
  }

  /** The agent's options that lead here. */
  get agentArguments(): string[] {
    return [
      ...['--trust-anchors', this.anchors, '--token-file', this.#at('heddle-agent.token')],
      ...['--identity-addr', `127.0.0.1:${this.ports.identity}`],
      ...['--destination-addr', `127.0.0.1:${this.ports.destination}`],
      ...['--policy-addr', `127.0.0.1:${this.ports.policy}`],
    ];
  }

  async start(): Promise<void> {
    for (const name of Object.keys(this.ports) as (keyof typeof this.ports)[]) this.ports[name] ||= await freePort();
    const { ports } = this;
    const source = ['--source', `dir:${this.#manifests}`];
    const anchors = ['--trust-anchors', this.anchors];
    this.identity = new MeshProcess('controlplane/identity/main.ts', [
      ...['--identity-addr', `127.0.0.1:${ports.identity}`, '--admin-addr', `127.0.0.1:${ports.identityAdmin}`],
      ...['--issuer-dir', this.#at('issuer'), '--token-keys', this.#at('tokens/token.pub'), ...anchors, ...source],
    ]);
    await this.identity.ready(ports.identityAdmin);
    this.destination = new MeshProcess('controlplane/destination/main.ts', [
      ...['--destination-addr', `127.0.0.1:${ports.destination}`, '--policy-addr', `127.0.0.1:${ports.policy}`],
      ...['--admin-addr', `127.0.0.1:${ports.destinationAdmin}`, '--identity-addr', `127.0.0.1:${ports.identity}`],
      ...['--token-file', this.#at('heddle-destination.token'), ...anchors, ...source],
    ]);
    await this.destination.ready(ports.destinationAdmin);
  }

  async stop(): Promise<void> {
    await Promise.all([this.destination?.end(), this.identity?.end()]);
  }

  #at(name: string): string {
    return path.join(this.#directory, name);
  }
}
