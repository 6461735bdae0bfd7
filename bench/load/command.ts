// Runs a load generator in a network namespace and hands back what it printed.

import { spawn } from 'node:child_process';

export interface Target {
  /** Network namespace that the load comes from. */
  netns: string;
  host: string;
  port: number;
}

const GRACE_MS = 20_000;

/** The standard output. Rejects when the program fails or runs 20 seconds longer than `seconds`. */
export async function runLoad(netns: string, argv: readonly string[], seconds: number): Promise<string> {
  const child = spawn('ip', ['netns', 'exec', netns, ...argv], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: seconds * 1000 + GRACE_MS,
    killSignal: 'SIGKILL',
  });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
    });
  }
  const ended = await new Promise<number | string | null>((resolve, reject) => {
    child.on('error', reject).on('close', (status, signal) => resolve(status ?? signal));
  });
  if (ended === 0) return output.stdout;
  const said = `${output.stderr}${output.stdout}`.trim().slice(-500);
  throw new Error(`${argv.slice(0, 2).join(' ')} ended with ${ended}: ${said}`);
}
