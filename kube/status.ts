// Where a runner of pods tells what became of them: one small file for each pod under `status/` of the directory of
// manifests, written atomically. The directory source merges them into the Pods, as the kubelet's reports would be.

import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { HeddleError } from '#lib/errors.ts';
import type { Pod, PodStatus } from './resources.ts';
import type { ObjectKey } from './source.ts';

/** The sub-directory of the manifests' directory that holds status files. */
export const STATUS_DIRECTORY = 'status';

export interface RunnerReport {
  /** Which incarnation is reported; the source's own UID when left out. */
  uid?: string;
  nodeName?: string;
  status: PodStatus;
}

/** Object names: what may stand in a path without leaving it. */
const SAFE_NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

/** The report as the manifest that is stored. */
export function reportManifest({ namespace, name }: ObjectKey, report: RunnerReport): Partial<Pod> {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { namespace, name, ...(report.uid === undefined ? {} : { uid: report.uid }) },
    spec: { containers: [], ...(report.nodeName === undefined ? {} : { nodeName: report.nodeName }) },
    status: report.status,
  };
}

/** Writes the reports of one runner. A pod must not have two runners. */
export class PodStatusWriter {
  readonly #root: string;
  #sequence = 0;

  /** `directory` is the directory of manifests. */
  constructor(directory: string) {
    this.#root = path.join(directory, STATUS_DIRECTORY);
  }

  /** Replaces the report of a pod. Readers see the old one or the new one, whole. */
  async write(key: ObjectKey, report: RunnerReport): Promise<void> {
    const file = this.#fileOf(key);
    // The dot keeps the source from reading it.
    const temporary = path.join(path.dirname(file), `.${key.name}.${process.pid}.${this.#sequence++}`);
    await mkdir(path.dirname(file), { recursive: true });
    try {
      await writeFile(temporary, `${JSON.stringify(reportManifest(key, report), null, 2)}\n`);
      await rename(temporary, file);
    } catch (cause) {
      await rm(temporary, { force: true });
      throw new HeddleError('status-write', `write the status of pod "${key.namespace}/${key.name}"`, { cause });
    }
  }

  /** Forgets a pod. A pod that was never reported is no error. */
  async remove(key: ObjectKey): Promise<void> {
    await rm(this.#fileOf(key), { force: true });
  }

  /** Forgets every pod, such as those of a runner that died. */
  async clear(): Promise<void> {
    if (!existsSync(this.#root)) return;
    const entries = await readdir(this.#root);
    await Promise.all(entries.map((entry) => rm(path.join(this.#root, entry), { recursive: true, force: true })));
  }

  #fileOf({ namespace, name }: ObjectKey): string {
    for (const part of [namespace, name]) {
      if (SAFE_NAME.test(part)) continue;
      throw new HeddleError('status-name', `report the status of pod "${namespace}/${name}": expected DNS names`);
    }
    return path.join(this.#root, namespace, `${name}.json`);
  }
}
