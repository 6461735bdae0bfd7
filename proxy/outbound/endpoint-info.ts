// What discovery says about one endpoint, in the worker's own words: where to dial, whom to expect there, how to talk.

import type { Http2ClientParams_KeepAlive, WeightedAddr } from '#api/gen/destination.ts';
import type { IPAddress } from '#api/gen/net.ts';
import { formatIpv4, formatIpv6 } from '#lib/ip-address.ts';
import type { Labels } from '../observe/recorder.ts';
import { translateDuration } from './translate-values.ts';

export interface PeerIdentity {
  /** Sent as SNI. */
  serverName: string;
  /** One of the peer's SANs must equal this: a DNS name or a `spiffe://` URI. */
  name: string;
}

export interface KeepAliveInfo {
  intervalMs: number;
  timeoutMs: number;
  whileIdle: boolean;
}

export interface EndpointInfo {
  /** IPv4 or IPv6 literal without brackets. */
  address: string;
  port: number;
  /** Null: plaintext. */
  identity: PeerIdentity | null;
  /** Why there is no identity: the label `no_tls_reason`. */
  noTlsReason: string;
  /** The peer's proxy takes HTTP/2 (`h2`) or asks not to be read as HTTP (`opaque`). */
  hint: 'h2' | 'opaque' | null;
  /** Dial this port instead, and say in a transport header which one was meant. */
  transportPort: number | null;
  /** Replaces `:authority` on gateways of other clusters. */
  authorityOverride: string | null;
  /** Pings on HTTP/2 connections; null: none. */
  keepAlive: KeepAliveInfo | null;
  /** As discovery sent them, without the prefix `dst_`. */
  labels: Labels;
}

/** An endpoint nobody knows anything about: bytes go where the application sent them. */
export function plainEndpoint(address: string, port: number, noTlsReason: string): EndpointInfo {
  return {
    address,
    port,
    identity: null,
    noTlsReason,
    hint: null,
    transportPort: null,
    authorityOverride: null,
    keepAlive: null,
    labels: {},
  };
}

/**
 * Reads a WeightedAddr; null where it has no address, or an identity that cannot be checked: such a peer is meshed, and
 * its bytes must not leave in clear. `isLocal` tells the pod's own addresses: to itself a pod talks
 * without TLS, upgrade or transport header. `setLabels` apply to every endpoint of a set.
 */
export function readEndpoint(
  message: WeightedAddr,
  isLocal: (address: string) => boolean,
  setLabels: Labels = {},
): EndpointInfo | null {
  const address = message.addr?.ip ? readIp(message.addr.ip) : null;
  if (address === null || !message.addr || message.addr.port < 1 || message.addr.port > 65_535) return null;
  const labels = { ...setLabels, ...message.metricLabels };
  if (isLocal(address)) return { ...plainEndpoint(address, message.addr.port, 'loopback'), labels };
  const identity = readIdentity(message.tlsIdentity);
  if (message.tlsIdentity && !identity) return null;
  return {
    address,
    port: message.addr.port,
    identity,
    noTlsReason: 'not_provided_by_service_discovery',
    hint: message.protocolHint?.protocol?.$case ?? null,
    transportPort: message.protocolHint?.opaqueTransport?.inboundPort || null,
    authorityOverride: message.authorityOverride?.authorityOverride || null,
    keepAlive: readKeepAlive(message.http2?.keepAlive),
    labels,
  };
}

/** The text of an address; null where the message holds none. */
export function readIp(message: IPAddress): string | null {
  switch (message.ip?.$case) {
    case 'ipv4': {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32BE(message.ip.value);
      return formatIpv4(bytes);
    }
    case 'ipv6': {
      const bytes = Buffer.alloc(16);
      bytes.writeBigUInt64BE(BigInt.asUintN(64, message.ip.value.first));
      bytes.writeBigUInt64BE(BigInt.asUintN(64, message.ip.value.last), 8);
      return formatIpv6(bytes);
    }
    default:
      return null;
  }
}

/** True when nothing that traffic depends upon differs. */
export function isSameEndpoint(a: EndpointInfo, b: EndpointInfo): boolean {
  return (
    a.address === b.address &&
    a.port === b.port &&
    a.identity?.name === b.identity?.name &&
    a.identity?.serverName === b.identity?.serverName &&
    a.hint === b.hint &&
    a.transportPort === b.transportPort &&
    a.authorityOverride === b.authorityOverride &&
    a.keepAlive?.intervalMs === b.keepAlive?.intervalMs &&
    a.keepAlive?.timeoutMs === b.keepAlive?.timeoutMs &&
    a.keepAlive?.whileIdle === b.keepAlive?.whileIdle &&
    isSameLabels(a.labels, b.labels)
  );
}

/** Null for what cannot be checked. URI identities without a server name: there would be nothing to send as SNI. */
function readIdentity(message: WeightedAddr['tlsIdentity']): PeerIdentity | null {
  const strategy = message?.strategy;
  const serverName = message?.serverName?.name ?? '';
  switch (strategy?.$case) {
    case 'dnsLikeIdentity': {
      const { name } = strategy.value;
      return name === '' ? null : { name, serverName: serverName || name };
    }
    case 'uriLikeIdentity': {
      const { uri } = strategy.value;
      return uri === '' || serverName === '' ? null : { name: uri, serverName };
    }
    default:
      return null;
  }
}

/** Only with both durations. */
function readKeepAlive(message: Http2ClientParams_KeepAlive | undefined): KeepAliveInfo | null {
  const intervalMs = translateDuration(message?.interval);
  const timeoutMs = translateDuration(message?.timeout);
  return intervalMs && timeoutMs ? { intervalMs, timeoutMs, whileIdle: message?.whileIdle ?? false } : null;
}

function isSameLabels(a: Labels, b: Labels): boolean {
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => a[name] === b[name]);
}
