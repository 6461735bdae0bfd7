// What agent and CNI plugin leave for each other in the run directory (api/cni-message.ts, CniRunFile): the agent writes
// which namespaces are meshed and that it has been ready; the plugin writes what happened while nobody answered.

import { readFileSync } from 'node:fs';
import path from 'node:path';
import {
  CNI_MESSAGE_VERSION,
  type CniMeshedNamespaces,
  type CniRecord,
  type CniRecordKind,
  CniRunFile,
} from '#api/cni-message.ts';
import { Annotation } from '#api/names.ts';
import { decideMesh } from '#kube/meshed.ts';
import type { Namespace } from '#kube/resources.ts';
import type { Log } from '#lib/log.ts';
import { isFileName, listFiles, readJsonFile, removeFile, writeJsonFile } from './files.ts';

const FOLDERS: Record<CniRecordKind, string> = {
  missed: CniRunFile.missed,
  open: CniRunFile.open,
  tombstone: CniRunFile.tombstones,
};

export class RunFiles {
  readonly #runDir: string;
  readonly #log: Log;

  constructor(runDir: string, log: Log) {
    this.#runDir = runDir;
    this.#log = log;
  }

  /** The records of a kind, oldest first. One that cannot be read is named in the log and removed. */
  records(kind: CniRecordKind): CniRecord[] {
    const folder = path.join(this.#runDir, FOLDERS[kind]);
    const records: CniRecord[] = [];
    for (const name of listFiles(folder)) {
      const file = path.join(folder, name);
      try {
        const record = readJsonFile(file) as Partial<CniRecord> | null;
        if (record?.v !== CNI_MESSAGE_VERSION || !isFileName(record.containerId ?? '') || !record.pod) {
          throw new TypeError(`expected a record of version ${CNI_MESSAGE_VERSION}`);
        }
        records.push(record as CniRecord);
      } catch (error) {
        this.#log.warn('cannot read what the CNI plugin left: it is dropped', { file, error });
        removeFile(file);
      }
    }
    return records.sort((a, b) => a.timeMs - b.timeMs);
  }

  removeRecord(record: Pick<CniRecord, 'kind' | 'containerId'>): void {
    removeFile(path.join(this.#runDir, FOLDERS[record.kind], `${record.containerId}.json`));
  }

  /** Leaves the set of meshed namespaces for a plugin that finds no agent. */
  writeNamespaces(namespaces: readonly Namespace[], wallMs: number): void {
    const file: CniMeshedNamespaces = { v: CNI_MESSAGE_VERSION, writtenMs: wallMs, meshed: {}, unmeshed: [] };
    for (const namespace of namespaces) {
      const { name, annotations } = namespace.metadata;
      const anyPod = { metadata: {}, spec: { containers: [] } };
      if (!decideMesh(anyPod, namespace).isMeshed) file.unmeshed.push(name);
      else {
        const onAgentDown = annotations?.[Annotation.onAgentDown];
        file.meshed[name] = onAgentDown === 'open' || onAgentDown === 'closed' ? { onAgentDown } : {};
      }
    }
    writeJsonFile(path.join(this.#runDir, CniRunFile.meshedNamespaces), file);
  }

  /** Says that an agent has been ready since the machine started. */
  markReady(): void {
    const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    writeJsonFile(path.join(this.#runDir, `${CniRunFile.readyPrefix}${bootId}`), {});
  }
}
