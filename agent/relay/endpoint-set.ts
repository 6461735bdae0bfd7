// The endpoints of one destination as the updates of its stream add up: Destination.Get sends changes, and a worker
// that joins late needs the whole set. Pure: updates in, updates out.

import type { AddrSet, Update, WeightedAddr } from '#api/gen/destination.ts';
import type { TcpAddress } from '#api/gen/net.ts';

/** Addresses in one `add` of a snapshot: keeps a frame far below its bound even with long labels. */
const SNAPSHOT_ADDRESSES_MAX = 1000;

interface Entry {
  address: WeightedAddr;
  /** Labels of the `add` the address came in: they describe its service. */
  labels: Record<string, string>;
  labelsKey: string;
}

/** A set of endpoints, keyed by address. An address that comes again replaces the one before. */
export class EndpointSet {
  readonly #entries = new Map<string, Entry>();
  /** What the service said about itself when it had no endpoints; null when it said nothing. */
  #exists: boolean | null = null;

  get size(): number {
    return this.#entries.size;
  }

  apply(message: Update): void {
    const { update } = message;
    if (!update) return;
    if (update.$case === 'add') {
      const labels = update.value.metricLabels;
      const labelsKey = JSON.stringify(Object.entries(labels).sort());
      for (const address of update.value.addrs) {
        if (address.addr) this.#entries.set(addressKey(address.addr), { address, labels, labelsKey });
      }
      this.#exists = null;
    } else if (update.$case === 'remove') {
      for (const address of update.value.addrs) this.#entries.delete(addressKey(address));
    } else {
      this.#entries.clear();
      this.#exists = update.value.exists;
    }
  }

  /**
   * The updates that make an empty set equal to this one: one `add` for each thousand addresses with equal labels, or
   * `noEndpoints` where the service said so. Empty when there is nothing to tell.
   */
  snapshot(): Update[] {
    if (this.#entries.size === 0) {
      return this.#exists === null ? [] : [{ update: { $case: 'noEndpoints', value: { exists: this.#exists } } }];
    }
    const groups = new Map<string, Entry[]>();
    for (const entry of this.#entries.values()) {
      const group = groups.get(entry.labelsKey);
      if (group) group.push(entry);
      else groups.set(entry.labelsKey, [entry]);
    }
    const updates: Update[] = [];
    for (const group of groups.values()) {
      for (let at = 0; at < group.length; at += SNAPSHOT_ADDRESSES_MAX) {
        const addrs = group.slice(at, at + SNAPSHOT_ADDRESSES_MAX).map((entry) => entry.address);
        updates.push({ update: { $case: 'add', value: { addrs, metricLabels: group[0]!.labels } } });
      }
    }
    return updates;
  }

  /** The `remove` of every address that is here and not in `next`; null when there is none. */
  missingIn(next: EndpointSet): Update | null {
    const addrs: AddrSet['addrs'] = [];
    for (const [key, entry] of this.#entries) {
      if (!next.#entries.has(key)) addrs.push(entry.address.addr!);
    }
    return addrs.length === 0 ? null : { update: { $case: 'remove', value: { addrs } } };
  }
}

function addressKey(address: TcpAddress): string {
  const ip = address.ip?.ip;
  if (!ip) return `-:${address.port}`;
  if (ip.$case === 'ipv4') return `${ip.value}:${address.port}`;
  return `${ip.value.first}.${ip.value.last}:${address.port}`;
}
