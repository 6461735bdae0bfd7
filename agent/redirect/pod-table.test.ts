import { describe, expect, test } from 'vitest';
import type { BpfMap } from '#lib/bpf.ts';
import { addressKey, MAPS, type MapName, u64 } from './ebpf-layout.ts';
import type { LoadedObject } from './ebpf-object.ts';
import { type InterfaceAddress, makePodRecord } from './pod-record.ts';
import { PodTable } from './pod-table.ts';

/** A kernel map, as far as the table uses one. */
class MemoryMap implements Pick<BpfMap, 'update' | 'lookup' | 'delete' | 'keys'> {
  readonly #entries = new Map<string, Buffer>();

  update(key: Buffer, value: Buffer): void {
    this.#entries.set(key.toString('hex'), Buffer.from(value));
  }

  lookup(key: Buffer): Buffer | null {
    return this.#entries.get(key.toString('hex')) ?? null;
  }

  delete(key: Buffer): boolean {
    return this.#entries.delete(key.toString('hex'));
  }

  keys(): Buffer[] {
    return [...this.#entries.keys()].map((key) => Buffer.from(key, 'hex'));
  }
}

function setUp() {
  const maps = Object.fromEntries(Object.keys(MAPS).map((name) => [name, new MemoryMap()])) as unknown as Record<
    MapName,
    BpfMap
  >;
  const table = () => new PodTable(maps as LoadedObject['maps']);
  return { maps, table, owner: (address: string) => maps.addresses.lookup(addressKey(address)) };
}

/** A pod on eth0; `more` are addresses that it has there besides the one that Kubernetes gave it. */
function pod(cookie: bigint, ip: string, ...more: string[]) {
  const interfaces: InterfaceAddress[] = [ip, ...more].map((address) => ({ interface: 'eth0', address }));
  return makePodRecord(
    {
      podUid: `uid-${cookie}`,
      netnsFd: -1,
      netnsInode: cookie,
      netnsCookie: cookie,
      slot: Number(cookie),
      ips: [ip],
      listeners: { inbound4: -1, inbound6: -1, outbound4: -1, outbound6: -1 },
      plan: {
        inbound: true,
        outbound: true,
        failOpen: false,
        skipInboundPorts: [],
        skipOutboundPorts: [],
        skipOutboundCidrs: [],
        skipInboundCidrs: [],
      },
    },
    interfaces,
  );
}

const ALIVE = () => true;

describe('an address that a pod gives itself', () => {
  test('takes nothing from the pod that Kubernetes gave it to', () => {
    const { table, owner } = setUp();
    const pods = table();
    const victim = pod(1n, '10.0.0.1');
    const other = pod(2n, '10.0.0.2', '10.0.0.1');
    pods.prepare(victim);
    pods.activate(victim);
    pods.prepare(other);
    pods.activate(other);
    expect(owner('10.0.0.1')).toEqual(u64(1n));
    expect(pods.inspect(victim)).toEqual([]);
    // No drift either, which would be repaired again and again.
    expect(pods.inspect(other)).toEqual([]);
  });

  test('takes nothing either while an agent that just started has not seen the pod', () => {
    const { table, owner } = setUp();
    table().prepare(pod(1n, '10.0.0.1'));
    table().prepare(pod(2n, '10.0.0.2', '10.0.0.1'));
    expect(owner('10.0.0.1')).toEqual(u64(1n));
  });

  test('keeps no pod away that Kubernetes gives it to', () => {
    const { table, owner } = setUp();
    const pods = table();
    const squatters = [pod(2n, '10.0.0.2', '10.0.0.1'), pod(3n, '10.0.0.3', '10.0.0.1')];
    for (const [index, squatter] of squatters.entries()) {
      pods.prepare(squatter);
      pods.activate(squatter);
      const late = pod(BigInt(10 + index), '10.0.0.1');
      expect(pods.staleRivals(late, ALIVE)).toEqual([]);
    }
    const rightful = pod(1n, '10.0.0.1');
    pods.prepare(rightful);
    pods.activate(rightful);
    expect(owner('10.0.0.1')).toEqual(u64(1n));
    expect([rightful, ...squatters].flatMap((record) => pods.inspect(record))).toEqual([]);
  });

  test('is steered in neither where another pod gave it itself as well, and again where only one is left', () => {
    const { table, owner } = setUp();
    const pods = table();
    const [one, two] = [pod(1n, '10.0.0.1', 'fe80::1'), pod(2n, '10.0.0.2', 'fe80::1')];
    for (const record of [one, two]) {
      pods.prepare(record);
      pods.activate(record);
    }
    expect(owner('fe80::1')).toEqual(u64(0n));
    expect([one, two].flatMap((record) => pods.inspect(record))).toEqual([]);
    pods.remove(1n);
    expect(owner('fe80::1')).toEqual(u64(2n));
  });
});

test('two pods with one address of Kubernetes are a conflict while both live', () => {
  const { table } = setUp();
  const pods = table();
  const one = pod(1n, '10.0.0.1');
  pods.prepare(one);
  pods.activate(one);
  expect(() => pods.staleRivals(pod(2n, '10.0.0.1'), ALIVE)).toThrow('address "10.0.0.1" is in use by pod "uid-1"');
  expect(pods.staleRivals(pod(2n, '10.0.0.1'), () => false).map(({ cookie }) => cookie)).toEqual([1n]);
});
