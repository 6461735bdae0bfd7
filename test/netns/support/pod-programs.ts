// Programs in pods: those of ours that take commands over IPC (answerCommands in channel.ts), commands that run to
// their end, and servers that run until they are stopped. All end with the process that started them.

import { type ChildProcess, fork, spawn } from 'node:child_process';
import path from 'node:path';
import { Channel } from './channel.ts';

const OUTPUT_MAX = 64 * 1024;
const COMMAND_TIMEOUT_MS = 30_000;

export interface Ran {
  status: number;
  stdout: string;
  stderr: string;
}

interface Running {
  child: ChildProcess;
  channel: Channel | null;
  output: string;
}

export class PodPrograms {
  readonly #running: Running[] = [];

  /** Starts one of our programs in a namespace; returns its number. `prefix` is a command that becomes it. */
  async fork(netns: string, file: string, prefix: string[] = []): Promise<number> {
    const [command, ...args] = ['ip', 'netns', 'exec', netns, ...prefix, process.execPath] as [string, ...string[]];
    const child = fork(path.join(import.meta.dirname, file), {
      execPath: command,
      execArgv: [...args, '--disable-warning=ExperimentalWarning'],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    const channel = new Channel(child, file);
    await channel.ready();
    return this.#running.push({ child, channel, output: '' }) - 1;
  }

  async call(number: number, command: unknown): Promise<unknown> {
    const { channel } = this.#running[number]!;
    if (!channel) throw new Error(`call program ${number}: expected one that takes commands`);
    return await channel.call(command);
  }

  /** Starts a server and waits until its output contains `ready`, ten seconds at most. Returns its number. */
  async serve(netns: string, argv: string[], ready: string): Promise<number> {
    const child = spawn('ip', ['netns', 'exec', netns, ...argv], { stdio: ['ignore', 'pipe', 'pipe'] });
    const running: Running = { child, channel: null, output: '' };
    await new Promise<void>((resolve, reject) => {
      const fail = (how: string) => reject(new Error(`${argv[0]}: ${how}, expected "${ready}": ${running.output}`));
      const timer = setTimeout(() => fail('not ready within 10 s'), 10_000);
      const said = (chunk: Buffer) => {
        running.output = (running.output + chunk.toString('latin1')).slice(-OUTPUT_MAX);
        if (!running.output.includes(ready)) return;
        clearTimeout(timer);
        resolve();
      };
      child.stdout.on('data', said);
      child.stderr.on('data', said);
      child.once('error', (error) => fail(error.message));
      child.once('exit', (status) => fail(`ended with ${status}`));
    });
    return this.#running.push(running) - 1;
  }

  pid(number: number): number {
    return this.#running[number]!.child.pid!;
  }

  /** Ends a program and waits until it is gone; returns the last that a server wrote. */
  async stop(number: number, signal: NodeJS.Signals = 'SIGKILL'): Promise<string> {
    const { child, output } = this.#running[number]!;
    if (child.exitCode === null && child.signalCode === null) {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill(signal);
      await gone;
    }
    return output;
  }

  /** Runs a command to its end; a failure is a status, not an error. `netns` null is the node itself. */
  run(netns: string | null, argv: string[], stdin = ''): Promise<Ran> {
    const [command, ...args] = [...(netns === null ? [] : ['ip', 'netns', 'exec', netns]), ...argv] as [string];
    const child = spawn(command, args, { stdio: 'pipe', timeout: COMMAND_TIMEOUT_MS });
    const ran: Ran = { status: -1, stdout: '', stderr: '' };
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      ran.stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      ran.stderr += text;
    });
    // A command may end without reading everything.
    child.stdin.on('error', () => {});
    child.stdin.end(stdin);
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (status) => resolve({ ...ran, status: status ?? -1 }));
    });
  }
}
