// Redirection by nftables inside the pod's namespace, for nodes where eBPF does not work: the same listeners, the same
// plan, the same SO_ORIGINAL_DST. It guarantees less: a pod with CAP_NET_ADMIN can remove the rules (verification finds
// that), workers without a cgroup2 of their own are told by uid, and outbound connections cannot fail open.

import { closeSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { LISTENER_NAMES, type ListenerName } from '#api/worker-link.ts';
import { HeddleError } from '#lib/errors.ts';
import { close, duplicate } from '#lib/libc.ts';
import type { Log } from '#lib/log.ts';
import { isListening, localAddress, SocketLevel, SocketOption, setSocketOption } from '#lib/tcp-socket.ts';
import { createNetns, findNetns, type NetnsIdentity } from '../netns.ts';
import { checkPodUid } from './ebpf-layout.ts';
import { liveUid } from './exemptions.ts';
import { applyNft, runNft } from './nft-command.ts';
import { type InboundMode, NFT_COUNTERS, nftExemption, nftRemoval, nftRules, nftTrial, TABLE } from './nft-rules.ts';
import type { Drift, ListenOn, Redirector, RedirectTarget, WorkerProcess } from './redirector.ts';

const CGROUP_BASE = '/sys/fs/cgroup';

export interface NftablesOptions {
  /** Where it is written which namespaces have rules, one file for each pod: for the next agent. */
  stateDir: string;
  /** How inbound connections are taken; found by trying when left out. */
  inboundMode?: InboundMode;
  log: Log;
}

interface AttachedPod {
  uid: string;
  inode: bigint;
  netnsFd: number;
  /** The rules as nft lists them right after they were written. */
  listing: string | null;
}

type Exempt = { uid: number } | { cgroup: string };

export class NftablesRedirector implements Redirector {
  readonly kind = 'nftables';
  readonly #options: NftablesOptions;
  readonly #log: Log;
  readonly #pods = new Map<string, AttachedPod>();
  /** Workers by process. */
  readonly #exempt = new Map<number, { podUid: string; exempt: Exempt }>();
  /** Of pods that were detached. */
  readonly #past = new Map<string, bigint>();
  #inboundMode: InboundMode | null = null;

  constructor(options: NftablesOptions) {
    this.#options = options;
    this.#log = options.log;
  }

  /** Redirection changes the destination to an address of the pod, where the listener must be. */
  get listenOn(): ListenOn {
    return this.#inboundMode === 'redirect' ? 'any' : 'loopback';
  }

  start(): void {
    if (this.#inboundMode) return;
    mkdirSync(this.#options.stateDir, { recursive: true, mode: 0o700 });
    this.#inboundMode = this.#options.inboundMode ?? this.#tryModes();
    this.#log.info('nftables is in use', { inbound: this.#inboundMode, pods: this.attachedPods().length });
  }

  attach(target: RedirectTarget): void {
    checkPodUid(target.podUid);
    const inboundMode = this.#mode();
    const ports = listenerPorts(target, this.listenOn);
    if (target.plan.failOpen) {
      this.#log.warn('outbound connections cannot fail open with nftables', { pod: target.podUid });
    }
    if (inboundMode === 'tproxy') makeTransparent(target);
    const exempt = [...this.#exempt.values()].filter(({ podUid }) => podUid === target.podUid);
    const isNew = this.#pods.get(target.podUid)?.inode !== target.netnsInode;
    try {
      applyNft(
        target.netnsFd,
        nftRules({
          plan: target.plan,
          ports,
          inboundMode,
          exemptUids: exempt.flatMap((entry) => ('uid' in entry.exempt ? [entry.exempt.uid] : [])),
          exemptCgroups: exempt.flatMap((entry) => ('cgroup' in entry.exempt ? [entry.exempt.cgroup] : [])),
        }),
      );
      this.#remember(target);
    } catch (error) {
      if (isNew) applyNft(target.netnsFd, nftRemoval());
      throw error;
    }
  }

  detach(target: Pick<RedirectTarget, 'podUid'> & Partial<RedirectTarget>): void {
    const state = this.#readState(target.podUid);
    if (!state || (target.netnsCookie && target.netnsCookie !== state.cookie)) return;
    const known = this.#pods.get(target.podUid);
    const netnsFd = known ? duplicate(known.netnsFd) : findNetns(state);
    if (netnsFd !== null) {
      try {
        this.#keepCounters(netnsFd);
        applyNft(netnsFd, nftRemoval());
      } finally {
        close(netnsFd);
      }
    }
    this.#forget(target.podUid);
  }

  replaceListeners(target: RedirectTarget): void {
    this.attach(target);
  }

  exempt(worker: WorkerProcess): void {
    const exempt = exemptionOf(worker);
    if (exempt === undefined) {
      throw new HeddleError('no-process', `exempt process "${worker.pid}": expected a running process`);
    }
    if ('uid' in exempt && exempt.uid === 0) {
      throw new HeddleError('bad-worker-uid', `exempt process "${worker.pid}": expected a uid of its own, not root`);
    }
    this.#exempt.set(worker.pid, { podUid: worker.podUid, exempt });
    const pod = this.#pods.get(worker.podUid);
    if (pod) applyNft(pod.netnsFd, nftExemption('add', exempt));
  }

  unexempt(worker: WorkerProcess): void {
    const known = this.#exempt.get(worker.pid);
    if (!known) return;
    this.#exempt.delete(worker.pid);
    const pod = this.#pods.get(known.podUid);
    const isShared = [...this.#exempt.values()].some(
      (other) => other.podUid === known.podUid && JSON.stringify(other.exempt) === JSON.stringify(known.exempt),
    );
    // A cgroup that is gone cannot be named any more; its id is never used again.
    const isGone = 'cgroup' in known.exempt && !exists(path.join(CGROUP_BASE, known.exempt.cgroup));
    if (pod && !isShared && !isGone) applyNft(pod.netnsFd, nftExemption('delete', known.exempt));
  }

  verify(target: RedirectTarget): Drift[] {
    const pod = this.#pods.get(target.podUid);
    if (!pod || pod.inode !== target.netnsInode) {
      return [{ kind: 'bpf', cause: `pod "${target.podUid}": no rules were written by this agent` }];
    }
    const drift: Drift[] = [];
    const listing = listRules(pod.netnsFd);
    if (listing !== pod.listing) {
      const how = listing === null ? 'is gone' : 'is not as it was written';
      drift.push({ kind: 'bpf', cause: `pod "${target.podUid}": table "${TABLE}" ${how}` });
    }
    for (const name of LISTENER_NAMES) {
      if (isListening(target.listeners[name])) continue;
      drift.push({ kind: 'listener', cause: `descriptor "${target.listeners[name]}" (${name}) does not listen` });
    }
    return drift;
  }

  attachedPods(): string[] {
    return exists(this.#options.stateDir) ? readdirSync(this.#options.stateDir) : [];
  }

  counters(): Record<string, bigint> {
    const totals = new Map(this.#past);
    for (const pod of this.#pods.values()) addCounters(totals, pod.netnsFd);
    return Object.fromEntries(NFT_COUNTERS.map((name) => [name, totals.get(name) ?? 0n]));
  }

  close(): void {
    for (const pod of this.#pods.values()) close(pod.netnsFd);
    this.#pods.clear();
    this.#exempt.clear();
    this.#inboundMode = null;
  }

  uninstall(): void {
    for (const podUid of this.attachedPods()) this.detach({ podUid });
    this.close();
    rmSync(this.#options.stateDir, { recursive: true, force: true });
  }

  #mode(): InboundMode {
    if (!this.#inboundMode) throw new HeddleError('not-started', 'use the redirector: expected start() before');
    return this.#inboundMode;
  }

  /** Rules are tried in a namespace of our own. */
  #tryModes(): InboundMode {
    const netnsFd = createNetns();
    try {
      applyNft(netnsFd, nftTrial('tproxy'));
      return 'tproxy';
    } catch (error) {
      this.#log.info('no transparent proxying, inbound connections are redirected', { error });
      applyNft(netnsFd, nftTrial('redirect'));
      return 'redirect';
    } finally {
      closeSync(netnsFd);
    }
  }

  #remember(target: RedirectTarget): void {
    const { podUid: uid, netnsInode: inode } = target;
    const listing = listRules(target.netnsFd);
    const known = this.#pods.get(uid);
    if (known?.inode === inode) known.listing = listing;
    else {
      if (known) close(known.netnsFd);
      this.#pods.set(uid, { uid, inode, netnsFd: duplicate(target.netnsFd), listing });
    }
    writeFileSync(path.join(this.#options.stateDir, uid), `${inode} ${target.netnsCookie}\n`, { mode: 0o600 });
  }

  /** The namespace that the pod's rules were written in, by this agent or one before. */
  #readState(uid: string): NetnsIdentity | null {
    const file = path.join(this.#options.stateDir, uid);
    if (!exists(file)) return null;
    const [inode, cookie] = readFileSync(file, 'utf8').trim().split(' ');
    if (!/^\d+$/.test(inode ?? '') || !/^\d+$/.test(cookie ?? '')) {
      throw new HeddleError('bad-state', `read "${file}": expected an inode and a cookie, remove the file`);
    }
    return { inode: BigInt(inode!), cookie: BigInt(cookie!) };
  }

  #forget(uid: string): void {
    const pod = this.#pods.get(uid);
    if (pod) close(pod.netnsFd);
    this.#pods.delete(uid);
    rmSync(path.join(this.#options.stateDir, uid), { force: true });
  }

  #keepCounters(netnsFd: number): void {
    try {
      addCounters(this.#past, netnsFd);
    } catch (error) {
      // The pod may have removed the table itself; that must not keep it attached.
      if (!(error instanceof HeddleError) || error.code !== 'nft-failed') throw error;
    }
  }
}

function listenerPorts(target: RedirectTarget, listenOn: ListenOn): Record<ListenerName, number> {
  const ports = {} as Record<ListenerName, number>;
  for (const name of LISTENER_NAMES) {
    const fd = target.listeners[name];
    const local = isListening(fd) ? localAddress(fd) : null;
    if (!local) {
      throw new HeddleError('bad-listener', `steer to descriptor "${fd}" (${name}): expected a listening socket`);
    }
    if (listenOn === 'any' && !['0.0.0.0', '::'].includes(local.address)) {
      throw new HeddleError(
        'bad-listener',
        `steer to descriptor "${fd}" (${name}) at "${local.address}": expected a listener on all addresses`,
      );
    }
    ports[name] = local.port;
  }
  return ports;
}

/** A transparent socket may have addresses that are not its own: what tproxy asks for. */
function makeTransparent({ listeners }: RedirectTarget): void {
  setSocketOption(listeners.inbound4, SocketLevel.ip, SocketOption.ipTransparent, 1);
  const local = localAddress(listeners.inbound6);
  // On a kernel without IPv6 an IPv4 listener stands in for it.
  if (local?.address.includes(':')) {
    setSocketOption(listeners.inbound6, SocketLevel.ipv6, SocketOption.ipv6Transparent, 1);
  }
}

/** Without what changes by itself: counters, and the sets of workers. Null when there is no table. */
function listRules(netnsFd: number): string | null {
  if (!runNft(netnsFd, ['list', 'tables']).includes(TABLE)) return null;
  const text = runNft(netnsFd, ['--stateless', 'list', 'table', ...TABLE.split(' ')]);
  return text.replace(/\n\tset exempt_\w+ \{\n(?:\t\t.*\n)*\t\}/g, '').trim();
}

function addCounters(totals: Map<string, bigint>, netnsFd: number): void {
  const text = runNft(netnsFd, ['--json', 'list', 'counters', 'table', ...TABLE.split(' ')]);
  const { nftables } = JSON.parse(text) as { nftables: { counter?: { name: string; packets: number } }[] };
  for (const { counter } of nftables) {
    if (counter) totals.set(counter.name, (totals.get(counter.name) ?? 0n) + BigInt(counter.packets));
  }
}

/** By cgroup where nft can name it: it resolves paths below /sys/fs/cgroup only. */
function exemptionOf(worker: WorkerProcess): Exempt | undefined {
  const relative = worker.cgroupPath === null ? '..' : path.relative(CGROUP_BASE, worker.cgroupPath);
  if (relative !== '' && !relative.startsWith('..')) return { cgroup: relative };
  const uid = liveUid(worker.pid);
  return uid === undefined ? undefined : { uid };
}

function exists(file: string): boolean {
  return statSync(file, { throwIfNoEntry: false }) !== undefined;
}
