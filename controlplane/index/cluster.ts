// The resources of the cluster, reduced and joined by what is asked of them: pods by address, Services by ClusterIP,
// slices by Service. Takes what a source sees; `flush` tells which answers may have changed. No clock, no API server.

import { isDeepStrictEqual } from 'node:util';
import type {
  AuthorizationPolicy,
  MeshTLSAuthentication,
  NetworkAuthentication,
  Server,
  ServerAuthorization,
} from '#kube/policy-resources.ts';
import type { EndpointSlice, Kind, KubeObject, Namespace, Node, Pod, Service } from '#kube/resources.ts';
import { SERVICE_NAME_LABEL, ZONE_LABEL } from '#kube/service-slices.ts';
import type { ObjectKey, ResourceSink } from '#kube/source.ts';
import { canonicalIp } from '../core/ip.ts';
import { MultiMap } from './multi-map.ts';
import { type PodRecord, podRecord } from './pod-record.ts';
import { tag } from './tags.ts';

/** What the control plane watches. */
export const WATCHED_KINDS = [
  'Namespace',
  'Node',
  'Pod',
  'Service',
  'EndpointSlice',
  'Server',
  'ServerAuthorization',
  'AuthorizationPolicy',
  'MeshTLSAuthentication',
  'NetworkAuthentication',
] as const satisfies readonly Kind[];

type Tags = ReadonlySet<string>;

export class Cluster implements ResourceSink {
  /** By `namespace/name`; cluster-scoped ones by `/name`. */
  readonly pods = new Map<string, PodRecord>();
  readonly services = new Map<string, Service>();
  readonly slices = new Map<string, EndpointSlice>();
  readonly namespaces = new Map<string, Namespace>();
  readonly zones = new Map<string, string>();
  readonly servers = new Map<string, Server>();
  readonly serverAuthorizations = new Map<string, ServerAuthorization>();
  readonly authorizationPolicies = new Map<string, AuthorizationPolicy>();
  readonly meshTlsAuthentications = new Map<string, MeshTLSAuthentication>();
  readonly networkAuthentications = new Map<string, NetworkAuthentication>();
  /** Keys of pods by each of their addresses. */
  readonly podsByIp = new MultiMap();
  /** Keys of pods by `hostIP:hostPort`. */
  readonly podsByHostPort = new MultiMap();
  readonly servicesByIp = new MultiMap();
  /** Keys of slices by the key of their Service. */
  readonly slicesByService = new MultiMap();
  /** Keys of Services by the key of a pod that one of their slices points to. */
  readonly #servicesByPod = new MultiMap();
  /** Keys of Servers by namespace. */
  readonly serversByNamespace = new MultiMap();
  /** What is kept of each kind, and how a change gets in. */
  readonly #tables: Partial<Record<Kind, Table>> = {
    Pod: table(this.pods, (key, object: Pod | undefined) => this.#setPod(key, object && podRecord(object))),
    Service: table(this.services, (key, object: Service | undefined) => this.#setService(key, object)),
    EndpointSlice: table(this.slices, (key, object: EndpointSlice | undefined) => this.#setSlice(key, object)),
    Namespace: table(this.namespaces, (key, object: Namespace | undefined) => this.#setNamespace(key, object)),
    Node: table(this.zones, (key, object: Node | undefined) =>
      this.#setZone(key, object?.metadata.labels?.[ZONE_LABEL]),
    ),
    Server: table(this.servers, (key, object: Server | undefined) => this.#setServer(key, object)),
    ServerAuthorization: this.#policyTable(this.serverAuthorizations),
    AuthorizationPolicy: this.#policyTable(this.authorizationPolicies),
    MeshTLSAuthentication: this.#authenticationTable(this.meshTlsAuthentications),
    NetworkAuthentication: this.#authenticationTable(this.networkAuthentications),
  };
  #dirty = new Set<string>();
  readonly #listeners = new Set<(tags: Tags) => void>();
  /** Grows with each change of what decides about meshing: caches of it are void then. */
  meshEpoch = 0;

  /** Calls back from `flush` with what changed. */
  onChange(listener: (tags: Tags) => void): void {
    this.#listeners.add(listener);
  }

  get isDirty(): boolean {
    return this.#dirty.size > 0;
  }

  /** Tells the listeners what changed since the last time. */
  flush(): void {
    if (this.#dirty.size === 0) return;
    const tags = this.#dirty;
    this.#dirty = new Set();
    for (const listener of this.#listeners) listener(tags);
  }

  reset(kind: Kind, objects: readonly KubeObject[]): void {
    const kept = new Set(objects.map((object) => keyOf(object.metadata)));
    for (const key of [...(this.#tables[kind]?.keys() ?? [])]) {
      if (kept.has(key)) continue;
      this.#set(kind, key, undefined);
    }
    for (const object of objects) this.apply(kind, object);
  }

  apply(kind: Kind, object: KubeObject): void {
    this.#set(kind, keyOf(object.metadata), object);
  }

  delete(kind: Kind, key: ObjectKey): void {
    this.#set(kind, keyOf(key), undefined);
  }

  #set(kind: Kind, key: string, object: KubeObject | undefined): void {
    // Kinds without a table are of no use to the control plane.
    this.#tables[kind]?.set(key, object);
  }

  #setPod(key: string, next: PodRecord | undefined): void {
    const before = this.pods.get(key);
    if (isDeepStrictEqual(before, next)) return;
    for (const [record, isNow] of [
      [before, false],
      [next, true],
    ] as const) {
      if (!record) continue;
      this.#touch(tag.pod(record.namespace, record.name));
      for (const ip of record.ips) {
        this.podsByIp.change(ip, key, isNow);
        this.#touch(tag.ip(ip));
      }
      if (record.hostIp === null) continue;
      for (const { hostPort } of record.hostPorts) {
        this.podsByHostPort.change(`${record.hostIp}:${hostPort}`, key, isNow);
        this.#touch(tag.ip(record.hostIp));
      }
    }
    put(this.pods, key, next);
    for (const service of this.#servicesByPod.get(key)) this.#touchEndpoints(service);
  }

  #setService(key: string, next: Service | undefined): void {
    const before = this.services.get(key);
    if (isDeepStrictEqual(before, next)) return;
    for (const [service, isNow] of [
      [before, false],
      [next, true],
    ] as const) {
      for (const ip of service ? clusterIps(service) : []) {
        this.servicesByIp.change(ip, key, isNow);
        this.#touch(tag.ip(ip));
      }
    }
    put(this.services, key, next);
    this.#touch(`service:${key}`);
  }

  #setSlice(key: string, next: EndpointSlice | undefined): void {
    const before = this.slices.get(key);
    if (isDeepStrictEqual(before, next)) return;
    for (const [slice, isNow] of [
      [before, false],
      [next, true],
    ] as const) {
      const name = slice?.metadata.labels?.[SERVICE_NAME_LABEL];
      if (!slice || !name) continue;
      const service = `${slice.metadata.namespace ?? 'default'}/${name}`;
      this.slicesByService.change(service, key, isNow);
      for (const { targetRef } of slice.endpoints ?? []) {
        if (targetRef?.kind !== 'Pod') continue;
        this.#servicesByPod.change(
          `${targetRef.namespace ?? slice.metadata.namespace}/${targetRef.name}`,
          service,
          isNow,
        );
      }
      this.#touchEndpoints(service);
    }
    put(this.slices, key, next);
  }

  #setNamespace(key: string, next: Namespace | undefined): void {
    const before = this.namespaces.get(key);
    put(this.namespaces, key, next);
    if (isDeepStrictEqual(before?.metadata.annotations ?? {}, next?.metadata.annotations ?? {})) return;
    this.meshEpoch++;
    this.#touch(tag.namespace(key.slice(1)));
  }

  #setZone(key: string, zone: string | undefined): void {
    if (this.zones.get(key) === zone) return;
    put(this.zones, key, zone);
    this.#touch(tag.zones);
  }

  #setServer(key: string, next: Server | undefined): void {
    if (isDeepStrictEqual(this.servers.get(key), next)) return;
    const namespace = key.slice(0, key.indexOf('/'));
    if (this.servers.has(key)) this.serversByNamespace.change(namespace, key, false);
    if (next) this.serversByNamespace.change(namespace, key, true);
    put(this.servers, key, next);
    this.meshEpoch++;
    this.#touch(tag.policy(namespace));
  }

  #policyTable<T extends KubeObject>(map: Map<string, T>): Table {
    return table(map, (key, next: T | undefined) => {
      if (isDeepStrictEqual(map.get(key), next)) return;
      put(map, key, next);
      this.#touch(tag.policy(key.slice(0, key.indexOf('/'))));
    });
  }

