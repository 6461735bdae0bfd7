// What a Service says about one of its ports: whether it has it, and which protocol it carries.

import { Annotation } from '#api/names.ts';
import { hasPort, parsePortSet } from '#kube/port-set.ts';
import type { Service } from '#kube/resources.ts';
import type { MeshConfig } from '../core/config.ts';
import type { OutboundProtocol, Refusal } from '../core/model.ts';
import type { Cluster } from './cluster.ts';
import { tag } from './tags.ts';

export function hasServicePort(service: Service, port: number): boolean {
  return service.spec.ports?.some((entry) => entry.port === port && (entry.protocol ?? 'TCP') === 'TCP') ?? false;
}

/**
 * The protocol of a Service's port. appProtocol beats the opaque-ports annotation; one that is not known means opaque
 * (Linkerd's rule); the annotation is the Service's, else its namespace's, else the default list.
 */
export function servicePortProtocol(
  cluster: Cluster,
  config: MeshConfig,
  service: Service,
  port: number,
  depend: (tag: string) => void,
): OutboundProtocol {
  const namespace = service.metadata.namespace ?? 'default';
  depend(tag.namespace(namespace));
  switch (service.spec.ports?.find((entry) => entry.port === port)?.appProtocol) {
    case undefined:
    case '':
      break;
    case 'http':
      return 'http1';
    case 'kubernetes.io/h2c':
      return 'http2';
    default:
      return 'opaque';
  }
  const own = service.metadata.annotations?.[Annotation.opaquePorts];
  const inherited = cluster.namespaces.get(`/${namespace}`)?.metadata.annotations?.[Annotation.opaquePorts];
  const list = own ?? inherited ?? config.defaults.opaquePorts;
  return hasPort(parsePortSet(list, () => []).ports, port) ? 'opaque' : 'detect';
}

/** The Service that has an address as its ClusterIP; null when none has, a refusal when several have. */
export function serviceByIp(cluster: Cluster, ip: string, depend: (tag: string) => void): Service | Refusal | null {
  depend(tag.ip(ip));
  const keys = [...cluster.servicesByIp.get(ip)];
  if (keys.length > 1) {
    const message = `address ${ip} belongs to several Services: ${keys.sort().join(', ')}`;
    return { kind: 'refused', code: 'failed-precondition', message };
  }
  const service = keys[0] === undefined ? undefined : cluster.services.get(keys[0]);
  if (!service) return null;
  depend(tag.service(service.metadata.namespace ?? 'default', service.metadata.name));
  return service;
}
