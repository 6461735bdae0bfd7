// What clients do with traffic to a target (OutboundPolicies): a Service by ClusterIP or name, an address outside the
// cluster, or nothing that policy knows, such as a pod's address, where clients go by the profile.

import type { Service } from '#kube/resources.ts';
import type { MeshConfig } from '../core/config.ts';
import { canonicalIp, isWithin } from '../core/ip.ts';
import type { OutboundSnapshot } from '../core/model.ts';
import type { Cluster } from './cluster.ts';
import { hasServicePort, serviceByIp, servicePortProtocol } from './service-ports.ts';
import { tag } from './tags.ts';
import { type Listener, type Subscription, Topics } from './topics.ts';
import { trafficSettings } from './traffic-settings.ts';

export interface OutboundTarget {
  destination: { kind: 'ip'; ip: string } | { kind: 'service'; namespace: string; name: string };
  port: number;
  /** Whose consumer routes apply. */
  sourceNamespace: string;
}

type Depend = (tag: string) => void;

export class OutboundIndex {
  readonly #cluster: Cluster;
  readonly #config: MeshConfig;
  readonly #topics: Topics<OutboundTarget, OutboundSnapshot>;

  constructor(cluster: Cluster, config: MeshConfig) {
    this.#cluster = cluster;
    this.#config = config;
    this.#topics = new Topics({
      compute: (target, depend) => this.#compute(target, depend),
      keyOf: ({ destination, port, sourceNamespace }) => JSON.stringify([destination, port, sourceNamespace]),
    });
    cluster.onChange((tags) => this.#topics.refresh(tags));
  }

  get size(): number {
    return this.#topics.size;
  }

  get(target: OutboundTarget): OutboundSnapshot {
    return this.#topics.get(target);
  }

  subscribe(target: OutboundTarget, listener: Listener<OutboundSnapshot>): Subscription<OutboundSnapshot> {
    return this.#topics.subscribe(target, listener);
  }

  #compute({ destination, port }: OutboundTarget, depend: Depend): OutboundSnapshot {
    const notFound = { kind: 'refused', code: 'not-found', message: 'No such service' } as const;
    if (destination.kind === 'service') {
      const { namespace, name } = destination;
      depend(tag.service(namespace, name));
      const service = this.#cluster.services.get(`${namespace}/${name}`);
      return service ? this.#ofService(service, port, depend) : notFound;
    }
    const ip = canonicalIp(destination.ip);
    const service = serviceByIp(this.#cluster, ip, depend);
    if (service && 'kind' in service && service.kind === 'refused') return service;
    if (service) return this.#ofService(service, port, depend);
    return isWithin(ip, this.#config.clusterNetworks) ? notFound : { kind: 'egress', ip, port };
  }

  #ofService(service: Service, port: number, depend: Depend): OutboundSnapshot {
    const { namespace = 'default', name, annotations = {} } = service.metadata;
    const reference = { namespace, name, port };
    if (!hasServicePort(service, port)) return { kind: 'undefined-port', service: reference };
    const protocol = servicePortProtocol(this.#cluster, this.#config, service, port, depend);
    return { kind: 'service', service: reference, protocol, traffic: trafficSettings(annotations) };
  }
}
