// Map keys and values as the programs see them: the TypeScript side of bpf/heddle.h. Integers are little-endian (x64
// and arm64), ports and addresses in network order, IPv4 as v4-mapped 16 bytes. Pure; a test compares it with the header.

import { HeddleError } from '#lib/errors.ts';
import { type IpNetwork, parseIp } from '#lib/ip-address.ts';
import { POD_SLOTS_MAX, type PortRange, PROBE_SLOT } from './redirector.ts';

/** Names the pin directory. Raised with every change of a map's layout or of what a program expects of it. */
export const PIN_SCHEMA = 'v1';

export const PROGRAMS = [
  'heddle_bind4',
  'heddle_bind6',
  'heddle_connect4',
  'heddle_connect6',
  'heddle_getpeername4',
  'heddle_getpeername6',
  'heddle_getsockopt',
  'heddle_inbound',
  'heddle_sockops',
] as const;
export type ProgramName = (typeof PROGRAMS)[number];

/** Maps that the agent uses, with the bytes of key and value. */
export const MAPS = {
  pods: { keyBytes: 8, valueBytes: 96 },
  addresses: { keyBytes: 16, valueBytes: 8 },
  listeners: { keyBytes: 4, valueBytes: 8 },
  skip_ports: { keyBytes: 16, valueBytes: 4 },
  skip_networks: { keyBytes: 32, valueBytes: 4 },
  exempt_cgroups: { keyBytes: 8, valueBytes: 4 },
  exempt_tgids: { keyBytes: 4, valueBytes: 4 },
  exempt_levels: { keyBytes: 4, valueBytes: 4 },
  outcomes: { keyBytes: 4, valueBytes: 8 },
} as const;
export type MapName = keyof typeof MAPS;

/** Maps that only the programs use; their pins matter when programs are replaced. */
export const KERNEL_MAPS = ['originals', 'pending'] as const;

/** Counters in the order of `enum outcome`. */
export const OUTCOMES = [
  'outbound_redirected',
  'outbound_skipped_loopback',
  'outbound_skipped_own_address',
  'outbound_skipped_metadata',
  'outbound_skipped_worker',
  'outbound_skipped_port',
  'outbound_skipped_network',
  'outbound_skipped_no_listener',
  'outbound_skipped_link_local',
  'outbound_skipped_no_family',
  'outbound_skipped_udp',
  'outbound_skipped_protocol',
  'outbound_refused_no_listener',
  'outbound_refused_link_local',
  'outbound_refused_no_family',
  'outbound_refused_no_memory',
  'outbound_accepted',
  'outbound_accepted_unknown',
  'inbound_steered',
  'inbound_skipped_own_address',
  'inbound_skipped_unknown_address',
  'inbound_skipped_port',
  'inbound_skipped_network',
  'inbound_skipped_no_listener',
  'inbound_refused_no_listener',
  'inbound_refused_assign',
  'bind_shared',
  'bind_not_shared',
] as const;

export const PodFlag = { outbound: 1, inbound: 2, failOpen: 4, hasIpv4: 8, hasIpv6: 16 } as const;
export const Direction = { outbound: 1, inbound: 2 } as const;
export type Direction = (typeof Direction)[keyof typeof Direction];

export const LISTENERS_PER_POD = 4;
export const EXEMPT_LEVELS_MAX = 8;
export const POD_UID_BYTES = 64;

export interface PodEntry {
  flags: number;
  slot: number;
  outboundPort: number;
  /** 16 bytes each, all zero when the pod has no address of the family. */
  redirect4: Buffer;
  redirect6: Buffer;
  uid: string;
}

/** Throws unless the UID can be a map value and a file name in a bpffs (which allows no dots). */
export function checkPodUid(uid: string): void {
  if (/^[A-Za-z0-9_-]{1,63}$/.test(uid)) return;
  throw new HeddleError('bad-pod-uid', `redirect pod "${uid}": expected a UID of at most 63 letters, digits, "-", "_"`);
}

