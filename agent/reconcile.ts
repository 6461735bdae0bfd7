// The only loop of the agent: sandboxes as the runtime told them, desired state from pods and namespaces, actual state
// in enrolments. An ADD is a hint that comes early; whatever is missed then is made up for here. Everything that
// happens to one pod happens one after another; pods do not wait for one another.

import type { CniRecord, CniRecordKind } from '#api/cni-message.ts';
import { Backoff } from '#lib/backoff.ts';
import type { Clock, Timer } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { KeyedLock } from '#lib/keyed-lock.ts';
import type { Log } from '#lib/log.ts';
import { readRecords, removeRecord, writeMeshedNamespaces } from './cni/run-dir.ts';
import { type Desired, desiredState, podName } from './desired.ts';
import { Enrolment, type EnrolmentServices } from './enrolment.ts';
import { meshedNamespaces } from './meshed-namespaces.ts';
import { netnsInode } from './netns-path.ts';
import type { PodCache, PodReference } from './pods.ts';
import { POD_SLOTS_MAX } from './redirect/redirector.ts';
import { Rollout } from './rollout.ts';
import type { Sandbox, SandboxStore } from './sandboxes.ts';
import { Verifier, type VerifierEvents } from './verifier.ts';
import type { MeshSettings } from './worker-config.ts';

export interface ReconcilerOptions {
  pods: PodCache;
  store: SandboxStore;
  runDir: string;
  services: EnrolmentServices;
  settings: () => MeshSettings;
  events: ReconcileEvents;
  clock: Clock;
  log: Log;
}

/** What happened, for metrics. */
export interface ReconcileEvents extends VerifierEvents {
  enrolled(milliseconds: number): void;
}

/** A sandbox as the runtime or a record describes it. */
export type NewSandbox = Omit<Sandbox, 'v' | 'slot' | 'netnsCookie'>;

const TICK_MS = 5_000;
/** How long a pod that leaves the mesh alive may finish its connections. */
const LEAVE_GRACE_MS = 10_000;
const REMOVE_GRACE_MS = 300;
const READY_TIMEOUT_MS = 30_000;
const RETRY = { minMs: 1_000, maxMs: 60_000, jitter: 0.2 } as const;
const FAULTY_FILES_MAX = 1_000;

interface Entry {
  enrolment: Enrolment;
  backoff: Backoff;
  retry: Timer | null;
  /** Read from disk, and its worker not yet taken over. */
  isFound: boolean;
}

