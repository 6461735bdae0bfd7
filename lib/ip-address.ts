// IP addresses and networks as bytes. An address is always 16 bytes, IPv4 in its v4-mapped form (RFC 4291 section
// 2.5.5.2), so that one comparison, one map key and one prefix match serve both families.

import net from 'node:net';

export const IP_BYTES = 16;
/** Bits of the v4-mapped prefix: an IPv4 prefix length plus this is the length in the 16-byte form. */
export const V4_MAPPED_BITS = 96;

/** The 16 bytes of a textual address, or null when it is none. A zone (`%eth0`) is not an address. */
export function parseIp(text: string): Buffer | null {
  const family = net.isIP(text);
  if (family === 0 || text.includes('%')) return null;
  const bytes = Buffer.alloc(IP_BYTES);
  if (family === 4) {
    bytes.writeUInt16BE(0xffff, 10);
    writeIpv4(bytes, 12, text);
    return bytes;
  }
  let rest = text;
  let groupsEnd = IP_BYTES;
  if (rest.includes('.')) {
    // The last 32 bits may be written in dotted form.
    const colon = rest.lastIndexOf(':');
    writeIpv4(bytes, 12, rest.slice(colon + 1));
    rest = rest.slice(0, rest[colon - 1] === ':' ? colon + 1 : colon);
    groupsEnd = 12;
  }
  const [head = '', tail] = rest.split('::');
  writeGroups(bytes, 0, head);
  if (tail) writeGroups(bytes, groupsEnd - 2 * tail.split(':').length, tail);
  return bytes;
}

function writeIpv4(bytes: Buffer, offset: number, text: string): void {
  for (const [index, part] of text.split('.').entries()) bytes[offset + index] = Number(part);
}

function writeGroups(bytes: Buffer, offset: number, text: string): void {
  if (text === '') return;
  for (const [index, group] of text.split(':').entries()) {
    bytes.writeUInt16BE(Number.parseInt(group, 16), offset + 2 * index);
  }
}

/** True for the v4-mapped form. */
export function isIpv4(bytes: Uint8Array, offset = 0): boolean {
  for (let index = 0; index < 10; index++) if (bytes[offset + index] !== 0) return false;
  return bytes[offset + 10] === 0xff && bytes[offset + 11] === 0xff;
}

/** The usual text of 16 bytes: dotted for v4-mapped, else RFC 5952. */
export function formatIp(bytes: Uint8Array, offset = 0): string {
  if (isIpv4(bytes, offset)) return formatIpv4(bytes, offset + 12);
  return formatIpv6(bytes, offset);
}

export function formatIpv4(bytes: Uint8Array, offset = 0): string {
  return `${bytes[offset]}.${bytes[offset + 1]}.${bytes[offset + 2]}.${bytes[offset + 3]}`;
}

/** RFC 5952: lower case, no leading zeros, the longest run of two or more zero groups becomes `::`. */
export function formatIpv6(bytes: Uint8Array, offset = 0): string {
  const groups: number[] = [];
  for (let index = 0; index < IP_BYTES; index += 2) {
    groups.push(((bytes[offset + index] ?? 0) << 8) | (bytes[offset + index + 1] ?? 0));
  }
  let best = { start: 0, length: 1 };
  for (let start = 0; start < groups.length; start++) {
    let length = 0;
    while (groups[start + length] === 0) length++;
    if (length > best.length) best = { start, length };
  }
  const hex = (from: number, to: number) =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(':');
  if (best.length < 2) return hex(0, 8);
  return `${hex(0, best.start)}::${hex(best.start + best.length, 8)}`;
}

/** A network: the address with the host bits cleared, and the prefix length in the 16-byte form. */
export interface IpNetwork {
  bytes: Buffer;
  bits: number;
}

/** `10.0.0.0/8`, `fd00::/8`, or a bare address meaning itself; null when it is neither. Host bits are cleared. */
export function parseCidr(text: string): IpNetwork | null {
  const slash = text.indexOf('/');
  const address = slash < 0 ? text : text.slice(0, slash);
  const bytes = parseIp(address);
  if (!bytes) return null;
  const base = net.isIPv4(address) ? V4_MAPPED_BITS : 0;
  const length = slash < 0 ? String(128 - base) : text.slice(slash + 1);
  if (!/^\d{1,3}$/.test(length) || Number(length) > 128 - base) return null;
  const bits = base + Number(length);
  for (let index = 0; index < IP_BYTES; index++) {
    const kept = Math.max(0, Math.min(8, bits - 8 * index));
    bytes[index] = (bytes[index] ?? 0) & (0xff << (8 - kept)) & 0xff;
  }
  return { bytes, bits };
}

/** True when the network holds the address; both in the 16-byte form. */
export function contains(network: IpNetwork, address: Uint8Array): boolean {
  for (let index = 0; 8 * index < network.bits; index++) {
    const kept = Math.min(8, network.bits - 8 * index);
    const mask = (0xff << (8 - kept)) & 0xff;
    if (((address[index] ?? 0) & mask) !== network.bytes[index]) return false;
  }
  return true;
}
