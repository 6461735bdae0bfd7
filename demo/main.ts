// `make demo`: the main job on one machine. The outer half looks at the machine and makes namespaces; the inner half,
// started in them, brings up the mesh and the pods and shows what they do. `--once` prints one JSON document instead.
// Exit status: 0 done, 1 something failed, 2 the machine cannot run it and nothing was changed.

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Command, Option } from 'commander';
import { describeError, HeddleError } from '#lib/errors.ts';
import { createLog } from '#lib/log.ts';
import { enterNode, type InsideOptions } from './machine/inside.ts';
import { runOutside } from './machine/outside.ts';
import { inspectMachine, type Machine } from './machine/preflight.ts';
import { Session } from './session.ts';
import { measureOnce, showLive } from './show.ts';

const root = path.resolve(import.meta.dirname, '..');

const CLOSE_TIMEOUT_MS = 15_000;

interface Flags {
  once?: boolean;
  verbose?: boolean;
  manifests: string;
  redirect?: 'ebpf' | 'nftables';
  checkConfig?: boolean;
  inside?: string;
}

function parseFlags(): Flags {
  return new Command('demo')
    .description('Brings up real pods, meshes them, and shows who talks to whom.')
    .option('--once', 'run for about 20 seconds and print one JSON document')
    .option('--verbose', 'log what every process says, on standard error')
    .option('--manifests <dir>', 'pods to run', path.join(root, 'demo/manifests'))
    .addOption(new Option('--redirect <kind>', 'how pods are redirected').choices(['ebpf', 'nftables']))
    .option('--check-config', 'check the options and exit')
    .option('--inside <file>', 'the inner half, started by the outer one')
    .parse()
    .opts<Flags>();
}

function progress(text: string): void {
  process.stderr.write(`demo: ${text}\n`);
}

async function runInside(file: string): Promise<number> {
  const options = JSON.parse(readFileSync(file, 'utf8')) as InsideOptions;
  const { log } = createLog({ level: options.isVerbose ? 'debug' : 'error' });
  const session = new Session({ inside: options, cgroup2: enterNode(), log, progress });
  // The outer half ends the pipe when it is told to stop, and the kernel does when it dies.
  process.stdin.on('end', () => session.abort()).resume();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => session.abort());
  let status = 1;
  try {
    await session.start();
    if (session.signal.aborted) return status;
    if (options.isOnce) {
      progress('all pods ready, measuring');
      const document = await measureOnce(session, options.root);
      if (!document) return status;
      process.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
      status = document.failures.length === 0 ? 0 : 1;
    } else {
      await showLive(session);
      status = 0;
    }
  } finally {
    progress('stopping pods and mesh');
    // What does not stop in order is ended by the kernel, with this process.
    setTimeout(() => process.exit(1), CLOSE_TIMEOUT_MS).unref();
    await session.close();
  }
  return status;
}

async function runOutsideHalf(flags: Flags): Promise<number> {
  let machine: Machine;
  try {
    machine = inspectMachine(root, flags.redirect);
  } catch (error) {
    if (!(error instanceof HeddleError && error.code === 'unfit-machine')) throw error;
    progress(describeError(error));
    return 2;
  }
  return await runOutside({
    root,
    machine,
    inside: {
      root,
      manifests: path.resolve(flags.manifests),
      isOnce: flags.once === true,
      isVerbose: flags.verbose === true,
    },
  });
}

const flags = parseFlags();
try {
  if (!flags.checkConfig) {
    const status = flags.inside === undefined ? await runOutsideHalf(flags) : await runInside(flags.inside);
    // Not left to the event loop: the pipe from the outer half and idle connections would keep it going.
    process.exit(status);
  }
} catch (error) {
  progress(describeError(error));
  process.exit(1);
}
