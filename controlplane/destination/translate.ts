// Endpoints and profiles as messages of the destination API. Pure.

import { isDeepStrictEqual } from 'node:util';
import type { DestinationProfile, Http2ClientParams, Update, WeightedAddr } from '#api/gen/destination.ts';
import { serviceFqdn } from '../core/authority.ts';
import type { Endpoint, EndpointSnapshot, ProfileSnapshot } from '../core/model.ts';
import { serviceReference, toDuration, toMetadata, toTcpAddress } from '../wire.ts';

/** Keeps an update of a large service far below the 4 MiB that gRPC clients take by default. */
const ADDRESSES_PER_UPDATE = 1000;

/** Meshed endpoints are pinged, so that a client finds out about a dead peer. */
const HTTP2: Http2ClientParams = {
  flowControl: undefined,
  keepAlive: { interval: toDuration(10_000), timeout: toDuration(3_000), whileIdle: true },
  internals: undefined,
};

/** The updates that take a client from one snapshot to the next; `before` is null for a client that knows nothing. */
export function updatesBetween(before: EndpointSnapshot | null, after: EndpointSnapshot): Update[] {
  const memo = memoOf(before ?? NOTHING);
  const known = memo.get(after);
  if (known) return known;
  const updates = computeUpdates(before, after);
  memo.set(after, updates);
  return updates;
}

/** Many streams of one node, or of many nodes in a zone, take the same step: it is computed once. */
const memos = new WeakMap<object, WeakMap<EndpointSnapshot, Update[]>>();
/** Stands for no snapshot. */
const NOTHING = {};

function memoOf(before: object): WeakMap<EndpointSnapshot, Update[]> {
  const memo = memos.get(before) ?? new WeakMap<EndpointSnapshot, Update[]>();
  memos.set(before, memo);
  return memo;
}

function computeUpdates(before: EndpointSnapshot | null, after: EndpointSnapshot): Update[] {
  const old = new Map(before?.endpoints.map((endpoint) => [addressKey(endpoint), endpoint]));
  const isZoneNew = before?.clientZone !== after.clientZone;
  const added: Endpoint[] = [];
  for (const endpoint of after.endpoints) {
    const key = addressKey(endpoint);
    const known = old.get(key);
    // Mostly the same object, which is quick to tell.
    if (isZoneNew || !isDeepStrictEqual(known, endpoint)) added.push(endpoint);
    old.delete(key);
  }
  const updates: Update[] = [];
  if (old.size > 0) {
    const addrs = [...old.values()].map(({ ip, port }) => toTcpAddress(ip, port));
    updates.push({ update: { $case: 'remove', value: { addrs } } });
  }
  const { namespace, name } = after.service;
  for (let from = 0; from < added.length; from += ADDRESSES_PER_UPDATE) {
    const slice = added.slice(from, from + ADDRESSES_PER_UPDATE);
    const addrs = slice.map((endpoint) => toWeightedAddr(endpoint, after.clientZone));
    updates.push({ update: { $case: 'add', value: { addrs, metricLabels: { namespace, service: name } } } });
  }
  return updates;
}

function addressKey({ ip, port }: Endpoint): string {
  return `${ip} ${port}`;
}

/** `clientZone` decides about `zone_locality`; `namespace` is a label of single endpoints only. */
export function toWeightedAddr(endpoint: Endpoint, clientZone: string | null, namespace?: string): WeightedAddr {
  const { ip, port, weight, labels, identity, isMeshed, protocol, transportPort, authorityOverride } = endpoint;
  const hasTarget = endpoint.targetKey !== null || endpoint.identity !== null;
  return {
    addr: toTcpAddress(ip, port),
    weight,
    metricLabels: {
      ...labels,
      ...(hasTarget ? { zone_locality: localityOf(endpoint.zone, clientZone) } : {}),
      ...(namespace === undefined ? {} : { namespace }),
    },
    tlsIdentity:
      identity === null
        ? undefined
        : { strategy: { $case: 'dnsLikeIdentity', value: { name: identity } }, serverName: { name: identity } },
    protocolHint:
      protocol === 'unknown' && transportPort === null
        ? undefined
        : {
            protocol: protocol === 'unknown' ? undefined : { $case: protocol, value: {} },
            opaqueTransport: transportPort === null ? undefined : { inboundPort: transportPort },
          },
    authorityOverride: authorityOverride === null ? undefined : { authorityOverride },
    http2: isMeshed ? HTTP2 : undefined,
    resourceRef: undefined,
  };
}

function localityOf(zone: string | null, clientZone: string | null): string {
  if (!zone || !clientZone) return 'unknown';
  return zone === clientZone ? 'local' : 'remote';
}

const NO_PROFILE: DestinationProfile = {
  routes: [],
  retryBudget: undefined,
  dstOverrides: [],
  opaqueProtocol: false,
  fullyQualifiedName: '',
  endpoint: undefined,
  parentRef: undefined,
  profileRef: undefined,
};

/** Linkerd's default budget. */
const RETRY_BUDGET = { retryRatio: 0.2, minRetriesPerSecond: 10, ttl: toDuration(10_000) };

export function toProfile(
  snapshot: Exclude<ProfileSnapshot, { kind: 'refused' }>,
  clusterDomain: string,
): DestinationProfile {
  switch (snapshot.kind) {
    case 'empty':
      return NO_PROFILE;
    case 'endpoint': {
      const { endpoint, clientZone, namespace, isOpaque } = snapshot;
      return {
        ...NO_PROFILE,
        retryBudget: RETRY_BUDGET,
        opaqueProtocol: isOpaque,
        endpoint: toWeightedAddr(endpoint, clientZone, namespace ?? undefined),
      };
    }
    case 'service': {
      const { service, isOpaque } = snapshot;
      const fullyQualifiedName = serviceFqdn(service, clusterDomain);
      return {
        ...NO_PROFILE,
        retryBudget: RETRY_BUDGET,
        opaqueProtocol: isOpaque,
        fullyQualifiedName,
        parentRef: toMetadata(serviceReference(service)),
        profileRef: toMetadata({
          kind: 'resource',
          group: 'linkerd.io',
          resource: 'ServiceProfile',
          namespace: service.namespace,
          name: fullyQualifiedName,
        }),
      };
    }
  }
}
