// Which of a Service's endpoints one client uses: the traffic policy and the topology hints of Kubernetes, and one
// address family for each target. Pure.

import type { Endpoint } from '../core/model.ts';

export interface FilterOptions {
  /** internalTrafficPolicy: Local. */
  isLocalOnly: boolean;
  clientNode: string | null;
  clientZone: string | null;
  isIpv6Enabled: boolean;
}

/**
 * In order: the client's node where the Service wants that; else the client's zone where *every* endpoint has hints,
 * unless no endpoint is meant for it; then one address of each target, the IPv6 one where that is enabled.
 */
export function filterEndpoints(endpoints: readonly Endpoint[], options: FilterOptions): readonly Endpoint[] {
  return byFamily(byTopology(endpoints, options), options.isIpv6Enabled);
}

function byTopology(endpoints: readonly Endpoint[], options: FilterOptions): readonly Endpoint[] {
  const { isLocalOnly, clientNode, clientZone } = options;
  if (isLocalOnly) return endpoints.filter(({ nodeName }) => nodeName !== null && nodeName === clientNode);
  if (clientZone === null || !endpoints.every(({ forZones }) => forZones !== null)) return endpoints;
  const meant = endpoints.filter(({ forZones }) => forZones?.includes(clientZone));
  return meant.length > 0 ? meant : endpoints;
}

function byFamily(endpoints: readonly Endpoint[], isIpv6Enabled: boolean): readonly Endpoint[] {
  const isIpv6 = ({ ip }: Endpoint) => ip.includes(':');
  if (!isIpv6Enabled) return endpoints.filter((endpoint) => !isIpv6(endpoint));
  const withIpv6 = new Set(endpoints.filter(isIpv6).map(({ targetKey }) => targetKey));
  if (withIpv6.size === 0) return endpoints;
  return endpoints.filter(
    (endpoint) => isIpv6(endpoint) || endpoint.targetKey === null || !withIpv6.has(endpoint.targetKey),
  );
}
