// Runs the suites one after another and closes with `N passed, N failed` over all of them. A skipped test counts as
// failed in continuous integration: `CI=true` is how it is known.
//   node test/run.ts all|check|<suite>…

import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';

interface Tally {
  passed: number;
  failed: number;
  skipped: number;
}

interface Suite {
  name: string;
  run: () => Tally;
}

const root = path.resolve(import.meta.dirname, '..');
const reports = path.join(root, 'build/reports');

/** A command that passes or fails as one test. */
function command(name: string, argv: string[], cwd = root): Suite {
  return {
    name,
    run: () => {
      const [file, ...args] = argv as [string, ...string[]];
      const { status, error } = spawnSync(file, args, { cwd, stdio: ['ignore', 'inherit', 'inherit'] });
      if (error) console.error(`${name}: ${error.message}`);
      return status === 0 ? { passed: 1, failed: 0, skipped: 0 } : { passed: 0, failed: 1, skipped: 0 };
    },
  };
}

/** A vitest project; the counts come from its JSON report, and a run that reports nothing has failed. */
function vitest(project: string): Suite {
  return {
    name: project,
    run: () => {
      const report = path.join(reports, `${project}.json`);
      rmSync(report, { force: true });
      const { status } = spawnSync(
        path.join(root, 'node_modules/.bin/node'),
        [
          '--disable-warning=ExperimentalWarning',
          'node_modules/vitest/vitest.mjs',
          'run',
          `--project=${project}`,
          '--reporter=default',
          '--reporter=json',
          `--outputFile.json=${report}`,
        ],
        { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] },
      );
      return readReport(report, status === 0);
    },
  };
}

function readReport(file: string, exitedWell: boolean): Tally {
  let report: { numPassedTests: number; numFailedTests: number; numPendingTests: number; numTodoTests: number };
  try {
    report = JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return { passed: 0, failed: 1, skipped: 0 };
  }
  const failed = report.numFailedTests > 0 ? report.numFailedTests : exitedWell ? 0 : 1;
  return { passed: report.numPassedTests, failed, skipped: report.numPendingTests + report.numTodoTests };
}

/** `go test` counts by the lines of its JSON stream. */
function goTest(directory: string): Suite {
  return {
    name: `go test ${directory}`,
    run: () => {
      const { stdout } = spawnSync('go', ['test', '-json', './...'], {
        cwd: path.join(root, directory),
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'inherit'],
        maxBuffer: 256 * 1024 * 1024,
      });
      const tally: Tally = { passed: 0, failed: 0, skipped: 0 };
      for (const line of stdout.split('\n').filter((text) => text.startsWith('{'))) {
        const event = JSON.parse(line) as { Action: string; Test?: string; Output?: string };
        if (event.Action === 'pass' && event.Test) tally.passed++;
        if (event.Action === 'skip' && event.Test) tally.skipped++;
        if (event.Action === 'fail') tally.failed++;
        if (event.Action === 'output' && /^\s*(--- FAIL|.*_test\.go:|panic:)/.test(event.Output ?? '')) {
          process.stdout.write(event.Output ?? '');
        }
      }
      return tally.passed + tally.failed === 0 ? { ...tally, failed: 1 } : tally;
    },
  };
}

const node = path.join(root, 'node_modules/.bin/node');
const CHECK: Suite[] = [
  command('format and lint', [node, 'node_modules/@biomejs/biome/bin/biome', 'check', '--error-on-warnings', '.']),
  command('types', [node, 'node_modules/typescript/bin/tsc', '--noEmit']),
  command('go vet', ['go', 'vet', './...'], path.join(root, 'cni')),
  vitest('tidy'),
];
const SUITES: Record<string, Suite[]> = {
  check: CHECK,
  unit: [vitest('unit'), goTest('cni')],
  worker: [vitest('worker')],
  controlplane: [vitest('controlplane')],
  netns: [vitest('netns')],
  conformance: [vitest('conformance')],
};
SUITES.all = Object.values(SUITES).flat();

function main(names: string[]): number {
  const suites = names.flatMap((name) => {
    const found = SUITES[name];
    if (!found) throw new Error(`unknown suite "${name}": expected one of ${Object.keys(SUITES).join(', ')}`);
    return found;
  });
  mkdirSync(reports, { recursive: true });
  const total: Tally = { passed: 0, failed: 0, skipped: 0 };
  for (const suite of suites) {
    const startedMs = performance.now();
    console.log(`\n== ${suite.name}`);
    const tally = suite.run();
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    console.log(
      `== ${suite.name}: ${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped in ${seconds} s`,
    );
    total.passed += tally.passed;
    total.failed += tally.failed;
    total.skipped += tally.skipped;
  }
  const failed = total.failed + (process.env.CI === 'true' ? total.skipped : 0);
  console.log(`\n${total.passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

process.exitCode = main(process.argv.slice(2));
