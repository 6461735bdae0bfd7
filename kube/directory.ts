// A directory of Kubernetes manifests as a source of resources: watched, re-read when something changes, and compared
// object by object, so that sinks hear only of what is different. The directory is never written to; what a runner
// reports of pods lies in its `status` sub-directory (see status.ts).

import { type FSWatcher, watch } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { type Clock, systemClock, type Timer } from '#lib/clock.ts';
import { describeError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { assemble, type Objects } from './assemble.ts';
import { DEFAULT_SERVICE_NETWORKS, type ServiceNetworks } from './cluster-ips.ts';
import { formatProblem, type Problem } from './manifest.ts';
import { ManifestFiles, type ScannedDirectory } from './manifest-files.ts';
import { KINDS, type Kind, type KubeObject } from './resources.ts';
import type { ResourceSink, ResourceSource } from './source.ts';

/** Quiet time after the last event, and the longest wait after the first one. */
const SETTLE_MS = 20;
const SETTLE_MAX_MS = 200;
/** For what no event tells of, such as changes on a network file system. */
const RESCAN_MS = 5_000;
const WATCHES_MAX = 1_000;

export interface DirectorySourceOptions {
  directory: string;
  log: Log;
  clock?: Clock;
  /** Where Services without a ClusterIP get one. */
  serviceNetworks?: ServiceNetworks;
}

interface Subscriber {
  kinds: ReadonlySet<Kind>;
  sink: ResourceSink;
}

export class DirectorySource implements ResourceSource {
  readonly #files: ManifestFiles;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #networks: ServiceNetworks;
  readonly #subscribers = new Set<Subscriber>();
  readonly #watchers = new Map<string, { watcher: FSWatcher; inode: bigint }>();
  #objects: Objects = new Map();
  #problems: readonly Problem[] = [];
  #scanning: Promise<void> | null = null;
  #isDirty = false;
  #settle: Timer | null = null;
  #settleByMs = 0;
  #rescan: Timer | null = null;

  constructor(options: DirectorySourceOptions) {
    this.#files = new ManifestFiles(options.directory);
    this.#log = options.log.child({ directory: options.directory });
    this.#clock = options.clock ?? systemClock;
    this.#networks = options.serviceNetworks ?? DEFAULT_SERVICE_NETWORKS;
  }

  /** What is wrong with the manifests at present. */
  problems(): readonly Problem[] {
    return this.#problems;
  }

  async start(kinds: readonly Kind[], sink: ResourceSink, signal: AbortSignal): Promise<void> {
    const subscriber: Subscriber = { kinds: new Set(kinds), sink };
    await this.#scan();
    if (signal.aborted) return;
    for (const kind of kinds) sink.reset(kind, [...(this.#objects.get(kind)?.values() ?? [])]);
    this.#subscribers.add(subscriber);
    signal.addEventListener('abort', () => this.#leave(subscriber), { once: true });
    this.#armRescan();
    // What changed while nobody watched is found by one more look.
    this.#touch();
  }

  #leave(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber);
    if (this.#subscribers.size > 0) return;
    for (const { watcher } of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
    this.#settle?.cancel();
    this.#settle = null;
    this.#rescan?.cancel();
    this.#rescan = null;
  }

  /** One scan at a time; a call during one waits for another after it. */
  #scan(): Promise<void> {
    if (this.#scanning) {
      this.#isDirty = true;
      return this.#scanning;
    }
    this.#scanning = (async () => {
      do {
        this.#isDirty = false;
        await this.#scanOnce();
      } while (this.#isDirty);
    })().finally(() => {
      this.#scanning = null;
    });
    return this.#scanning;
  }

  async #scanOnce(): Promise<void> {
    const { hasChanged, files, directories, againMs, problems } = await this.#files.scan(this.#clock.wallMs());
    // A directory that is new may have been filled before it was watched.
    if (this.#subscribers.size > 0 && this.#watch(directories)) this.#isDirty = true;
    if (againMs !== null) this.#touch(againMs);
    if (!hasChanged && this.#objects.size > 0) return;
    try {
      const assembly = assemble(files, this.#networks);
      this.#report([...problems, ...assembly.problems]);
      this.#publish(assembly.objects);
    } catch (error) {
      this.#log.error('manifests were not applied', { error: describeError(error) });
    }
  }

  #publish(next: Objects): void {
    const before = this.#objects;
    for (const kind of KINDS) {
      const old = before.get(kind) ?? new Map<string, KubeObject>();
      const now = next.get(kind) ?? new Map<string, KubeObject>();
      const sinks = [...this.#subscribers].filter(({ kinds }) => kinds.has(kind)).map(({ sink }) => sink);
      for (const [key, object] of old) {
        if (now.has(key)) continue;
        const { namespace = '', name } = object.metadata;
        for (const sink of sinks) sink.delete(kind, { namespace, name });
      }
      for (const [key, object] of now) {
        const known = old.get(key);
        if (known !== undefined && (known === object || isDeepStrictEqual(known, object))) continue;
        for (const sink of sinks) sink.apply(kind, object);
      }
    }
    this.#objects = next;
  }

  #report(problems: readonly Problem[]): void {
    const before = new Set(this.#problems.map(formatProblem));
    const now = new Set(problems.map(formatProblem));
    for (const problem of problems) {
      const text = formatProblem(problem);
      if (before.has(text)) continue;
      const { file, document, object, field, severity } = problem;
      const fields = { file, document, object, field };
      if (severity === 'error') this.#log.error(`manifest: ${text}`, fields);
      else this.#log.info(`manifest: ${text}`, fields);
    }
    for (const text of before) if (!now.has(text)) this.#log.info(`manifest: solved: ${text}`);
    this.#problems = problems;
  }

  /** Watches exactly these directories; true when one of them is new. */
  #watch(directories: readonly ScannedDirectory[]): boolean {
    const wanted = new Map(directories.slice(0, WATCHES_MAX).map(({ path, inode }) => [path, inode]));
    for (const [path, { watcher, inode }] of this.#watchers) {
      if (wanted.get(path) === inode) continue;
      watcher.close();
      this.#watchers.delete(path);
    }
    let isNew = false;
    for (const [path, inode] of wanted) {
      if (this.#watchers.has(path)) continue;
      try {
        const watcher = watch(path, { persistent: false }, () => this.#touch());
        watcher.on('error', () => this.#unwatch(path));
        this.#watchers.set(path, { watcher, inode });
        isNew = true;
      } catch (error) {
        // The rescan finds what events would have told.
        this.#log.debug('directory is not watched', { path, error: describeError(error) });
      }
    }
    return isNew;
  }

  #unwatch(path: string): void {
    this.#watchers.get(path)?.watcher.close();
    this.#watchers.delete(path);
    this.#touch();
  }

  /** Something happened: look once it is quiet. */
  #touch(settleMs = SETTLE_MS): void {
    if (this.#subscribers.size === 0) return;
    const nowMs = this.#clock.nowMs();
    if (this.#settle) this.#settle.cancel();
    else this.#settleByMs = nowMs + SETTLE_MAX_MS;
    const delayMs = Math.max(0, Math.min(settleMs, this.#settleByMs - nowMs));
    this.#settle = this.#clock.after(delayMs, () => {
      this.#settle = null;
      void this.#scan();
    });
  }

  #armRescan(): void {
    this.#rescan?.cancel();
    this.#rescan = this.#clock.after(RESCAN_MS, () => {
      void this.#scan().then(() => {
        if (this.#subscribers.size > 0) this.#armRescan();
      });
    });
  }
}
