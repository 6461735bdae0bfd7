// The client's side of discovery: which question each watch asks and how its answers fold into a value. What the
// values mean is for the layers that use them; this file knows the messages only.

import { DestinationProfile, GetDestination, Update, type WeightedAddr } from '#api/gen/destination.ts';
import type { IPAddress } from '#api/gen/net.ts';
import { OutboundPolicy, TrafficSpec } from '#api/gen/outbound.ts';
import { WatchKind } from '#api/worker-link.ts';
import type { Clock } from '#lib/clock.ts';
import { isIpv4, parseIp } from '#lib/ip-address.ts';
import type { Log } from '#lib/log.ts';
import { Watch, type WatchTransport } from './watch.ts';

export interface DiscoveryOptions {
  transport: WatchTransport;
  clock: Clock;
  log: Log;
  random?: () => number;
  /** GetDestination.context_token. */
  destinationContext: string;
  /** TrafficSpec.source_workload. */
  policyWorkload: string;
  /** A watch without subscribers for this long is dropped. */
  idleMs: number;
}

/** The endpoints of a service by address; the same address replaces. A new object at every change. */
export interface EndpointSet {
  readonly endpoints: ReadonlyMap<string, WeightedAddr>;
  /** `service`, `namespace`, … of all of them. */
  readonly labels: Readonly<Record<string, string>>;
  /** There were more than {@link ENDPOINTS_MAX}. */
  readonly isTruncated: boolean;
}

/** More than this in one set is cut: a set must not be able to fill a worker's memory. */
export const ENDPOINTS_MAX = 10_000;

/** Watches the endpoints of `path` (`host:port`). */
export function watchEndpoints(path: string, options: DiscoveryOptions, onIdle?: () => void): Watch<EndpointSet> {
  return new Watch<EndpointSet>({
    ...watchOptions(options, onIdle),
    kind: WatchKind.destination,
    request: getDestination(path, options),
    reduce: (payload, previous, isFirst) => {
      const set = foldUpdate(payload, previous, isFirst);
      if (set.isTruncated && !previous?.isTruncated) {
        options.log.warn('service has more endpoints than are used', { path, endpointsMax: ENDPOINTS_MAX });
      }
      return set;
    },
  });
}

/** Watches the profile of `path`: a name or an address, with the port. */
export function watchProfile(path: string, options: DiscoveryOptions, onIdle?: () => void): Watch<DestinationProfile> {
  return new Watch<DestinationProfile>({
    ...watchOptions(options, onIdle),
    kind: WatchKind.profile,
    request: getDestination(path, options),
    reduce: (payload) => DestinationProfile.decode(payload),
  });
}

/** Watches what to do with connections to an address. Throws where `address` is no IP literal. */
export function watchOutboundPolicy(
  address: string,
  port: number,
  options: DiscoveryOptions,
  onIdle?: () => void,
): Watch<OutboundPolicy> {
  const target = { $case: 'addr' as const, value: { ip: encodeIp(address), port } };
  return new Watch<OutboundPolicy>({
    ...watchOptions(options, onIdle),
    kind: WatchKind.outboundPolicy,
    request: TrafficSpec.encode({ sourceWorkload: options.policyWorkload, target }).finish(),
    reduce: (payload) => OutboundPolicy.decode(payload),
  });
}

function watchOptions(options: DiscoveryOptions, onIdle: (() => void) | undefined) {
  const { transport, clock, log, random, idleMs } = options;
  return { transport, clock, log, idleMs, ...(random && { random }), ...(onIdle && { onIdle }) };
}

function getDestination(path: string, options: DiscoveryOptions): Uint8Array {
  return GetDestination.encode({ scheme: '', path, contextToken: options.destinationContext }).finish();
}

/**
 * Applies one update. The first message of a new stream starts the set anew: what is not in it is gone. Both values of
 * `no_endpoints` clear the set.
 */
export function foldUpdate(payload: Uint8Array, previous: EndpointSet | undefined, isFirst: boolean): EndpointSet {
  const { update } = Update.decode(payload);
  const endpoints = new Map(isFirst ? [] : previous?.endpoints);
  let labels = isFirst ? {} : (previous?.labels ?? {});
  let isTruncated = !isFirst && (previous?.isTruncated ?? false);
  switch (update?.$case) {
    case 'add':
      labels = update.value.metricLabels;
      for (const endpoint of update.value.addrs) {
        const key = addressKey(endpoint.addr);
        if (key === null) continue;
        if (endpoints.has(key) || endpoints.size < ENDPOINTS_MAX) endpoints.set(key, endpoint);
        else isTruncated = true;
      }
      break;
    case 'remove':
      for (const address of update.value.addrs) {
        const key = addressKey(address);
        if (key !== null) endpoints.delete(key);
      }
      break;
    case 'noEndpoints':
      endpoints.clear();
      break;
  }
  return { endpoints, labels, isTruncated };
}

/** One text per address, for maps only. */
function addressKey(address: WeightedAddr['addr']): string | null {
  switch (address?.ip?.ip?.$case) {
    case 'ipv4':
      return `${address.ip.ip.value}:${address.port}`;
    case 'ipv6':
      return `${address.ip.ip.value.first}/${address.ip.ip.value.last}:${address.port}`;
    default:
      return null;
  }
}

/** The message of an IP literal. */
export function encodeIp(text: string): IPAddress {
  const bytes = parseIp(text);
  if (!bytes) throw new TypeError(`encode address "${text}": expected an IPv4 or IPv6 literal`);
  if (isIpv4(bytes)) return { ip: { $case: 'ipv4', value: bytes.readUInt32BE(12) } };
  return { ip: { $case: 'ipv6', value: { first: bytes.readBigUInt64BE(0), last: bytes.readBigUInt64BE(8) } } };
}
