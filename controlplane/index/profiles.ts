// How to talk to a destination (Destination.GetProfile): a Service by ClusterIP or name, one pod by its address, its
// host port or its name behind a headless Service, or an address that nobody knows.

import net from 'node:net';
import { hasPort, parsePortSet } from '#kube/port-set.ts';
import type { Service } from '#kube/resources.ts';
import type { ServiceName } from '../core/authority.ts';
import type { MeshConfig } from '../core/config.ts';
import { canonicalIp } from '../core/ip.ts';
import type { Endpoint, ProfileSnapshot } from '../core/model.ts';
import type { Cluster } from './cluster.ts';
import { type PodEndpoints, WEIGHT } from './pod-endpoints.ts';
import type { PodRecord } from './pod-record.ts';
import { hasServicePort, serviceByIp, servicePortProtocol } from './service-ports.ts';
import { tag } from './tags.ts';
import { type Listener, type Subscription, Topics } from './topics.ts';

export interface ProfileTarget {
  host: { kind: 'ip'; ip: string } | { kind: 'service'; name: ServiceName };
  port: number;
  /** Whose ServiceProfiles come first. */
  clientNamespace: string | null;
  clientNode: string | null;
}

type Depend = (tag: string) => void;

export class ProfileIndex {
  readonly #cluster: Cluster;
  readonly #config: MeshConfig;
  readonly #pods: PodEndpoints;
  readonly #topics: Topics<ProfileTarget, ProfileSnapshot>;

  constructor(cluster: Cluster, config: MeshConfig, pods: PodEndpoints) {
    this.#cluster = cluster;
    this.#config = config;
    this.#pods = pods;
    this.#topics = new Topics({
      compute: (target, depend) => this.#compute(target, depend),
      keyOf: ({ host, port, clientNamespace, clientNode }) =>
        JSON.stringify([host.kind === 'ip' ? host.ip : host.name, port, clientNamespace, clientNode]),
    });
    cluster.onChange((tags) => this.#topics.refresh(tags));
  }

  get size(): number {
    return this.#topics.size;
  }

  subscribe(target: ProfileTarget, listener: Listener<ProfileSnapshot>): Subscription<ProfileSnapshot> {
    return this.#topics.subscribe(target, listener);
  }

  #compute(target: ProfileTarget, depend: Depend): ProfileSnapshot {
    const { host } = target;
    if (host.kind === 'ip') return this.#ofIp({ ...target, ip: canonicalIp(host.ip) }, depend);
    const { namespace, name, hostname } = host.name;
    depend(tag.service(namespace, name));
    const service = this.#cluster.services.get(`${namespace}/${name}`);
    if (!service) return { kind: 'refused', code: 'not-found', message: `Service ${name}.${namespace} not found` };
    if (service.spec.type === 'ExternalName') {
      const message = `Service ${name}.${namespace} is of type ExternalName: it has no profile`;
      return { kind: 'refused', code: 'invalid-argument', message };
    }
    if (hostname === null) return this.#ofService(service, target.port, depend);
    return this.#ofInstance(host.name, target, depend);
  }

  #ofIp(target: ProfileTarget & { ip: string }, depend: Depend): ProfileSnapshot {
    const { ip, port } = target;
    const service = serviceByIp(this.#cluster, ip, depend);
    if (service)
      return 'kind' in service && service.kind === 'refused' ? service : this.#ofService(service, port, depend);
    const keys = [...this.#cluster.podsByIp.get(ip)].sort();
    const pods = keys.flatMap((key) => this.#cluster.pods.get(key) ?? []).filter((pod) => !pod.isHostNetwork);
    if (pods.length > 1) {
      const message = `address ${ip} belongs to several pods: ${keys.join(', ')}`;
      return { kind: 'refused', code: 'failed-precondition', message };
    }
    if (pods[0]) return this.#ofPod(pods[0], ip, port, target, depend);
    return this.#ofHostPort(target, depend) ?? this.#ofStranger(target);
  }

  #ofService(service: Service, port: number, depend: Depend): ProfileSnapshot {
    if (!hasServicePort(service, port)) return { kind: 'empty' };
    const { namespace = 'default', name } = service.metadata;
    const protocol = servicePortProtocol(this.#cluster, this.#config, service, port, depend);
    return { kind: 'service', service: { namespace, name, port }, isOpaque: protocol === 'opaque' };
  }

  /** One pod behind a headless Service, by the hostname it has there. */
  #ofInstance({ namespace, name, hostname }: ServiceName, target: ProfileTarget, depend: Depend): ProfileSnapshot {
    depend(tag.endpoints(namespace, name));
    for (const key of this.#cluster.slicesByService.get(`${namespace}/${name}`)) {
      for (const entry of this.#cluster.slices.get(key)?.endpoints ?? []) {
        if (entry.hostname !== hostname || entry.targetRef?.kind !== 'Pod') continue;
        const pod = this.#cluster.pods.get(`${entry.targetRef.namespace ?? namespace}/${entry.targetRef.name}`);
        const address = entry.addresses[0];
        if (pod && address) return this.#ofPod(pod, canonicalIp(address), target.port, target, depend);
      }
    }
    return { kind: 'refused', code: 'not-found', message: `${hostname} of Service ${name}.${namespace} not found` };
  }

  /** A pod reached through a port of its host is dialled at its own address: mesh TLS ends in the pod. */
  #ofHostPort(target: ProfileTarget & { ip: string }, depend: Depend): ProfileSnapshot | null {
    const [key] = [...this.#cluster.podsByHostPort.get(`${target.ip}:${target.port}`)].sort();
    const pod = key === undefined ? undefined : this.#cluster.pods.get(key);
    const mapped = pod?.hostPorts.find(({ hostPort }) => hostPort === target.port);
    const ip = pod?.ips.find((candidate) => net.isIPv6(candidate) === net.isIPv6(target.ip));
    if (!pod || !mapped || ip === undefined || pod.isHostNetwork) return null;
    return this.#ofPod(pod, ip, mapped.containerPort, target, depend);
  }

  #ofPod(pod: PodRecord, ip: string, port: number, { clientNode }: ProfileTarget, depend: Depend): ProfileSnapshot {
    depend(tag.pod(pod.namespace, pod.name));
    depend(tag.zones);
    const zone = this.#zoneOf(pod.nodeName);
    const place = { ip, port, zone, nodeName: pod.nodeName, forZones: null };
    return {
      kind: 'endpoint',
      endpoint: this.#pods.endpointOf(pod, place, depend),
      namespace: pod.namespace,
      clientZone: this.#zoneOf(clientNode),
      isOpaque: this.#pods.isOpaque(pod, port, depend),
    };
  }

  #ofStranger({ ip, port }: { ip: string; port: number }): ProfileSnapshot {
    const endpoint: Endpoint = {
      ip,
      port,
      weight: WEIGHT,
      labels: {},
      identity: null,
      isMeshed: false,
      protocol: 'unknown',
      transportPort: null,
      authorityOverride: null,
      zone: null,
      nodeName: null,
      forZones: null,
      targetKey: null,
    };
    const isOpaque = hasPort(parsePortSet(this.#config.defaults.opaquePorts).ports, port);
    return { kind: 'endpoint', endpoint, namespace: null, clientZone: null, isOpaque };
  }

  #zoneOf(nodeName: string | null): string | null {
    return nodeName === null ? null : (this.#cluster.zones.get(`/${nodeName}`) ?? null);
  }
}
