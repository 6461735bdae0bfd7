// ClusterIPs for Services whose manifests name none, as the API server would give them out. The address follows from
// the Service's name, so that every process that reads the directory finds the same one.

import { createHash } from 'node:crypto';
import net from 'node:net';
import { HeddleError } from '#lib/errors.ts';
import { formatIp, IP_BYTES, parseCidr, V4_MAPPED_BITS } from '#lib/ip-address.ts';
import type { Service } from './resources.ts';

export interface ServiceNetworks {
  ipv4: string;
  ipv6: string;
}

export const DEFAULT_SERVICE_NETWORKS: ServiceNetworks = { ipv4: '10.96.0.0/12', ipv6: 'fd00:10:96::/108' };

/**
 * Services with the addresses they lack, of the families they ask for (IPv4 unless told otherwise). Headless and
 * ExternalName Services stay as they are. Where two names fall on one address the first in order keeps it.
 */
export function assignClusterIps(services: readonly Service[], networks: ServiceNetworks): Service[] {
  const taken = new Set(services.flatMap(({ spec }) => [spec.clusterIP ?? '', ...(spec.clusterIPs ?? [])]));
  const keyOf = ({ metadata }: Service) => `${metadata.namespace ?? 'default'}/${metadata.name}`;
  const assigned = new Map<Service, Service>();
  for (const service of [...services].sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))) {
    const { clusterIP, clusterIPs, type } = service.spec;
    if (type === 'ExternalName' || clusterIP === 'None' || clusterIPs?.[0] === 'None') continue;
    const given = clusterIPs?.length ? clusterIPs : clusterIP ? [clusterIP] : [];
    const addresses = familiesOf(service, given).map((family) => {
      const own = given.find((address) => net.isIPv6(address) === (family === 'IPv6'));
      return own ?? pick(keyOf(service), family === 'IPv6' ? networks.ipv6 : networks.ipv4, taken);
    });
    const spec = { ...service.spec, clusterIP: addresses[0]!, clusterIPs: addresses };
    assigned.set(service, { ...service, spec });
  }
  return services.map((service) => assigned.get(service) ?? service);
}

function familiesOf({ spec }: Service, given: readonly string[]): ('IPv4' | 'IPv6')[] {
  const families = given.map((address) => (net.isIPv6(address) ? 'IPv6' : 'IPv4') as 'IPv4' | 'IPv6');
  for (const family of spec.ipFamilies ?? []) if (!families.includes(family)) families.push(family);
  if (families.length === 0) families.push('IPv4');
  const isDual = spec.ipFamilyPolicy === 'PreferDualStack' || spec.ipFamilyPolicy === 'RequireDualStack';
  if (isDual && families.length === 1) families.push(families[0] === 'IPv4' ? 'IPv6' : 'IPv4');
  return families;
}

/** The address that the hash of `key` falls on, or the next free one; the first and last of a network are left out. */
function pick(key: string, cidr: string, taken: Set<string>): string {
  const network = parseCidr(cidr);
  if (!network) throw new HeddleError('service-network', `use the service network "${cidr}": expected a network`);
  const hostBits = Math.min(128 - network.bits, 32);
  const size = 2 ** hostBits - 2;
  const start = createHash('sha256').update(key).digest().readUInt32BE(0) % Math.max(size, 1);
  for (let step = 0; step < size; step++) {
    const bytes = Buffer.from(network.bytes);
    const host = 1 + ((start + step) % size);
    bytes.writeUInt32BE((bytes.readUInt32BE(IP_BYTES - 4) | host) >>> 0, IP_BYTES - 4);
    const address = formatIp(bytes);
    if (taken.has(address)) continue;
    taken.add(address);
    return address;
  }
  const family = network.bits >= V4_MAPPED_BITS ? 'IPv4' : 'IPv6';
  throw new HeddleError('service-network', `find a free ${family} address in "${cidr}": expected a larger network`);
}
