// Takes the plugin off the node in the order in which nothing breaks: the configuration, then the runtime reads it,
// then, when no pod is left whose removal would still call the plugin, its executable. A runtime that cannot find the
// plugin of a pod's list fails that pod's DEL for ever; the plugin without an agent harms nobody.

import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { HeddleError } from '#lib/errors.ts';
import { isErrno } from '#lib/libc.ts';
import type { Log } from '#lib/log.ts';
import { removeLeftovers } from './atomic-file.ts';
import { removeBinary } from './binary.ts';
import { applySteps, pokeRuntime, readConfDirectory } from './conf-directory.ts';
import { PLUGIN_TYPE } from './conflist.ts';
import { type InstallStep, planRemoval } from './install-plan.ts';

/** Where libcni notes each attachment and the list it was made by. */
export const DEFAULT_CACHE_DIR = '/var/lib/cni';
/** Containerd reads within 0.4 s of a rename; CRI-O likewise. */
const RELOAD_MS = 2_000;
const ATTEMPTS_MAX = 5;
/** A note holds a list and a result. */
const NOTE_BYTES_MAX = 4 * 1024 * 1024;

export interface UninstallOptions {
  confDir: string;
  binDirs: readonly string[];
  cacheDir?: string;
  log: Log;
  /** Resolves when the runtime has loaded a configuration without the plugin; without it, two seconds pass. */
  confirmReload?: () => Promise<void>;
  /** Remove the executable even from pods that would still call it: for a node that is drained for good. */
  force?: boolean;
}

export interface UninstallResult {
  /** Files changed or removed, relative to the configuration directory. */
  changed: string[];
  /** Pods (container IDs) whose removal may still call the plugin; while there are any, the executable stays. */
  pods: string[];
  binaryRemoved: boolean;
}

/** Uninstalls; repeatable. Throws when the configuration cannot be brought into a state without the plugin. */
export async function uninstallCni(options: UninstallOptions): Promise<UninstallResult> {
  const { confDir, binDirs, cacheDir = DEFAULT_CACHE_DIR, log, force = false } = options;
  const changed = removeConfiguration(confDir);
  if (changed.length > 0) {
    log.info('CNI configuration removed', { files: changed });
    await (options.confirmReload?.() ?? new Promise<void>((resolve) => setTimeout(resolve, RELOAD_MS)));
  }
  const pods = podsOfPlugin(cacheDir);
  if (pods.length > 0 && !force) {
    log.warn('CNI plugin stays until the pods that were made with it are gone', { pods: pods.length });
    return { changed, pods, binaryRemoved: false };
  }
  for (const binDir of binDirs) removeBinary(binDir);
  log.info('CNI plugin removed', { binDirs });
  return { changed, pods, binaryRemoved: true };
}

/** Containers whose stored list names the plugin. A note that cannot be read counts: better to stay too long. */
export function podsOfPlugin(cacheDir: string): string[] {
  const results = path.join(cacheDir, 'results');
  const pods = new Set<string>();
  for (const name of namesIn(results)) {
    const note = readNote(path.join(results, name));
    if (note === null) continue;
    if (note === 'unreadable') pods.add(name);
    else if (note.config.includes(`"${PLUGIN_TYPE}"`)) pods.add(note.containerId);
  }
  return [...pods].sort();
}

function removeConfiguration(confDir: string): string[] {
  const changed = new Set<string>();
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    let steps: InstallStep[];
    try {
      const picture = readConfDirectory(confDir);
      steps = planRemoval(picture).steps;
      removeLeftovers(confDir);
      if (steps.length === 0) return [...changed];
      applySteps(confDir, picture, steps);
    } catch (error) {
      if (error instanceof HeddleError && error.code === 'no-directory') return [...changed];
      // Somebody else was faster: look again.
      if (error instanceof HeddleError && error.code === 'file-changed') continue;
      throw error;
    }
    for (const step of steps) changed.add(step.path);
    pokeRuntime(confDir);
  }
  throw new HeddleError(
    'undone',
    `take the plugin out of "${confDir}": put back ${ATTEMPTS_MAX} times: expected the agent, or who else installs it, to be stopped`,
  );
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return [];
    throw error;
  }
}

/** libcni's `cniCacheV1`: the list as it was, in base64. null when the note went meanwhile. */
function readNote(file: string): { containerId: string; config: string } | 'unreadable' | null {
  try {
    const bytes = readFileSync(file);
    if (bytes.length > NOTE_BYTES_MAX) return 'unreadable';
    const note = JSON.parse(bytes.toString('utf8')) as { kind?: unknown; containerId?: unknown; config?: unknown };
    if (note.kind !== 'cniCacheV1') return { containerId: '', config: '' };
    if (typeof note.config !== 'string' || typeof note.containerId !== 'string') return 'unreadable';
    return { containerId: note.containerId, config: Buffer.from(note.config, 'base64').toString('utf8') };
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return null;
    if (error instanceof SyntaxError) return 'unreadable';
    throw error;
  }
}
