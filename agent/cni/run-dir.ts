// The files that plugin and agent leave for each other in the run directory: the agent's side. Everything is written
// beside and renamed, so that the plugin, which may run at any moment, never reads half a file.
// Contract: CniRunFile in api/cni-message.ts; the plugin's side is cni/rundir.go.

import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import {
  CNI_MESSAGE_VERSION,
  type CniMeshedNamespaces,
  type CniRecord,
  type CniRecordKind,
  CniRunFile,
} from '#api/cni-message.ts';
import { describeError } from '#lib/errors.ts';
import { isErrno } from '#lib/libc.ts';

/** The plugin refuses a longer file; names are dropped from `unmeshed` first, which only makes their pods ask. */
const NAMESPACES_BYTES_MAX = 4 * 1024 * 1024;
/** As the plugin's own bound of each folder. */
export const RECORDS_MAX = 8192;

const FOLDER: Record<CniRecordKind, string> = {
  missed: CniRunFile.missed,
  open: CniRunFile.open,
  tombstone: CniRunFile.tombstones,
};

const recordSchema = z.object({
  v: z.literal(CNI_MESSAGE_VERSION),
  kind: z.enum(['missed', 'open', 'tombstone']),
  containerId: z.string().min(1),
  ifName: z.string(),
  network: z.string(),
  netnsPath: z.string(),
  netnsInode: z.number().int().nonnegative(),
  pod: z.object({ namespace: z.string(), name: z.string(), uid: z.string() }),
  annotations: z.record(z.string(), z.string()).nullable(),
  ips: z.array(z.string()),
  cause: z.string(),
  timeMs: z.number(),
  pluginVersion: z.string(),
});

/** Tells the plugin which namespaces are meshed and which are known not to be. Call it on every change. */
export function writeMeshedNamespaces(
  runDir: string,
  state: Pick<CniMeshedNamespaces, 'meshed' | 'unmeshed'>,
  nowMs: number = Date.now(),
): void {
  const file = path.join(runDir, CniRunFile.meshedNamespaces);
  const body: CniMeshedNamespaces = { v: CNI_MESSAGE_VERSION, writtenMs: nowMs, ...state };
  let text = JSON.stringify(body);
  if (Buffer.byteLength(text) > NAMESPACES_BYTES_MAX) text = JSON.stringify({ ...body, unmeshed: [] });
  replaceFile(file, text);
}

export interface Records {
  records: CniRecord[];
  /** Files that hold no record of this version: named with the cause, left where they are. */
  faults: { file: string; cause: string }[];
}

/** What the plugin left of one kind, oldest first, at most {@link RECORDS_MAX}. */
export function readRecords(runDir: string, kind: CniRecordKind): Records {
  const folder = path.join(runDir, FOLDER[kind]);
  const found: Records = { records: [], faults: [] };
  for (const name of recordNames(folder).slice(0, RECORDS_MAX)) {
    const file = path.join(folder, name);
    try {
      const record = recordSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
      if (record.kind === kind && name === `${record.containerId}.json`) found.records.push(record);
      else found.faults.push({ file, cause: `holds "${record.kind}" of container "${record.containerId}"` });
    } catch (error) {
      // The plugin may have taken it back in between: DEL of a pod that passed.
      if (!isErrno(error, 'ENOENT')) found.faults.push({ file, cause: describeError(error) });
    }
  }
  found.records.sort((a, b) => a.timeMs - b.timeMs);
  return found;
}

/** Forgets a record; one that is not there is none. */
export function removeRecord(runDir: string, kind: CniRecordKind, containerId: string): void {
  rmSync(path.join(runDir, FOLDER[kind], `${path.basename(containerId)}.json`), { force: true });
}

/** Notes that an agent has been ready since the machine started (STATUS with `statusGate: firstBoot`). */
export function markReady(runDir: string): void {
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  replaceFile(path.join(runDir, `${CniRunFile.readyPrefix}${bootId}`), '');
}

function recordNames(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => name.endsWith('.json') && !name.startsWith('.'));
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

function replaceFile(file: string, text: string): void {
  mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
  const temporary = `${file}.new`;
  writeFileSync(temporary, text, { mode: 0o600 });
  renameSync(temporary, file);
}
