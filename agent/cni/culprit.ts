// Names who undid an installation, as far as it can be told: the process that wrote (fanotify), else what the files
// themselves give away. The label is from a short list, because it becomes one of a metric; the text is for people.

import type { Log } from '#lib/log.ts';
import { parseConfig } from './conflist.ts';
import type { ConfDirectory } from './install-plan.ts';
import { type Writer, WriterWatch } from './writer-watch.ts';

export interface Culprit {
  /** A network plugin of the table, `other` for another process, `unknown`. */
  by: string;
  /** For the log: who, and what helps. */
  text: string;
}

interface Vendor {
  by: string;
  command: RegExp;
  /** Plugin types in the vendor's list. */
  types: readonly string[];
  remedy?: string;
}

const VENDORS: readonly Vendor[] = [
  {
    by: 'cilium',
    command: /^cilium/,
    types: ['cilium-cni'],
    remedy: 'set its option cni.exclusive to false, or install with mode "drop-in"',
  },
  { by: 'calico', command: /^(calico|install)/, types: ['calico'] },
  { by: 'aws', command: /^(aws|aws-vpc-cni|aws-k8s-agent)/, types: ['aws-cni'] },
  { by: 'azure', command: /^azure/, types: ['azure-vnet'] },
  { by: 'flannel', command: /^flannel/, types: ['flannel'] },
  { by: 'kindnet', command: /^kindnetd/, types: [] },
  { by: 'multus', command: /^multus/, types: ['multus', 'multus-shim'] },
  { by: 'istio', command: /^(istio-cni|install-cni)/, types: ['istio-cni'] },
  { by: 'linkerd', command: /^linkerd/, types: ['linkerd-cni'] },
];
/** Writers that are remembered until the next look at the directory. */
const WRITERS_MAX = 64;
const CILIUM_BACKUP = '.cilium_bak';

/** Labels that {@link nameCulprit} gives. */
export const CULPRITS: readonly string[] = [...VENDORS.map((vendor) => vendor.by), 'other', 'unknown'];

/** `directory` is what is there now, `types` the plugins of the list that lacks ours, `writers` who wrote since. */
export function nameCulprit(found: {
  directory: ConfDirectory;
  types: readonly string[];
  writers: readonly Writer[];
}): Culprit {
  const writer = found.writers.findLast(({ command }) => command !== '') ?? found.writers.at(-1);
  if (writer) return nameWriter(writer);
  const backup = found.directory.files.find(({ name }) => name.endsWith(CILIUM_BACKUP));
  if (backup) return withRemedy(VENDORS[0]!, `cilium renamed a file to "${backup.name}"`);
  const vendor = VENDORS.find(({ types }) => types.some((type) => found.types.includes(type)));
  if (vendor) return withRemedy(vendor, `probably ${vendor.by}, whose list it is`);
  return { by: 'unknown', text: 'nobody who could be named' };
}

function nameWriter({ pid, command, podUid, file }: Writer): Culprit {
  const pod = podUid === null ? '' : ` of pod "${podUid}"`;
  const text = `process "${command || 'gone already'}" (${pid})${pod}, which wrote "${file}"`;
  const vendor = command === '' ? undefined : VENDORS.find((one) => one.command.test(command));
  return vendor ? withRemedy(vendor, text) : { by: 'other', text };
}

function withRemedy({ by, remedy }: Vendor, text: string): Culprit {
  return { by, text: remedy === undefined ? text : `${text}: ${remedy}` };
}

/** Watches who writes, counts who undid the installation, and says it in the log once each time. */
export class Accuser {
  readonly counts: Record<string, number> = Object.fromEntries(CULPRITS.map((by) => [by, 0]));
  readonly #directory: string;
  readonly #log: Log;
  #watch: WriterWatch | null = null;
  #noted: Writer[] = [];
  #last = 'nobody who could be named';

  constructor(directory: string, log: Log) {
    this.#directory = directory;
    this.#log = log;
  }

  /** Begins to watch, anew where the directory was made anew. */
  open(): void {
    this.close();
    try {
      this.#watch = WriterWatch.open(this.#directory);
    } catch (error) {
      this.#log.debug('who rewrites the CNI configuration cannot be told by its process', { error });
    }
  }

  close(): void {
    this.#watch?.close();
    this.#watch = null;
  }

  /**
   * Names who undid it. `isNew` is false while an earlier undoing stands unrepaired: then nothing is counted or logged
   * again. `primary` is the list that lacks us.
   */
  accuse(directory: ConfDirectory, primary: string | null, isNew: boolean): string {
    this.note();
    const writers = this.#noted.filter(({ file }) => primary === null || file === primary);
    if (!isNew) return this.#last;
    const culprit = nameCulprit({
      directory,
      types: typesOf(directory, primary),
      writers: writers.length > 0 ? writers : this.#noted,
    });
    this.forget();
    this.counts[culprit.by] = (this.counts[culprit.by] ?? 0) + 1;
    this.#log.warn('CNI configuration was undone', { by: culprit.by, cause: culprit.text });
    this.#last = culprit.text;
    return culprit.text;
  }

  /** Looks who wrote. Call at each change, before a short-lived process is gone. */
  note(): void {
    try {
      this.#noted = [...this.#noted, ...(this.#watch?.drain() ?? [])].slice(-WRITERS_MAX);
    } catch (error) {
      this.#log.warn('ask who wrote the CNI configuration', { error });
    }
  }

  /** What was written did no harm. */
  forget(): void {
    this.#noted = [];
  }
}

function typesOf(directory: ConfDirectory, primary: string | null): string[] {
  const file = directory.files.find(({ name }) => name === primary);
  return file?.name.endsWith('.conflist') ? parseConfig(file.bytes, 'list').types : [];
}
