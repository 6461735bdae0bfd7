// The maps' entries of pods: written so that at every moment a connection is either left alone or handled completely,
// compared with what they should be, removed. Knows nothing of links.

import { LISTENER_NAMES, type ListenerName } from '#api/worker-link.ts';
import type { BpfMap } from '#lib/bpf.ts';
import { HeddleError } from '#lib/errors.ts';
import { formatIp } from '#lib/ip-address.ts';
import { isErrno } from '#lib/libc.ts';
import { isListening, socketCookie } from '#lib/tcp-socket.ts';
import { cookieOfSkipKey, decodePod, encodePod, listenerKey, type PodEntry, PodFlag, u32, u64 } from './ebpf-layout.ts';
import type { LoadedObject } from './ebpf-object.ts';
import type { PodRecord } from './pod-record.ts';
import type { Drift } from './redirector.ts';

/** In `addresses`: more than one pod has the address, Kubernetes gave it to none of them, so it is nobody's. */
const AMBIGUOUS = 0n;
const PRESENT = u32(1);

export interface AttachedPod {
  cookie: bigint;
  entry: PodEntry;
}

export class PodTable {
  readonly #maps: LoadedObject['maps'];
  /** Extra addresses by namespace cookie, of the pods that this process has seen. */
  readonly #claims = new Map<bigint, readonly Buffer[]>();

  constructor(maps: LoadedObject['maps']) {
    this.#maps = maps;
  }

