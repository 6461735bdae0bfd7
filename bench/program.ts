// A program that a benchmark runs inside a network namespace and that is gone when the benchmark is.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';

export interface ProgramOptions {
  name: string;
  netns: string;
  argv: string[];
  /** It is ready when this accepts. */
  listens: { host: string; port: number };
}

export interface Program {
  name: string;
  pid: number;
  stop(): void;
}

const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts the program and waits until it listens, ten seconds at most. */
export async function startProgram(options: ProgramOptions): Promise<Program> {
  const { name, netns, argv, listens } = options;
  // `ip netns exec` replaces itself by the program, so the child's pid is the program's.
  const child = spawn('ip', ['netns', 'exec', netns, ...argv], { stdio: ['ignore', 'ignore', 'pipe'] });
  running.add(child);
  let output = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output = (output + text).slice(-4000);
  });
  child.on('close', () => running.delete(child));
  const deadlineMs = performance.now() + 10_000;
  while (!isListening(netns, listens)) {
    if (child.exitCode !== null || performance.now() > deadlineMs) {
      child.kill('SIGKILL');
      throw new Error(`${name} does not listen on ${listens.host}:${listens.port}: ${output}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return { name, pid: child.pid!, stop: () => child.kill('SIGKILL') };
}

function isListening(netns: string, { host, port }: { host: string; port: number }): boolean {
  const { stdout } = spawnSync('ip', ['netns', 'exec', netns, 'ss', '-Htln', `sport = :${port}`], { encoding: 'utf8' });
  return stdout.includes(`${host}:${port}`) || stdout.includes(`0.0.0.0:${port}`) || stdout.includes(`*:${port}`);
}
