// Redirection by eBPF: one set of programs serves all pods of the node, a pod is a few map entries and one link into
// its namespace. Everything is pinned, so that traffic stays meshed while no agent runs, and the next agent takes it
// over. See bpf/ for what the programs do.

import { closeSync, existsSync, openSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { AttachType, BpfMap, linkInfo, openPinned } from '#lib/bpf.ts';
import { assert, HeddleError } from '#lib/errors.ts';
import { close, isErrno } from '#lib/libc.ts';
import type { Log } from '#lib/log.ts';
import { inNetns } from '../netns.ts';
import { cgroupId, checkCgroup, podsCgroup } from './cgroup-root.ts';
import { OUTCOMES, type ProgramName, u32 } from './ebpf-layout.ts';
import { ensureLink, inspectLink, type LinkTarget, removeLink, replaceProgram } from './ebpf-links.ts';
import { closeObject, ensureBpffs, type LoadedObject, loadObject, pinPaths, releaseBpffs } from './ebpf-object.ts';
import { Exemptions } from './exemptions.ts';
import { type InterfaceAddress, makePodRecord, type PodRecord } from './pod-record.ts';
import { type AttachedPod, listPods, PodTable } from './pod-table.ts';
import type { Drift, Redirector, RedirectTarget, WorkerProcess } from './redirector.ts';

export interface EbpfOptions {
  /** Where the pins live: an absolute path; a bpffs is mounted there unless it is inside one. */
  bpffsDir: string;
  /** The root of the cgroup2 hierarchy, see cgroup-root.ts. */
  cgroupRoot: string;
  /** The pods' common cgroup; found by kubelet's names when left out. */
  podsCgroup?: string;
  /** The compiled programs, build/bpf/heddle.bpf.o. */
  objectPath: string;
  log: Log;
}

type SharedProgram = Exclude<ProgramName, 'heddle_inbound'>;

/**
 * Where each program that serves the whole node is attached, in the order of attaching: what carries the original
 * destination must be there before the first connection is redirected.
 */
const SHARED: readonly { program: SharedProgram; attachType: AttachType; at: 'root' | 'pods' }[] = [
  { program: 'heddle_getsockopt', attachType: AttachType.cgroupGetsockopt, at: 'root' },
  { program: 'heddle_sockops', attachType: AttachType.sockOps, at: 'root' },
  { program: 'heddle_bind4', attachType: AttachType.cgroupInet4Bind, at: 'pods' },
  { program: 'heddle_bind6', attachType: AttachType.cgroupInet6Bind, at: 'pods' },
  { program: 'heddle_getpeername4', attachType: AttachType.cgroupInet4Getpeername, at: 'pods' },
  { program: 'heddle_getpeername6', attachType: AttachType.cgroupInet6Getpeername, at: 'pods' },
  { program: 'heddle_connect4', attachType: AttachType.cgroupInet4Connect, at: 'pods' },
  { program: 'heddle_connect6', attachType: AttachType.cgroupInet6Connect, at: 'pods' },
];

interface Started {
  object: LoadedObject;
  pods: PodTable;
  exemptions: Exemptions;
  cgroups: Record<'root' | 'pods', { fd: number; id: bigint }>;
}

export class EbpfRedirector implements Redirector {
  readonly kind = 'ebpf';
  readonly listenOn = 'loopback';
  readonly #options: EbpfOptions;
  readonly #log: Log;
  readonly #links: string;
  #started: Started | null = null;

  constructor(options: EbpfOptions) {
    assert(path.isAbsolute(options.bpffsDir), 'the bpffs directory is an absolute path');
    this.#options = options;
    this.#log = options.log;
    this.#links = pinPaths(options.bpffsDir).links;
  }

  start(): void {
    if (this.#started) return;
    const { bpffsDir, cgroupRoot, objectPath } = this.#options;
    const podsDirectory = this.#options.podsCgroup ?? podsCgroup(cgroupRoot);
    checkCgroup(cgroupRoot);
    checkCgroup(podsDirectory);
    if (ensureBpffs(bpffsDir)) {
      this.#log.info('mounted a bpffs: what is attached lives as long as this mount', { path: bpffsDir });
    }
    const object = loadObject({ objectPath, bpffsDir });
    const cgroup = (directory: string) => ({ fd: openSync(directory, 'r'), id: cgroupId(directory) });
    this.#started = {
      object,
      pods: new PodTable(object.maps),
      exemptions: new Exemptions(object.maps, cgroupRoot),
      cgroups: { root: cgroup(cgroupRoot), pods: cgroup(podsDirectory) },
    };
    try {
      this.#started.exemptions.removeStale();
      this.#updatePodLinks(object);
      this.#ensureShared(this.#started);
    } catch (error) {
      this.close();
      throw error;
    }
    const attached = this.#started.pods.list().length;
    this.#log.info('eBPF programs are attached', { adopted: object.isAdopted, pods: attached, cgroup: podsDirectory });
  }

  attach(target: RedirectTarget): void {
    const started = this.#running();
    const record = makePodRecord(target, interfaceAddresses(target.netnsFd));
    for (const { entry, cookie } of started.pods.staleRivals(record, (pod) => this.#isAlive(pod))) {
      this.#remove(started, entry.uid, cookie);
    }
    this.#ensureShared(started);
    const isNew = !started.pods.has(record.cookie);
    try {
      started.pods.setListeners(target.slot, target.listeners);
      started.pods.prepare(record);
      ensureLink(this.#podLink(started, target));
      started.pods.activate(record);
    } catch (error) {
      // A pod that was redirected before stays so: what is left of it refuses rather than bypasses.
      if (isNew) this.#remove(started, record.entry.uid, record.cookie);
      throw error;
    }
  }

  detach(target: Pick<RedirectTarget, 'podUid'> & Partial<RedirectTarget>): void {
    const started = this.#running();
    const { podUid, netnsCookie = 0n } = target;
    for (const { cookie, entry } of started.pods.list()) {
      if (entry.uid !== podUid || (netnsCookie !== 0n && cookie !== netnsCookie)) continue;
      this.#remove(started, podUid, cookie);
    }
  }

  replaceListeners(target: RedirectTarget): void {
    this.#running().pods.setListeners(target.slot, target.listeners);
  }

  exempt(worker: WorkerProcess): void {
    this.#running().exemptions.add(worker);
  }

  unexempt(worker: WorkerProcess): void {
    this.#running().exemptions.remove(worker);
  }

  verify(target: RedirectTarget): Drift[] {
    const started = this.#running();
    const drift: Drift[] = [];
    for (const { program, attachType, at } of SHARED) {
      const link = { pin: this.#sharedPin(program), programFd: started.object.programs[program], attachType };
      const cause = inspectLink({ ...link, targetId: started.cgroups[at].id });
      if (cause) drift.push({ kind: 'bpf', cause });
    }
    const cause = inspectLink(this.#podLink(started, target));
    if (cause) drift.push({ kind: 'bpf', cause });
    let record: PodRecord;
    try {
      record = makePodRecord(target, interfaceAddresses(target.netnsFd));
    } catch (error) {
      if (!(error instanceof HeddleError) || error.code !== 'not-a-netns') throw error;
      return [...drift, { kind: 'netns', cause: error.message }];
    }
    return [...drift, ...started.pods.inspect(record), ...started.pods.inspectListeners(target.slot, target.listeners)];
  }

  attachedPods(): string[] {
    const pods = this.#started?.pods.list() ?? pinnedPods(this.#options.bpffsDir);
    return [...new Set(pods.map((pod) => pod.entry.uid))];
  }

  counters(): Record<string, bigint> {
    const { outcomes } = this.#running().object.maps;
    const totals: Record<string, bigint> = {};
    for (const [index, name] of OUTCOMES.entries()) {
      const perCpu = outcomes.lookup(u32(index));
      let total = 0n;
      for (let at = 0; perCpu && at < perCpu.length; at += 8) total += perCpu.readBigUInt64LE(at);
      totals[name] = total;
    }
    return totals;
  }

  close(): void {
    if (!this.#started) return;
    closeObject(this.#started.object);
    for (const { fd } of Object.values(this.#started.cgroups)) closeSync(fd);
    this.#started = null;
  }

  uninstall(): void {
    this.close();
    const { bpffsDir } = this.#options;
    if (!existsSync(bpffsDir)) return;
    // First what redirects, then what the redirected still need.
    for (const { program } of [...SHARED].reverse()) removeLink(this.#sharedPin(program));
    for (const name of readdirSync(bpffsDir)) {
      if (isOwnDirectory(name)) removePins(path.join(bpffsDir, name));
    }
    releaseBpffs(bpffsDir);
  }

  /**
   * Removes what agents with other map layouts left. For after all pods are attached again: until then the old programs
   * keep redirecting, and both kinds can be attached at once.
   */
  retireOtherSchemas(): void {
    const { bpffsDir } = this.#options;
    const current = path.basename(path.dirname(this.#links));
    for (const name of readdirSync(bpffsDir)) {
      if (!/^v\d+$/.test(name) || name === current) continue;
      removePins(path.join(bpffsDir, name));
      this.#log.info('removed the programs of another version', { schema: name });
    }
  }

  #running(): Started {
    if (!this.#started) throw new HeddleError('not-started', 'use the redirector: expected start() before');
    return this.#started;
  }

  #sharedPin(program: SharedProgram): string {
    return path.join(this.#links, program);
  }

  /** A UID may come back in a new sandbox while the old one lives, so the cookie belongs to the name. */
  #podPin(uid: string, cookie: bigint): string {
    return path.join(this.#links, `pod_${uid}_${cookie.toString(16)}`);
  }

  #podLink(started: Started, target: RedirectTarget): LinkTarget {
    return {
      pin: this.#podPin(target.podUid, target.netnsCookie),
      programFd: started.object.programs.heddle_inbound,
      attachType: AttachType.skLookup,
      targetFd: target.netnsFd,
      targetId: target.netnsInode,
    };
  }

  #ensureShared(started: Started): void {
    for (const { program, attachType, at } of SHARED) {
      const { fd, id } = started.cgroups[at];
      const programFd = started.object.programs[program];
      const outcome = ensureLink({ pin: this.#sharedPin(program), programFd, attachType, targetFd: fd, targetId: id });
      if (outcome !== 'kept') this.#log.debug('link', { program, outcome });
    }
  }

  /** Pods of an earlier agent get the new program at once; those whose namespace is gone wait for detach. */
  #updatePodLinks(object: LoadedObject): void {
    for (const name of readdirSync(this.#links)) {
      if (name.startsWith('pod_')) replaceProgram(path.join(this.#links, name), object.programs.heddle_inbound);
    }
  }

  #isAlive(pod: AttachedPod): boolean {
    try {
      const fd = openPinned(this.#podPin(pod.entry.uid, pod.cookie));
      const { target } = linkInfo(fd);
      close(fd);
      return target !== 0n;
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return false;
      throw error;
    }
  }

  #remove(started: Started, uid: string, cookie: bigint): void {
    started.pods.remove(cookie);
    removeLink(this.#podPin(uid, cookie));
  }
}

/** What an agent before left attached, without loading anything. */
function pinnedPods(bpffsDir: string): AttachedPod[] {
  const pin = path.join(pinPaths(bpffsDir).maps, 'pods');
  if (!existsSync(pin)) return [];
  const map = new BpfMap(openPinned(pin), 'pods');
  try {
    return listPods(map);
  } finally {
    map.close();
  }
}

/** Of any schema, and unfinished loads. */
function isOwnDirectory(name: string): boolean {
  return /^v\d+$/.test(name) || name.startsWith('loading-');
}

function removePins(directory: string): void {
  const links = path.join(directory, 'links');
  if (existsSync(links)) for (const name of readdirSync(links)) removeLink(path.join(links, name));
  rmSync(directory, { recursive: true });
}

/** Every address in the namespace, of interfaces that are up. */
function interfaceAddresses(netnsFd: number): InterfaceAddress[] {
  const interfaces = inNetns(netnsFd, () => os.networkInterfaces());
  return Object.entries(interfaces).flatMap(([name, addresses]) =>
    (addresses ?? []).map(({ address }) => ({ interface: name, address })),
  );
}
