// The client of the negative TLS cases (test/conformance/tls, Python with tlslite-ng): the list of its cases, and a
// process that makes one attempt after the other.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';

const root = path.resolve(import.meta.dirname, '../../..');
/** Debian's own: another one on the path may be too new or too old for the packages. */
const PYTHON = '/usr/bin/python3';
const MAIN = path.join(root, 'test/conformance/tls/main.py');
const ENVIRONMENT = { PYTHONPATH: path.join(root, 'build/conformance/python'), PYTHONDONTWRITEBYTECODE: '1' };
/** The client gives up on a server after 5 s. */
const ATTEMPT_TIMEOUT_MS = 20_000;

export interface TlsCase {
  /** Of RFC 8446, unless another document is named. */
  section: string;
  name: string;
  /** How the server may end the connection. */
  expected: string[];
}

export function listTlsCases(): TlsCase[] {
  execFileSync('make', ['-s', 'build/conformance/python.stamp'], { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] });
  return JSON.parse(execFileSync(PYTHON, [MAIN, '--list'], { env: ENVIRONMENT, encoding: 'utf8' }));
}

export interface TlsTarget {
  /** host:port that leads to a port of the pod. */
  port: string;
  /** host:port of the proxy's own port. */
  direct: string;
  serverName: string;
  /** Where the client's certificates are. */
  directory: string;
}

export class TlsClient {
  readonly #child: ChildProcess;
  readonly #lines: NodeJS.AsyncIterator<string>;
  #errors = '';

  constructor({ port, direct, serverName, directory }: TlsTarget) {
    this.#child = spawn(PYTHON, [MAIN, port, direct, serverName, directory], {
      env: ENVIRONMENT,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#errors = (this.#errors + text).slice(-20_000);
    });
    this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]();
  }

  /** Makes the attempt of the case with this number in the list, or one that is right, and says how it ended. */
  async attempt(number: number | 'none'): Promise<string> {
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), ATTEMPT_TIMEOUT_MS);
    this.#child.stdin!.write(`${number}\n`);
    const line = await this.#lines.next();
    clearTimeout(timer);
    if (line.done) throw new Error(`attempt "${number}": expected an outcome: ${this.#errors}`);
    return JSON.parse(line.value) as string;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
  }
}
