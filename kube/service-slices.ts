// The EndpointSlices that Kubernetes' controller would make of a Service's selector and the pods: one for each address
// family and each resolution of the target ports (a named port may be another number in another pod).

import net from 'node:net';
import { isFinished, isReady, namedPorts, podIps } from './pod.ts';
import type { EndpointSlice, Node, Pod, Service, ServicePort } from './resources.ts';
import { matchesLabels } from './selector.ts';
import { nameHash, uidOf } from './uid.ts';

/** Label of a slice: the name of its Service. */
export const SERVICE_NAME_LABEL = 'kubernetes.io/service-name';
export const ZONE_LABEL = 'topology.kubernetes.io/zone';

type SlicePorts = NonNullable<EndpointSlice['ports']>;
type SliceEndpoint = NonNullable<EndpointSlice['endpoints']>[number];

/** Empty for a Service without a selector. `pods` are those of its namespace; order does not matter. */
export function slicesOfService(
  service: Service,
  pods: readonly Pod[],
  nodes: ReadonlyMap<string, Node>,
): EndpointSlice[] {
  const { selector } = service.spec;
  if (!selector || Object.keys(selector).length === 0 || service.spec.type === 'ExternalName') return [];
  const families = familiesOf(service);
  const groups = new Map<string, { addressType: 'IPv4' | 'IPv6'; ports: SlicePorts; endpoints: SliceEndpoint[] }>();
  const selected = pods
    .filter((pod) => matchesLabels(selector, pod.metadata.labels) && !isFinished(pod))
    .sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
  for (const pod of selected) {
    const ports = resolvePorts(service.spec.ports ?? [], pod);
    for (const address of podIps(pod)) {
      const addressType = net.isIPv6(address) ? 'IPv6' : 'IPv4';
      if (!families.includes(addressType)) continue;
      const key = JSON.stringify([addressType, ports]);
      const group = groups.get(key) ?? { addressType, ports, endpoints: [] };
      groups.set(key, group);
      group.endpoints.push(endpointOf(service, pod, address, nodes));
    }
  }
  return [...groups].map(([key, group]) => {
    const namespace = service.metadata.namespace ?? 'default';
    const name = `${service.metadata.name}-${nameHash(key, 5)}`;
    const labels = { [SERVICE_NAME_LABEL]: service.metadata.name };
    const uid = uidOf('EndpointSlice', { namespace, name });
    return {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name, namespace, uid, labels },
      ...group,
    };
  });
}

/** Those of its ClusterIPs; a headless Service that names none has both. */
function familiesOf({ spec }: Service): readonly string[] {
  const clusterIps = (spec.clusterIPs ?? [spec.clusterIP ?? '']).filter((ip) => net.isIP(ip) !== 0);
  if (clusterIps.length > 0) return clusterIps.map((ip) => (net.isIPv6(ip) ? 'IPv6' : 'IPv4'));
  return spec.ipFamilies ?? ['IPv4', 'IPv6'];
}

function resolvePorts(ports: readonly ServicePort[], pod: Pod): SlicePorts {
  return ports.flatMap(({ name, port, targetPort = port, protocol = 'TCP', appProtocol }) => {
    const number = typeof targetPort === 'number' ? targetPort : namedPorts(pod.spec, targetPort)[0];
    if (number === undefined) return [];
    return [{ name: name ?? '', port: number, protocol, ...(appProtocol === undefined ? {} : { appProtocol }) }];
  });
}

function endpointOf(service: Service, pod: Pod, address: string, nodes: ReadonlyMap<string, Node>): SliceEndpoint {
  const { nodeName, hostname, subdomain } = pod.spec;
  const { namespace = 'default', name, uid } = pod.metadata;
  const zone = nodeName === undefined ? undefined : nodes.get(nodeName)?.metadata.labels?.[ZONE_LABEL];
  const isDeleted = pod.metadata.deletionTimestamp !== undefined;
  const isServing = isReady(pod) || (service.spec.publishNotReadyAddresses ?? false);
  return {
    addresses: [address],
    conditions: { ready: isServing && !isDeleted, serving: isServing, terminating: isDeleted },
    ...(hostname !== undefined && subdomain === service.metadata.name ? { hostname } : {}),
    ...(nodeName === undefined ? {} : { nodeName }),
    ...(zone === undefined ? {} : { zone }),
    targetRef: { kind: 'Pod', namespace, name, ...(uid === undefined ? {} : { uid }) },
  };
}