  /** Every pod that the maps name. */
  list(): AttachedPod[] {
    return listPods(this.#maps.pods);
  }

  has(cookie: bigint): boolean {
    return this.#maps.pods.lookup(u64(cookie)) !== null;
  }

  /**
   * The pods that must go before this one can be written: the same pod in an older sandbox, and dead ones with its slot
   * or one of its addresses. Throws when a living pod has them; `isAlive` tells whether a pod's namespace still exists.
   */
  staleRivals(record: PodRecord, isAlive: (pod: AttachedPod) => boolean): AttachedPod[] {
    const stale: AttachedPod[] = [];
    for (const pod of this.list()) {
      if (pod.cookie === record.cookie) continue;
      const shared = record.addresses.find(
        (key) => this.#ownerOf(key) === pod.cookie && !this.#isClaim(pod.cookie, key),
      );
      if (pod.entry.uid !== record.entry.uid) {
        if (!shared && pod.entry.slot !== record.entry.slot) continue;
        if (isAlive(pod)) throw conflict(record, shared, `in use by pod "${pod.entry.uid}"`);
      }
      stale.push(pod);
    }
    return stale;
  }

  /** Everything but the outbound flag: connections of the pod still leave directly. */
  prepare(record: PodRecord): void {
    this.#writeSkips(record);
    if (!this.has(record.cookie)) {
      const entry = { ...record.entry, flags: record.entry.flags & ~PodFlag.outbound };
      this.#maps.pods.update(u64(record.cookie), encodePod(entry));
    }
    for (const key of record.addresses) this.#maps.addresses.update(key, u64(record.cookie));
    this.#claims.set(record.cookie, record.extraAddresses);
    for (const key of record.extraAddresses) {
      const owner = this.#ownerOf(key);
      if (owner === null) this.#maps.addresses.update(key, u64(record.cookie));
      else if (owner !== record.cookie && this.#isClaim(owner, key)) {
        this.#maps.addresses.update(key, u64(AMBIGUOUS));
      }
    }
  }

  /** From here on the pod is redirected as its record says. */
  activate(record: PodRecord): void {
    this.#maps.pods.update(u64(record.cookie), encodePod(record.entry));
  }

  setListeners(slot: number, listeners: Readonly<Record<ListenerName, number>>): void {
    for (const [index, name] of LISTENER_NAMES.entries()) {
      if (!isListening(listeners[name])) {
        throw new HeddleError(
          'bad-listener',
          `steer to descriptor "${listeners[name]}" (${name}): expected a listening socket`,
        );
      }
      this.#maps.listeners.update(listenerKey(slot, index), u64(BigInt(listeners[name])));
    }
  }

  /** Removes all entries of a namespace: first the one that redirects, so that its connections go direct at once. */
  remove(cookie: bigint): void {
    const value = this.#maps.pods.lookup(u64(cookie));
    this.#maps.pods.delete(u64(cookie));
    if (value) {
      const { slot } = decodePod(value);
      for (const index of LISTENER_NAMES.keys()) this.#emptySlot(listenerKey(slot, index));
    }
    const { addresses, skip_ports: ports, skip_networks: networks } = this.#maps;
    for (const key of addresses.keys()) if (this.#ownerOf(key) === cookie) addresses.delete(key);
    for (const map of [ports, networks]) {
      for (const key of map.keys()) if (cookieOfSkipKey(key) === cookie) map.delete(key);
    }
    this.#releaseClaims(cookie);
  }

  /** How the entries differ from the record. */
  inspect(record: PodRecord): Drift[] {
    const drift: Drift[] = [];
    this.#claims.set(record.cookie, record.extraAddresses);
    const found = (cause: string) => drift.push({ kind: 'bpf', cause: `pod "${record.entry.uid}": ${cause}` });
    const value = this.#maps.pods.lookup(u64(record.cookie));
    if (!value) found('entry is missing in map "pods"');
    else if (!value.equals(encodePod(record.entry))) found('entry in map "pods" differs from the plan');
    for (const key of record.addresses) {
      if (this.#ownerOf(key) !== record.cookie) found(`address "${formatIp(key)}" is not steered`);
    }
    for (const key of record.extraAddresses) {
      const owner = this.#ownerOf(key);
      const isOthers = owner !== null && owner !== record.cookie && !this.#isClaim(owner, key);
      if (owner !== record.cookie && owner !== AMBIGUOUS && !isOthers) {
        found(`address "${formatIp(key)}" is not steered`);
      }
    }
    const { skip_ports: ports, skip_networks: networks } = this.#maps;
    if (record.portKeys.some((key) => !isPresent(ports.lookup(key)))) found('a skipped port is missing');
    if (record.networkKeys.some((key) => !isPresent(networks.lookup(key)))) found('a skipped network is missing');
    return drift;
  }

  /** How the slots differ from the listeners. */
  inspectListeners(slot: number, listeners: Readonly<Record<ListenerName, number>>): Drift[] {
    const drift: Drift[] = [];
    for (const [index, name] of LISTENER_NAMES.entries()) {
      if (!isListening(listeners[name])) {
        drift.push({ kind: 'listener', cause: `descriptor "${listeners[name]}" (${name}) does not listen` });
        continue;
      }
      // Read from user space, a SOCKMAP answers with the cookie of the socket.
      const held = this.#maps.listeners.lookup(listenerKey(slot, index))?.readBigUInt64LE(0) ?? 0n;
      if (held !== socketCookie(listeners[name])) {
        drift.push({
          kind: 'listener',
          cause: `slot "${slot}" holds ${held === 0n ? 'nothing' : 'another socket'} for ${name}`,
        });
      }
    }
    return drift;
  }

  /**
   * True where a pod has the address only because it is on one of its interfaces. What Kubernetes gave to a pod no other
   * can take by giving it to itself; of a pod that this process has not seen yet nothing is taken at all.
   */
  #isClaim(cookie: bigint, key: Buffer): boolean {
    return this.#claims.get(cookie)?.some((own) => own.equals(key)) ?? false;
  }

  /** An address that two pods had belongs to the one that is left, once it is certain that there is only one. */
  #releaseClaims(cookie: bigint): void {
    const released = this.#claims.get(cookie) ?? [];
    this.#claims.delete(cookie);
    const isCertain = this.list().every((pod) => this.#claims.has(pod.cookie));
    for (const key of released) {
      if (!isCertain || this.#ownerOf(key) !== AMBIGUOUS) continue;
      const claimants = [...this.#claims].filter(([, keys]) => keys.some((own) => own.equals(key)));
      const last = claimants[0];
      if (!last) this.#maps.addresses.delete(key);
      else if (claimants.length === 1) this.#maps.addresses.update(key, u64(last[0]));
    }
  }

  /** A SOCKMAP answers EINVAL for a slot that is empty already. */
  #emptySlot(key: Buffer): void {
    try {
      this.#maps.listeners.delete(key);
    } catch (error) {
      if (!isErrno(error, 'EINVAL')) throw error;
    }
  }

  #ownerOf(address: Buffer): bigint | null {
    return this.#maps.addresses.lookup(address)?.readBigUInt64LE(0) ?? null;
  }

  /** New entries first, then those that the plan has no longer. */
  #writeSkips(record: PodRecord): void {
    const { skip_ports: ports, skip_networks: networks } = this.#maps;
    const wanted = [
      { map: ports, keys: record.portKeys },
      { map: networks, keys: record.networkKeys },
    ];
    for (const { map, keys } of wanted) {
      for (const key of keys) map.update(key, PRESENT);
      if (!this.has(record.cookie)) continue;
      for (const key of map.keys()) {
        if (cookieOfSkipKey(key) === record.cookie && !keys.some((own) => own.equals(key))) map.delete(key);
      }
    }
  }
}

/** A longest-prefix lookup also finds a wider entry of the same pod, which skips no less. */
function isPresent(value: Buffer | null): boolean {
  return value !== null;
}

/** The entries of the map `pods`. */
export function listPods(map: BpfMap): AttachedPod[] {
  const pods: AttachedPod[] = [];
  for (const key of map.keys()) {
    const value = map.lookup(key);
    if (value) pods.push({ cookie: key.readBigUInt64LE(0), entry: decodePod(value) });
  }
  return pods;
}

function conflict(record: PodRecord, address: Buffer | undefined, where: string): HeddleError {
  const what = address ? `address "${formatIp(address)}"` : `slot "${record.entry.slot}"`;
  return new HeddleError(
    address ? 'duplicate-pod-ip' : 'duplicate-slot',
    `redirect pod "${record.entry.uid}": ${what} is ${where}, expected one of its own`,
  );
}