export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #lock = new KeyedLock();
  #tick: Timer | null = null;
  readonly #rollout: Rollout;
  readonly #verifier: Verifier;
  #namespaceWrite: Timer | null = null;
  #isStopped = false;
  /** Files of the plugin that were named in the log already. */
  readonly #faultyFiles = new Set<string>();

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#rollout = new Rollout({
      workers: () => this.enrolments().flatMap(({ worker }) => worker ?? []),
      version: options.services.workers.runtime.version,
      clock: options.clock,
    });
    this.#verifier = new Verifier({
      enrolments: () => this.enrolments(),
      remove: (containerId) => this.remove(containerId),
      events: options.events,
      clock: options.clock,
      log: options.log,
    });
    options.pods.listener = {
      podChanged: (reference) => this.#podChanged(reference),
      namespaceChanged: (name) => this.#namespaceChanged(name),
    };
  }

  enrolments(): Enrolment[] {
    return [...this.#entries.values()].map(({ enrolment }) => enrolment);
  }

  find(containerId: string): Enrolment | undefined {
    return this.#entries.get(containerId)?.enrolment;
  }

  /** Takes over what an agent before left, then starts the loop. Resolves when every sandbox was looked at once. */
  async start(): Promise<void> {
    await Promise.all(this.#options.store.load().map((sandbox) => this.#recall(sandbox)));
    await Promise.all([...this.#entries.values()].map((entry) => this.#reconcile(entry)));
    this.#verifier.start();
    await this.#everyTick();
  }

  /** What should be true of the sandbox, as far as is known now. */
  desired(sandbox: Pick<Sandbox, 'pod' | 'annotations' | 'ips'>): Desired {
    const { pods, settings } = this.#options;
    return desiredState({
      sandbox,
      pod: pods.find(sandbox.pod),
      namespace: pods.namespace(sandbox.pod.namespace),
      hasSynced: pods.hasSynced,
      settings: settings(),
    });
  }

  /**
   * A sandbox that the runtime starts. Returns when it is as it should be: unmeshed at once, meshed when worker and
   * redirection work. Idempotent on container and namespace. When it throws, nothing of the sandbox is left.
   */
  add(sandbox: NewSandbox, netnsFd: number | null, budgetMs: number, signal: AbortSignal): Promise<Desired> {
    const startedMs = this.#options.clock.nowMs();
    return this.#lock.run(sandbox.pod.uid, async () => {
      await this.#replaceOlder(sandbox);
      this.#refuseDuplicate(sandbox);
      const desired = this.desired(sandbox);
      const entry = this.#entries.get(sandbox.containerId) ?? this.#enter({ ...sandbox, v: 1, slot: null }, netnsFd);
      try {
        await this.#makeSo(entry, desired, budgetMs - (this.#options.clock.nowMs() - startedMs));
        if (signal.aborted) throw new HeddleError('add-cancelled', 'add the pod: the runtime gave up');
      } catch (error) {
        await this.#drop(entry, 0);
        throw error;
      }
      if (desired.kind === 'meshed') this.#options.events.enrolled(this.#options.clock.nowMs() - startedMs);
      return desired;
    });
  }

  /** The sandbox is gone: redirection off, worker drained. False when it was not known. */
  async remove(containerId: string, graceMs = REMOVE_GRACE_MS): Promise<boolean> {
    const entry = this.#entries.get(containerId);
    if (!entry) return false;
    entry.enrolment.abort();
    return await this.#lock.run(entry.enrolment.sandbox.pod.uid, async () => {
      if (this.#entries.get(containerId) !== entry) return false;
      await this.#drop(entry, graceMs);
      return true;
    });
  }

  /** Forgets everything without touching worker or redirection: the agent exits. */
  stop(): void {
    this.#isStopped = true;
    this.#tick?.cancel();
    this.#rollout.stop();
    this.#verifier.stop();
    this.#namespaceWrite?.cancel();
    for (const entry of this.#entries.values()) {
      entry.retry?.cancel();
      entry.enrolment.release();
    }
    this.#entries.clear();
  }

  async #recall(sandbox: Sandbox): Promise<void> {
    try {
      this.#enter(sandbox, null).isFound = sandbox.slot !== null;
    } catch (error) {
      this.#options.log.info('sandbox is gone: what was made for it is removed', { pod: podName(sandbox), error });
      await Enrolment.purge(sandbox, this.#options.services);
      this.#options.store.remove(sandbox.containerId);
    }
  }

  #enter(sandbox: Sandbox, netnsFd: number | null): Entry {
    const { services, store } = this.#options;
    const enrolment = new Enrolment(sandbox, netnsFd, services);
    const entry: Entry = {
      enrolment,
      backoff: new Backoff(RETRY),
      retry: null,
      isFound: false,
    };
    this.#entries.set(sandbox.containerId, entry);
    store.save(sandbox);
    return entry;
  }

  async #drop(entry: Entry, graceMs: number): Promise<void> {
    const { enrolment } = entry;
    const { containerId } = enrolment.sandbox;
    entry.retry?.cancel();
    await enrolment.leave(graceMs);
    enrolment.release();
    this.#entries.delete(containerId);
    this.#options.store.remove(containerId);
  }

  /** A pod has one sandbox at a time: an older one of the same pod, or of the same container, is over. */
  async #replaceOlder(sandbox: NewSandbox): Promise<void> {
    for (const entry of [...this.#entries.values()]) {
      const { containerId, netnsInode: inode, pod } = entry.enrolment.sandbox;
      const isSame = containerId === sandbox.containerId && inode === sandbox.netnsInode;
      if (isSame || (pod.uid !== sandbox.pod.uid && containerId !== sandbox.containerId)) continue;
      await this.#drop(entry, REMOVE_GRACE_MS);
    }
  }

  /** Two pods with one address could be taken for one another. One whose namespace is gone does not count. */
  #refuseDuplicate(sandbox: NewSandbox): void {
    for (const { enrolment } of this.#entries.values()) {
      const other = enrolment.sandbox;
      const shared = other.ips.find((ip) => sandbox.ips.includes(ip));
      if (other.containerId === sandbox.containerId || shared === undefined) continue;
      if (netnsInode(other.netnsPath) !== other.netnsInode) {
        this.#background('remove a sandbox whose namespace is gone', this.remove(other.containerId, 0));
        continue;
      }
      throw new HeddleError(
        'duplicate-pod-ip',
        `add pod "${podName(sandbox)}" with address "${shared}": pod "${podName(other)}" has it on this node: ` +
          'delete one of them and look for two address pools that overlap',
      );
    }
  }

  async #makeSo(entry: Entry, desired: Desired, readyTimeoutMs: number): Promise<void> {
    const { enrolment } = entry;
    if (desired.kind === 'unknown' || desired.kind === 'waiting') {
      enrolment.reason = desired.reason;
      return;
    }
    this.#tellProblems(enrolment, desired.problems);
    if (desired.kind === 'unmeshed') {
      enrolment.reason = desired.reason;
      entry.isFound = false;
      if (enrolment.sandbox.slot === null) return;
      await enrolment.leave(LEAVE_GRACE_MS);
      this.#setSlot(enrolment, null);
      return;
    }
    if (enrolment.sandbox.slot === null) this.#setSlot(enrolment, this.#freeSlot());
    if (entry.isFound) {
      entry.isFound = false;
      await enrolment.restore(desired.config, desired.plan);
    } else await enrolment.join(desired.config, desired.plan, Math.max(0, readyTimeoutMs));
  }

  #tellProblems(enrolment: Enrolment, problems: readonly string[]): void {
    for (const problem of problems) {
      if (!enrolment.problems.includes(problem)) this.#options.log.warn(problem, { pod: podName(enrolment.sandbox) });
    }
    enrolment.problems = problems;
  }

  #setSlot(enrolment: Enrolment, slot: number | null): void {
    enrolment.sandbox.slot = slot;
    this.#options.store.save(enrolment.sandbox);
  }

  #freeSlot(): number {
    const taken = new Set(this.enrolments().map(({ sandbox }) => sandbox.slot));
    for (let slot = 0; slot < POD_SLOTS_MAX; slot++) if (!taken.has(slot)) return slot;
    throw new HeddleError('node-full', `mesh one more pod: expected at most ${POD_SLOTS_MAX} meshed pods on a node`);
  }

  async #reconcile(entry: Entry): Promise<void> {
    const { enrolment } = entry;
    const { containerId, pod } = enrolment.sandbox;
    entry.retry?.cancel();
    entry.retry = null;
    await this.#lock.run(pod.uid, async () => {
      if (this.#isStopped || this.#entries.get(containerId) !== entry) return;
      try {
        await this.#makeSo(entry, this.desired(enrolment.sandbox), READY_TIMEOUT_MS);
        entry.backoff.reset();
      } catch (error) {
        enrolment.reason = error instanceof Error ? error.message : String(error);
        const delayMs = entry.backoff.next();
        this.#options.log.error('pod is not as it should be', { pod: podName(enrolment.sandbox), error, delayMs });
        entry.retry = this.#options.clock.after(delayMs, () => void this.#reconcile(entry));
      }
    });
  }

  /** For what nobody waits for: a failure of one pod is told, and is no failure of the agent. */
  #background(what: string, work: Promise<unknown>): void {
    work.catch((error: unknown) => this.#options.log.error(`cannot ${what}`, { error }));
  }

  #podChanged({ namespace, name }: PodReference): void {
    for (const entry of this.#entries.values()) {
      const { pod } = entry.enrolment.sandbox;
      if (pod.namespace === namespace && pod.name === name) void this.#reconcile(entry);
    }
  }

  #namespaceChanged(name: string): void {
    for (const entry of this.#entries.values()) {
      if (entry.enrolment.sandbox.pod.namespace === name) void this.#reconcile(entry);
    }
    const { clock, runDir, pods } = this.#options;
    this.#namespaceWrite ??= clock.after(20, () => {
      this.#namespaceWrite = null;
      if (pods.hasSynced) writeMeshedNamespaces(runDir, meshedNamespaces(pods.namespaces()), clock.wallMs());
    });
  }

  /** The settings changed: every pod is looked at again. */
  reconcileAll(): void {
    for (const entry of this.#entries.values()) void this.#reconcile(entry);
  }

  async #everyTick(): Promise<void> {
    const work = this.#records('tombstone').map((record) => this.#reap(record));
    for (const kind of ['missed', 'open'] as const) {
      for (const record of this.#records(kind)) work.push(this.#enrolLate(record));
    }
    for (const each of work) this.#background('look after a pod', each);
    await Promise.allSettled(work);
    if (!this.#isStopped) this.#rollout.look();
    if (!this.#isStopped) this.#tick = this.#options.clock.after(TICK_MS, () => void this.#everyTick());
  }

  #records(kind: CniRecordKind): CniRecord[] {
    const { records, faults } = readRecords(this.#options.runDir, kind);
    for (const { file, cause } of faults) {
      if (this.#faultyFiles.has(file)) continue;
      this.#options.log.warn('cannot read what the CNI plugin left', { file, cause });
      if (this.#faultyFiles.size < FAULTY_FILES_MAX) this.#faultyFiles.add(file);
    }
    return records;
  }

  async #reap(record: CniRecord): Promise<void> {
    await this.remove(record.containerId);
    removeRecord(this.#options.runDir, record.kind, record.containerId);
  }

  /** A pod that the plugin let pass while no agent answered. */
  async #enrolLate(record: CniRecord): Promise<void> {
    const { log, runDir, pods } = this.#options;
    const { containerId, ifName, network, netnsPath, annotations, ips } = record;
    const pod = pods.complete(record.pod);
    const sandbox = {
      containerId,
      ifName,
      network,
      netnsPath,
      netnsInode: String(record.netnsInode),
      pod,
      annotations,
      ips,
    };
    if (netnsInode(netnsPath) !== sandbox.netnsInode) {
      removeRecord(runDir, record.kind, record.containerId);
      return;
    }
    const desired = this.desired(sandbox);
    if (desired.kind === 'unknown' || desired.kind === 'waiting' || pod.uid === '') return;
    try {
      await this.add(sandbox, null, READY_TIMEOUT_MS, new AbortController().signal);
      removeRecord(runDir, record.kind, record.containerId);
      if (desired.kind === 'meshed') log.info('pod that started without an agent joined', { pod: podName(sandbox) });
    } catch (error) {
      log.error('cannot enrol a pod that started without an agent', { pod: podName(sandbox), error });
    }
  }
}
