// IP addresses as text that can be compared, and the question whether networks hold one.

import { contains, formatIp, parseCidr, parseIp } from '#lib/ip-address.ts';

/** The usual spelling of an address (RFC 5952 for IPv6); text that is none comes back as it is. */
export function canonicalIp(text: string): string {
  const bytes = parseIp(text);
  return bytes ? formatIp(bytes) : text;
}

/** True when one of the networks holds the address. */
export function isWithin(ip: string, networks: readonly string[]): boolean {
  const bytes = parseIp(ip);
  if (!bytes) return false;
  return networks.some((cidr) => {
    const network = parseCidr(cidr);
    return network !== null && contains(network, bytes);
  });
}
