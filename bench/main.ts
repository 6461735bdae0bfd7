// `make bench SUITE=…`: runs one suite in network and mount namespaces of its own and prints its rows. Nothing here
// gates a commit: numbers want a quiet machine.

import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Command } from 'commander';
import { findHierarchies, WorkerCgroups } from '#agent/worker/cgroup.ts';
import { formatAims, stateAims } from './aims.ts';
import { cgroupRoot } from './mesh-node.ts';
import { runNodeSuite } from './node.ts';
import { runPeersSuite } from './peers.ts';
import { formatRows, type Row } from './row.ts';

interface Options {
  json?: boolean;
  inside?: string;
  seconds: number;
  rounds: number;
  tests?: string[];
}

interface Outcome {
  rows: Row[];
  /** What follows the table. */
  remarks?: string;
  /** What could not be measured, a line each. */
  errors?: string[];
}

type Suite = (directory: string, say: (text: string) => void, options: Options) => Promise<Outcome>;
const SUITES: Record<string, Suite> = {
  node: async (directory, say) => ({ rows: await runNodeSuite(directory, say) }),
  peers: async (directory, say, options) => {
    const { rows, errors } = await runPeersSuite(directory, say, options);
    return { rows, errors, remarks: `Heddle beside its aims\n${formatAims(stateAims(rows))}` };
  },
};

const command = new Command('bench')
  .argument('<suite>', `one of ${Object.keys(SUITES).join(', ')}`)
  .option('--json', 'print {"rows":[…]} and nothing else on standard output')
  .option('--inside <directory>', 'already in namespaces of its own, with a directory to work in')
  .option('--seconds <number>', 'peers: how long one measurement lasts', Number, 3)
  .option('--rounds <number>', 'peers: how many measurements make a median', Number, 3)
  .option('--tests <names>', 'peers: only these, with commas between', (text) => text.split(','))
  .option('--check-config', 'check the arguments and exit');

async function main(argv: string[]): Promise<number> {
  if (argv.includes('--check-config')) return 0;
  command.parse(argv, { from: 'user' });
  const options = command.opts<Options>();
  const { json, inside } = options;
  const suite = SUITES[command.args[0] ?? ''];
  if (suite === undefined) {
    console.error(`bench: unknown suite "${command.args[0]}": expected one of ${Object.keys(SUITES).join(', ')}`);
    return 2;
  }
  if (process.getuid?.() !== 0) {
    console.error('bench: expected root, to make network namespaces');
    return 2;
  }
  if (inside === undefined) return enterNamespaces(argv);
  const say = (text: string) => console.error(`bench: ${text}`);
  const { rows, remarks, errors = [] } = await suite(inside, say, options);
  console.log(json ? JSON.stringify({ rows }) : formatRows(rows));
  // Remarks are for a person: beside JSON they go where the progress goes.
  if (remarks !== undefined) (json ? console.error : console.log)(`\n${remarks}`);
  for (const error of errors) say(`not measured: ${error}`);
  return errors.length > 0 ? 1 : 0;
}

/**
 * The same command again, as the first process of namespaces that end with it, and everything in them too: processes,
 * links, mounts. The directory is removed from outside, when nothing is mounted in it any more.
 */
function enterNamespaces(argv: string[]): number {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'heddle-bench-'));
  // Workers read their program below it with users of their own.
  chmodSync(directory, 0o711);
  const setUp = 'ip link set lo up && mkdir -p /run/netns && mount -t tmpfs heddle-bench /run/netns && exec "$@"';
  try {
    const { status } = spawnSync(
      'unshare',
      [
        ...['--net', '--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child', '--mount-proc'],
        ...['sh', '-c', setUp, 'sh'],
        ...[
          process.execPath,
          '--disable-warning=ExperimentalWarning',
          import.meta.filename,
          ...argv,
          '--inside',
          directory,
        ],
      ],
      { stdio: 'inherit' },
    );
    return status ?? 1;
  } finally {
    // The kernel has ended everything inside by now.
    removeCgroups(cgroupRoot(directory));
    rmSync(directory, { recursive: true, force: true });
  }
}

function removeCgroups(rootName: string): void {
  const cgroups = new WorkerCgroups({
    hierarchies: findHierarchies(),
    rootName,
    limits: { memoryBytes: 0, processes: 0 },
  });
  for (const pod of cgroups.pods()) cgroups.removePod(pod);
  cgroups.removeRoot();
}

process.exitCode = await main(process.argv.slice(2)).catch((error: Error) => {
  console.error(`bench: ${error.message}`);
  return 1;
});
if (process.argv.includes('--inside')) process.exit();
