// The endpoints of a Service's port (Destination.Get): from the Service, its EndpointSlices and the pods they point to.
// Clients that see the same selection of endpoints share one snapshot.

import type { EndpointSlice, Service } from '#kube/resources.ts';
import type { MeshConfig } from '../core/config.ts';
import { canonicalIp } from '../core/ip.ts';
import type { Endpoint, EndpointSnapshot, Refusal } from '../core/model.ts';
import type { Cluster } from './cluster.ts';
import { filterEndpoints } from './endpoint-filter.ts';
import { type PodEndpoints, WEIGHT } from './pod-endpoints.ts';
import { tag } from './tags.ts';
import { type Subscription, Topics } from './topics.ts';

export interface EndpointTarget {
  namespace: string;
  name: string;
  port: number;
  /** Of one instance; null for all. */
  hostname: string | null;
}

export interface EndpointClient {
  nodeName: string | null;
}

/** Everything behind a Service's port, before a client is known. */
interface EndpointBase {
  service: { namespace: string; name: string };
  endpoints: readonly Endpoint[];
  isLocalOnly: boolean;
}

/** Annotations of mirrored Services: the gateway that stands for a Service of another cluster. */
const MIRROR = {
  remoteName: 'mirror.linkerd.io/remote-svc-fq-name',
  gatewayIdentity: 'mirror.linkerd.io/remote-gateway-identity',
} as const;

type Depend = (tag: string) => void;

export class EndpointIndex {
  readonly #cluster: Cluster;
  readonly #config: MeshConfig;
  readonly #pods: PodEndpoints;
  readonly #bases: Topics<EndpointTarget, EndpointBase>;
  /** Snapshots of each base, by what makes a difference between clients. */
  readonly #snapshots = new WeakMap<EndpointBase, Map<string, EndpointSnapshot>>();
  readonly #clients = new Set<() => void>();