export function encodePod(pod: PodEntry): Buffer {
  checkPodUid(pod.uid);
  const bytes = Buffer.alloc(MAPS.pods.valueBytes);
  bytes.writeUInt32LE(pod.flags, 0);
  bytes.writeUInt32LE(pod.slot, 4);
  bytes.writeUInt16BE(pod.outboundPort, 8);
  pod.redirect4.copy(bytes, 12, 12, 16);
  pod.redirect6.copy(bytes, 16);
  bytes.write(pod.uid, 32, 'latin1');
  return bytes;
}

export function decodePod(bytes: Buffer): PodEntry {
  const redirect4 = Buffer.alloc(16);
  if (bytes.readUInt32LE(12) !== 0) {
    redirect4.writeUInt16BE(0xffff, 10);
    bytes.copy(redirect4, 12, 12, 16);
  }
  const uidEnd = bytes.indexOf(0, 32);
  return {
    flags: bytes.readUInt32LE(0),
    slot: bytes.readUInt32LE(4),
    outboundPort: bytes.readUInt16BE(8),
    redirect4,
    redirect6: Buffer.from(bytes.subarray(16, 32)),
    uid: bytes.toString('latin1', 32, uidEnd < 0 ? bytes.length : uidEnd),
  };
}

/** The key of an address, e.g. of the map `addresses`; throws on what is none. */
export function addressKey(address: string): Buffer {
  const bytes = parseIp(address);
  if (!bytes) {
    throw new HeddleError('bad-address', `redirect pod address "${address}": expected an IPv4 or IPv6 address`);
  }
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value, 0);
  return bytes;
}

export function u64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value, 0);
  return bytes;
}

/** The key of a pod's listener in the SOCKMAP: `index` is its place in LISTENER_NAMES. */
export function listenerKey(slot: number, index: number): Buffer {
  if (!Number.isInteger(slot) || slot < 0 || slot > PROBE_SLOT) {
    throw new HeddleError('bad-slot', `redirect slot "${slot}": expected a number from 0 to ${POD_SLOTS_MAX - 1}`);
  }
  return u32(slot * LISTENERS_PER_POD + index);
}

const PORT_KEY_FIXED_BITS = 80;
const NETWORK_KEY_FIXED_BITS = 96;

/** Longest-prefix keys of a port range: a range is at most 30 prefixes, an aligned one is a single one. */
export function portKeys(netnsCookie: bigint, direction: Direction, range: PortRange): Buffer[] {
  return portPrefixes(range).map(({ port, bits }) => {
    const key = Buffer.alloc(MAPS.skip_ports.keyBytes);
    key.writeUInt32LE(PORT_KEY_FIXED_BITS + bits, 0);
    key.writeBigUInt64LE(netnsCookie, 4);
    key.writeUInt8(direction, 12);
    key.writeUInt16BE(port, 14);
    return key;
  });
}

export function networkKey(netnsCookie: bigint, direction: Direction, network: IpNetwork): Buffer {
  const key = Buffer.alloc(MAPS.skip_networks.keyBytes);
  key.writeUInt32LE(NETWORK_KEY_FIXED_BITS + network.bits, 0);
  key.writeBigUInt64LE(netnsCookie, 4);
  key.writeUInt8(direction, 12);
  network.bytes.copy(key, 16);
  return key;
}

/** The namespace cookie in a key of either skip map. */
export function cookieOfSkipKey(key: Buffer): bigint {
  return key.readBigUInt64LE(4);
}

/** The fewest prefixes that cover the range exactly. */
export function portPrefixes(range: PortRange): { port: number; bits: number }[] {
  const prefixes: { port: number; bits: number }[] = [];
  let from = range.from;
  while (from <= range.to) {
    let size = 1;
    while (from % (size * 2) === 0 && from + size * 2 - 1 <= range.to && size < 65536) size *= 2;
    prefixes.push({ port: from, bits: 16 - Math.log2(size) });
    from += size;
  }
  return prefixes;
}
