// The worker as the agent would run it: staged in an immutable directory that any uid may read, with a baked cache.

import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { shareCompileCache, stageRuntime, type WorkerRuntime } from '#agent/worker/runtime.ts';
import { silentLog } from '#lib/log.ts';
import { NODE, onCleanUp, ROOT, type SpawnOptions } from './process.ts';

export async function stageWorker(): Promise<WorkerRuntime> {
  const stateDir = mkdtempSync(path.join(os.tmpdir(), 'heddle-stage-'));
  chmodSync(stateDir, 0o755);
  onCleanUp(() => rmSync(stateDir, { recursive: true, force: true }));
  return stageRuntime({ stateDir, sourceRoot: ROOT, nodePath: NODE, log: silentLog });
}

/** How to spawn a worker from a staged runtime. */
export function fromRuntime(runtime: WorkerRuntime, uid: number): SpawnOptions {
  shareCompileCache(runtime, uid);
  const flags = runtime.nodeArguments.slice(0, -1);
  return {
    node: runtime.nodePath,
    flags,
    main: runtime.nodeArguments.at(-1)!,
    cwd: runtime.directory,
    uid,
    environment: { NODE_COMPILE_CACHE: runtime.cacheDirectory },
  };
}
