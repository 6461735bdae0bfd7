// Values that several messages of the proxy API share, from the control plane's own words.

import type { Duration } from '#api/gen/google/protobuf/duration.ts';
import type { Metadata } from '#api/gen/meta.ts';
import type { IPAddress, IPNetwork, TcpAddress } from '#api/gen/net.ts';
import { assert } from '#lib/errors.ts';
import { GrpcError, Status } from '#lib/grpc/status.ts';
import { formatIp, parseCidr, parseIp, V4_MAPPED_BITS } from '#lib/ip-address.ts';
import { canonicalIp } from './core/ip.ts';
import type { Reference, Refusal, ServicePortRef } from './core/model.ts';

/** An address in text; the indexes hold no others. */
export function toIpAddress(ip: string): IPAddress {
  const bytes = parseIp(ip);
  assert(bytes, `"${ip}" is an IP address`);
  return bytesToIp(bytes, !ip.includes(':'));
}

function bytesToIp(bytes: Buffer, isIpv4: boolean): IPAddress {
  if (isIpv4) return { ip: { $case: 'ipv4', value: bytes.readUInt32BE(12) } };
  return { ip: { $case: 'ipv6', value: { first: bytes.readBigUInt64BE(0), last: bytes.readBigUInt64BE(8) } } };
}

export function toTcpAddress(ip: string, port: number): TcpAddress {
  return { ip: toIpAddress(ip), port };
}

/** A network in CIDR notation. */
export function toIpNetwork(cidr: string): IPNetwork {
  const network = parseCidr(cidr);
  assert(network, `"${cidr}" is a network`);
  const isIpv4 = !cidr.includes(':');
  return { ip: bytesToIp(network.bytes, isIpv4), prefixLen: network.bits - (isIpv4 ? V4_MAPPED_BITS : 0) };
}

/** The text of an address, canonical; null when the message holds none. */
export function fromIpAddress(message: IPAddress | undefined): string | null {
  const ip = message?.ip;
  const bytes = Buffer.alloc(16);
  if (ip?.$case === 'ipv4') {
    bytes.writeUInt16BE(0xffff, 10);
    bytes.writeUInt32BE(ip.value, 12);
    return formatIp(bytes);
  }
  if (ip?.$case !== 'ipv6') return null;
  bytes.writeBigUInt64BE(ip.value.first, 0);
  bytes.writeBigUInt64BE(ip.value.last, 8);
  return canonicalIp(formatIp(bytes));
}

export function toDuration(ms: number): Duration {
  const seconds = Math.floor(ms / 1000);
  return { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1e6) };
}

/** Undefined for no duration. */
export function toDurationOrNone(ms: number | null): Duration | undefined {
  return ms === null ? undefined : toDuration(ms);
}

export function toMetadata(reference: Reference): Metadata {
  if (reference.kind === 'default') return { kind: { $case: 'default', value: reference.name } };
  const { group, resource, namespace, name, port = 0, section = '' } = reference;
  return { kind: { $case: 'resource', value: { group, kind: resource, namespace, name, port, section } } };
}

/** A port of a Service, as metadata names it. */
export function serviceReference({ namespace, name, port }: ServicePortRef): Reference {
  return { kind: 'resource', group: 'core', resource: 'Service', namespace, name, port };
}

const REFUSAL_STATUS = {
  'not-found': Status.notFound,
  'invalid-argument': Status.invalidArgument,
  'failed-precondition': Status.failedPrecondition,
} as const;

export function toGrpcError({ code, message }: Refusal): GrpcError {
  return new GrpcError(REFUSAL_STATUS[code], message);
}
