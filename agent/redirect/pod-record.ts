// What the kernel must know of one pod, worked out before anything is written: flags, where outbound connections are
// sent, which addresses are the pod's own, which keys skip. Pure.

import { Port } from '#api/names.ts';
import { HeddleError } from '#lib/errors.ts';
import { isIpv4, parseCidr } from '#lib/ip-address.ts';
import {
  addressKey,
  checkPodUid,
  Direction,
  listenerKey,
  networkKey,
  type PodEntry,
  PodFlag,
  portKeys,
} from './ebpf-layout.ts';
import type { RedirectTarget } from './redirector.ts';

/** More of one pod are not steered; Kubernetes gives a pod one of each family. */
export const POD_ADDRESSES_MAX = 16;

/** An address of an interface in the pod's namespace. */
export interface InterfaceAddress {
  interface: string;
  address: string;
}

export interface PodRecord {
  cookie: bigint;
  entry: PodEntry;
  /** Addresses that Kubernetes gave the pod: no other pod may have them. */
  addresses: Buffer[];
  /** Others of the same interfaces, link-local ones among them: steered unless another pod has the same. */
  extraAddresses: Buffer[];
  portKeys: Buffer[];
  networkKeys: Buffer[];
}

const NONE = Buffer.alloc(16);

/** Works the record out; throws on addresses, ports or networks that are none. */
export function makePodRecord(target: RedirectTarget, interfaces: readonly InterfaceAddress[]): PodRecord {
  checkPodUid(target.podUid);
  listenerKey(target.slot, 0);
  const addresses = target.ips.map(addressKey);
  if (addresses.length === 0) {
    throw new HeddleError('bad-address', `redirect pod "${target.podUid}": expected at least one pod IP`);
  }
  for (const [index, key] of addresses.entries()) {
    if (isUsable(key)) continue;
    throw new HeddleError(
      'bad-address',
      `redirect pod address "${target.ips[index]}": expected a unicast address other than loopback and link-local`,
    );
  }
  const extras = extraAddresses(target, interfaces, addresses);
  const candidates = [...addresses, ...extras].filter(isUsable);
  const redirect4 = candidates.find((key) => isIpv4(key)) ?? NONE;
  const redirect6 = candidates.find((key) => !isIpv4(key)) ?? NONE;
  const { plan } = target;
  let flags = 0;
  if (plan.outbound) flags |= PodFlag.outbound;
  if (plan.inbound) flags |= PodFlag.inbound;
  if (plan.failOpen) flags |= PodFlag.failOpen;
  if (redirect4 !== NONE) flags |= PodFlag.hasIpv4;
  if (redirect6 !== NONE) flags |= PodFlag.hasIpv6;
  return {
    cookie: target.netnsCookie,
    entry: { flags, slot: target.slot, outboundPort: Port.outbound, redirect4, redirect6, uid: target.podUid },
    addresses,
    extraAddresses: extras,
    portKeys: [
      ...plan.skipOutboundPorts.flatMap((range) => portKeys(target.netnsCookie, Direction.outbound, range)),
      ...plan.skipInboundPorts.flatMap((range) => portKeys(target.netnsCookie, Direction.inbound, range)),
    ],
    networkKeys: [
      ...networkKeys(target, Direction.outbound, plan.skipOutboundCidrs),
      ...networkKeys(target, Direction.inbound, plan.skipInboundCidrs),
    ],
  };
}

/**
 * Addresses besides those that Kubernetes knows: all of the interfaces that carry a pod IP, and where Kubernetes knows
 * none of a family, any of that family (an IPv6 pod may have an IPv4 address for egress only).
 */
function extraAddresses(target: RedirectTarget, interfaces: readonly InterfaceAddress[], known: Buffer[]): Buffer[] {
  const found = interfaces
    .filter((entry) => !entry.address.includes('%'))
    .map((entry) => ({ ...entry, key: addressKey(entry.address) }))
    .filter(({ key }) => !isLoopback(key));
  const carriers = new Set(
    found.filter(({ key }) => known.some((own) => own.equals(key))).map((entry) => entry.interface),
  );
  const extras: Buffer[] = [];
  for (const { interface: name, key } of found) {
    const isMissingFamily = isUsable(key) && !known.some((own) => isIpv4(own) === isIpv4(key));
    if (!carriers.has(name) && !isMissingFamily) continue;
    if ([...known, ...extras].some((own) => own.equals(key))) continue;
    if (known.length + extras.length < POD_ADDRESSES_MAX) extras.push(key);
  }
  return extras;
}

function isLoopback(key: Buffer): boolean {
  if (isIpv4(key)) return key[12] === 127;
  return key.subarray(0, 15).every((byte) => byte === 0) && key[15] === 1;
}

function isLinkLocal6(key: Buffer): boolean {
  return key[0] === 0xfe && (key[1]! & 0xc0) === 0x80;
}

/** True for what connections can be sent to without naming an interface. */
function isUsable(key: Buffer): boolean {
  if (isIpv4(key)) return key[12] !== 0 && key[12] !== 127 && key[12]! < 224;
  return !key.equals(NONE) && !isLoopback(key) && !isLinkLocal6(key) && key[0] !== 0xff;
}

function networkKeys(target: RedirectTarget, direction: Direction, networks: readonly string[]): Buffer[] {
  return networks.map((text) => {
    const network = parseCidr(text);
    if (!network) {
      throw new HeddleError('bad-network', `skip network "${text}": expected an address with a prefix length`);
    }
    return networkKey(target.netnsCookie, direction, network);
  });
}
