// Suites as `make test` runs them: unit tests beside the code run in parallel, everything that
// touches the kernel or other processes runs one file at a time.
import { defineConfig } from 'vitest/config';

const kernel = { pool: 'forks', fileParallelism: false, testTimeout: 60_000, hookTimeout: 120_000 } as const;

export default defineConfig({
  test: {
    passWithNoTests: true,
    projects: [
      { test: { name: 'unit', include: ['{agent,api,bench,bpf,cli,controlplane,demo,kube,lib,proxy}/**/*.test.ts'] } },
      { test: { name: 'tidy', include: ['test/*.test.ts'], testTimeout: 60_000 } },
      { test: { name: 'worker', include: ['test/worker/**/*.test.ts'], ...kernel } },
      { test: { name: 'controlplane', include: ['test/controlplane/**/*.test.ts'], ...kernel } },
      { test: { name: 'netns', include: ['test/netns/**/*.test.ts'], ...kernel } },
      { test: { name: 'conformance', include: ['test/conformance/**/*.test.ts'], ...kernel } },
    ],
  },
});
