// What the agent remembers of each sandbox on the node, meshed or not, in `<run dir>/pods/<container id>.json`: the
// runtime tells it once, at ADD, and the next agent must know it too. The run directory is emptied by a reboot, as the
// sandboxes are.

import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { isFileName, listFiles, readJsonFile, removeFile, writeJsonFile } from './files.ts';
import type { PodReference } from './pods.ts';

export interface Sandbox {
  v: 1;
  containerId: string;
  ifName: string;
  /** Name of the CNI network that attached it. */
  network: string;
  netnsPath: string;
  /** Decimal: inodes have 64 bits. */
  netnsInode: string;
  /** Decimal; unlike the inode never used again. Absent until the namespace was opened. */
  netnsCookie?: string;
  pod: PodReference;
  /** As the runtime gave them; null where it gave none. */
  annotations: Record<string, string> | null;
  ips: string[];
  /** Of a meshed pod: its place in the kernel's maps and its worker's uid. Null of an unmeshed one. */
  slot: number | null;
}

export class SandboxStore {
  readonly #directory: string;
  readonly #log: Log;

  constructor(runDir: string, log: Log) {
    this.#directory = path.join(runDir, 'pods');
    this.#log = log;
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
  }

  /** All that an agent before left. A file that cannot be read is named in the log and left out. */
  load(): Sandbox[] {
    const sandboxes: Sandbox[] = [];
    for (const name of listFiles(this.#directory)) {
      const file = path.join(this.#directory, name);
      try {
        sandboxes.push(parseSandbox(file, readJsonFile(file)));
      } catch (error) {
        this.#log.error('cannot read what is remembered of a sandbox: it is left alone', { file, error });
      }
    }
    return sandboxes;
  }

  save(sandbox: Sandbox): void {
    writeJsonFile(this.#fileOf(sandbox.containerId), sandbox);
  }

  remove(containerId: string): void {
    removeFile(this.#fileOf(containerId));
  }

  #fileOf(containerId: string): string {
    if (!isFileName(containerId)) {
      throw new HeddleError('bad-container-id', `use the container ID "${containerId}": expected the CNI alphabet`);
    }
    return path.join(this.#directory, `${containerId}.json`);
  }
}

function parseSandbox(file: string, value: Record<string, unknown> | null): Sandbox {
  const sandbox = value as Partial<Sandbox> | null;
  const isComplete =
    sandbox?.v === 1 &&
    typeof sandbox.containerId === 'string' &&
    isFileName(sandbox.containerId) &&
    typeof sandbox.netnsPath === 'string' &&
    /^\d+$/.test(sandbox.netnsInode ?? '') &&
    typeof sandbox.pod?.uid === 'string' &&
    isFileName(sandbox.pod.uid) &&
    Array.isArray(sandbox.ips) &&
    (sandbox.slot === null || Number.isInteger(sandbox.slot));
  if (!isComplete) throw new HeddleError('bad-file', `read "${file}": expected a sandbox of version 1`);
  return sandbox as Sandbox;
}
