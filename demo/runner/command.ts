// Runs a command to its end, bounded in time and output.

import { spawn } from 'node:child_process';
import { HeddleError } from '#lib/errors.ts';

const OUTPUT_BYTES_MAX = 1024 * 1024;

export interface CommandOptions {
  timeoutMs: number;
  env?: Record<string, string>;
}

/** Resolves with standard output. Throws `command-failed` with the last line that the command said. */
export async function runCommand(argv: readonly [string, ...string[]], options: CommandOptions): Promise<string> {
  const [file, ...args] = argv;
  return await new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: options.timeoutMs,
      killSignal: 'SIGKILL',
      env: { ...process.env, ...options.env },
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      if (stdout.length < OUTPUT_BYTES_MAX) stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (stderr.length < OUTPUT_BYTES_MAX) stderr += text;
    });
    const fail = (why: string, cause?: unknown): void =>
      reject(new HeddleError('command-failed', `run "${argv.join(' ')}": ${why}`, { cause }));
    child.once('error', (error) => fail(error.message, error));
    child.once('close', (code, signal) => {
      if (code === 0) return resolve(stdout);
      const said = `${stdout}\n${stderr}`.trim().split('\n').at(-1);
      fail(said || (signal ? `ended by ${signal}` : `ended with status ${code}`));
    });
  });
}
