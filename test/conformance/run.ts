// `make conformance`: runs the suites of this folder and prints how many cases of each passed. The exit status is 0 only
// when all did.
//   node test/conformance/run.ts [--json]

import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { type Counts, forgetCounts, readCounts, readLines, SUITES } from './support/counts.ts';

const root = path.resolve(import.meta.dirname, '../..');

const NAMES: Record<(typeof SUITES)[number], string> = {
  h2spec: 'HTTP/2, h2spec --strict through a worker to an origin',
  grpcInterop: 'gRPC interop through a pair with mutual TLS',
  http1: 'HTTP/1.1 literate cases, beside nginx and haproxy',
  tls: 'TLS 1.3 negative cases against a worker',
  websocket: 'WebSocket through a pair with mutual TLS',
};

function main(args: readonly string[]): number {
  const isJson = args.includes('--json');
  forgetCounts();
  const { status, error } = spawnSync(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', 'node_modules/vitest/vitest.mjs', 'run', '--project=conformance'],
    // Standard output is for the counts alone.
    { cwd: root, stdio: ['ignore', isJson ? 2 : 'inherit', 'inherit'] },
  );
  if (error) console.error(`conformance: ${error.message}`);
  const counts = SUITES.map((suite) => [suite, readCounts(suite) ?? { passed: 0, total: 0 }] as const);
  if (isJson) console.log(JSON.stringify(Object.fromEntries(counts)));
  else print(counts);
  return status === 0 && counts.every(([, count]) => isWhole(count)) ? 0 : 1;
}

function print(counts: readonly (readonly [suite: (typeof SUITES)[number], counts: Counts])[]): void {
  for (const [suite] of counts) {
    const lines = readLines(suite);
    if (lines !== '') console.log(`\n== ${NAMES[suite]}\n${lines}`);
  }
  for (const [suite, { passed, total }] of counts) console.log(`${NAMES[suite]}: ${passed} of ${total} passed`);
}

function isWhole({ passed, total }: Counts): boolean {
  return total > 0 && passed === total;
}

process.exitCode = main(process.argv.slice(2));