  #authenticationTable<T extends KubeObject>(map: Map<string, T>): Table {
    return table(map, (key, next: T | undefined) => {
      if (isDeepStrictEqual(map.get(key), next)) return;
      put(map, key, next);
      this.#touch(tag.authentications);
    });
  }

  #touchEndpoints(service: string): void {
    this.#touch(`endpoints:${service}`);
  }

  #touch(changed: string): void {
    this.#dirty.add(changed);
  }
}

export function keyOf({ namespace, name }: { namespace?: string; name: string }): string {
  return `${namespace ?? ''}/${name}`;
}

/** The ClusterIPs of a Service; none for headless and external ones. */
export function clusterIps({ spec }: Service): string[] {
  const all = spec.clusterIPs?.length ? spec.clusterIPs : [spec.clusterIP ?? ''];
  return all.filter((ip) => ip !== '' && ip !== 'None').map(canonicalIp);
}

interface Table {
  set(key: string, object: KubeObject | undefined): void;
  keys(): Iterable<string>;
}

function table<T extends KubeObject>(
  map: ReadonlyMap<string, unknown>,
  set: (key: string, object: T | undefined) => void,
): Table {
  return { set: (key, object) => set(key, object as T | undefined), keys: () => map.keys() };
}

function put<T>(map: Map<string, T>, key: string, value: T | undefined): void {
  if (value === undefined) map.delete(key);
  else map.set(key, value);
}