  constructor(cluster: Cluster, config: MeshConfig, pods: PodEndpoints) {
    this.#cluster = cluster;
    this.#config = config;
    this.#pods = pods;
    this.#bases = new Topics({
      compute: (target, depend) => this.#base(target, depend),
      keyOf: ({ namespace, name, port, hostname }) => `${namespace}/${name}:${port}/${hostname ?? ''}`,
    });
    cluster.onChange((tags) => {
      this.#bases.refresh(tags);
      if (tags.has(tag.zones)) for (const look of [...this.#clients]) look();
    });
  }

  get size(): number {
    return this.#bases.size;
  }

  /** Why a Service has no endpoints to watch; null when it has. */
  refusalOf({ namespace, name }: { namespace: string; name: string }): Refusal | null {
    const service = this.#cluster.services.get(`${namespace}/${name}`);
    if (!service) {
      return { kind: 'refused', code: 'not-found', message: `Service ${name}.${namespace} not found` };
    }
    if (service.spec.type !== 'ExternalName') return null;
    const message = `Service ${name}.${namespace} is of type ExternalName: it has no endpoints`;
    return { kind: 'refused', code: 'invalid-argument', message };
  }

  /** Follows the endpoints of a Service that exists; one that vanishes has no endpoints until it is back. */
  subscribe(
    target: EndpointTarget,
    client: EndpointClient,
    listener: (snapshot: EndpointSnapshot) => void,
  ): Subscription<EndpointSnapshot> {
    const base = this.#bases.subscribe(target, () => look());
    let current = this.#snapshot(base.current, client);
    const look = () => {
      const next = this.#snapshot(base.current, client);
      if (next === current) return;
      current = next;
      listener(next);
    };
    this.#clients.add(look);
    return {
      get current() {
        return current;
      },
      close: () => {
        this.#clients.delete(look);
        base.close();
      },
    };
  }

  #snapshot(base: EndpointBase, { nodeName }: EndpointClient): EndpointSnapshot {
    const clientZone = nodeName === null ? null : (this.#cluster.zones.get(`/${nodeName}`) ?? null);
    const clientNode = base.isLocalOnly ? nodeName : null;
    const key = JSON.stringify([clientZone, clientNode]);
    const snapshots = this.#snapshots.get(base) ?? new Map<string, EndpointSnapshot>();
    this.#snapshots.set(base, snapshots);
    const known = snapshots.get(key);
    if (known) return known;
    const { isLocalOnly } = base;
    const { isIpv6Enabled } = this.#config;
    const endpoints = filterEndpoints(base.endpoints, { isLocalOnly, clientNode, clientZone, isIpv6Enabled });
    const snapshot: EndpointSnapshot = { service: base.service, endpoints, clientZone };
    snapshots.set(key, snapshot);
    return snapshot;
  }

  #base(target: EndpointTarget, depend: Depend): EndpointBase {
    const { namespace, name } = target;
    depend(tag.service(namespace, name));
    depend(tag.endpoints(namespace, name));
    const service = this.#cluster.services.get(`${namespace}/${name}`);
    const endpoints = new Map<string, Endpoint>();
    for (const key of service ? this.#cluster.slicesByService.get(`${namespace}/${name}`) : []) {
      const slice = this.#cluster.slices.get(key);
      if (!slice || slice.addressType === 'FQDN') continue;
      for (const endpoint of this.#ofSlice(service!, slice, target, depend)) {
        endpoints.set(`${endpoint.ip} ${endpoint.port}`, endpoint);
      }
    }
    return {
      service: { namespace, name },
      endpoints: [...endpoints].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, endpoint]) => endpoint),
      isLocalOnly: service?.spec.internalTrafficPolicy === 'Local',
    };
  }

  #ofSlice(service: Service, slice: EndpointSlice, target: EndpointTarget, depend: Depend): Endpoint[] {
    const port = targetPort(service, slice, target.port);
    if (port === null) return [];
    return (slice.endpoints ?? []).flatMap((entry) => {
      // No condition counts as ready.
      if (entry.conditions?.ready === false) return [];
      if (target.hostname !== null && entry.hostname !== target.hostname) return [];
      return entry.addresses.flatMap((address) => {
        const place = {
          ip: canonicalIp(address),
          port,
          zone: entry.zone ?? this.#zoneOf(entry.nodeName, depend),
          nodeName: entry.nodeName ?? null,
          forZones: entry.hints?.forZones?.map((zone) => zone.name) ?? null,
        };
        if (!entry.targetRef) return [gatewayEndpoint(slice, place, target.port)];
        if (entry.targetRef.kind !== 'Pod') return [];
        const pod = this.#cluster.pods.get(`${entry.targetRef.namespace ?? target.namespace}/${entry.targetRef.name}`);
        // Not seen yet: as a bare address it would be spoken to in clear.
        return pod ? [this.#pods.endpointOf(pod, place, depend)] : [];
      });
    });
  }

  #zoneOf(nodeName: string | undefined, depend: Depend): string | null {
    if (nodeName === undefined) return null;
    depend(tag.zones);
    return this.#cluster.zones.get(`/${nodeName}`) ?? null;
  }
}

/** The port behind a Service's port in this slice; a port that the Service does not have is taken as it is. */
function targetPort(service: Service, slice: EndpointSlice, port: number): number | null {
  const entry = service.spec.ports?.find((candidate) => candidate.port === port);
  if (!entry) return port;
  const resolved = slice.ports?.find(({ name }) => (name ?? '') === (entry.name ?? ''));
  if (resolved?.port !== undefined) return resolved.port;
  const { targetPort: wanted = port } = entry;
  return typeof wanted === 'number' ? wanted : null;
}

/** An address without a target: bare, or the gateway of a mirrored Service. */
function gatewayEndpoint(
  slice: EndpointSlice,
  place: Pick<Endpoint, 'ip' | 'port' | 'zone' | 'nodeName' | 'forZones'>,
  servicePort: number,
): Endpoint {
  const { annotations = {} } = slice.metadata;
  const identity = annotations[MIRROR.gatewayIdentity] || null;
  const remoteName = annotations[MIRROR.remoteName];
  return {
    ...place,
    weight: WEIGHT,
    labels: { zone: place.zone ?? '' },
    identity,
    isMeshed: identity !== null,
    protocol: identity === null ? 'unknown' : 'h2',
    transportPort: null,
    authorityOverride: remoteName ? `${remoteName}:${servicePort}` : null,
    targetKey: null,
  };
}
