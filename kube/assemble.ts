// What the files of a directory add up to: the objects that an API server and its controllers would show. Pure: equal
// files give equal objects, in every process that reads them.

import { assignClusterIps, type ServiceNetworks } from './cluster-ips.ts';
import { podsOfDeployment } from './deployment-pods.ts';
import type { Problem } from './manifest.ts';
import type { ManifestFile } from './manifest-files.ts';
import { isFinished, podIps, serviceAccountOf } from './pod.ts';
import {
  type Deployment,
  type EndpointSlice,
  KINDS,
  type Kind,
  type KubeObject,
  type Node,
  type Pod,
  type Service,
} from './resources.ts';
import { SERVICE_NAME_LABEL, slicesOfService } from './service-slices.ts';
import { uidOf } from './uid.ts';

/** Objects of each kind by `namespace/name`. */
export type Objects = Map<Kind, Map<string, KubeObject>>;

export interface Assembly {
  objects: Objects;
  /** Faults between objects; those within one are known to its file. */
  problems: Problem[];
}

export function keyOf({ metadata }: KubeObject): string {
  return `${metadata.namespace ?? ''}/${metadata.name}`;
}

export function assemble(files: readonly ManifestFile[], networks: ServiceNetworks): Assembly {
  return new Assembler(networks).run(files);
}

interface Origin {
  file: string;
  document: number | null;
}

class Assembler {
  readonly #networks: ServiceNetworks;
  readonly #objects: Objects = new Map(KINDS.map((kind) => [kind, new Map()]));
  readonly #origins = new Map<KubeObject, Origin>();
  readonly #problems: Problem[] = [];

  constructor(networks: ServiceNetworks) {
    this.#networks = networks;
  }

  run(files: readonly ManifestFile[]): Assembly {
    for (const { file, objects } of files) {
      for (const { kind, object, document } of objects) this.#add(kind, object, { file, document });
    }
    this.#expandDeployments();
    this.#mergeReports(files);
    this.#addImplied();
    this.#assignClusterIps();
    this.#deriveSlices();
    this.#checkAddresses();
    return { objects: this.#objects, problems: this.#problems };
  }

  #of<T extends KubeObject>(kind: Kind): Map<string, T> {
    return this.#objects.get(kind) as unknown as Map<string, T>;
  }

  #add(kind: Kind, object: KubeObject, origin: Origin): void {
    const objects = this.#of(kind);
    const key = keyOf(object);
    const first = objects.get(key);
    if (first) {
      const { file, document } = this.#origins.get(first)!;
      const where = document === null ? file : `${file} document ${document}`;
      this.#fault(object, origin, 'metadata.name', `skip it: the one in "${where}" has the same name`);
      return;
    }
    objects.set(key, object);
    this.#origins.set(object, origin);
  }

  #replace(kind: Kind, before: KubeObject, after: KubeObject): void {
    this.#of(kind).set(keyOf(after), after);
    const origin = this.#origins.get(before);
    if (origin) this.#origins.set(after, origin);
  }

  #expandDeployments(): void {
    for (const deployment of this.#of<Deployment>('Deployment').values()) {
      const origin = this.#origins.get(deployment)!;
      for (const pod of podsOfDeployment(deployment)) this.#add('Pod', pod, origin);
    }
  }

  /** A report without its pod is that of one which is being taken down: no fault. */
  #mergeReports(files: readonly ManifestFile[]): void {
    const pods = this.#of<Pod>('Pod');
    for (const { report } of files) {
      const pod = report && pods.get(keyOf(report));
      if (!pod) continue;
      const { uid } = report.metadata;
      const { nodeName } = report.spec ?? {};
      const reported: Pod = {
        ...pod,
        metadata: { ...pod.metadata, ...(uid === undefined ? {} : { uid }) },
        spec: { ...pod.spec, ...(nodeName === undefined ? {} : { nodeName }) },
        ...(report.status === undefined ? {} : { status: report.status }),
      };
      this.#replace('Pod', pod, reported);
    }
  }

  /** Namespaces need not be spelled out, and each has the ServiceAccount `default`. */
  #addImplied(): void {
    const namespaces = this.#of('Namespace');
    const accounts = this.#of('ServiceAccount');
    for (const kind of KINDS) {
      for (const { metadata } of this.#of(kind).values()) {
        if (metadata.namespace === undefined || namespaces.has(`/${metadata.namespace}`)) continue;
        const name = metadata.namespace;
        const uid = uidOf('Namespace', { namespace: '', name });
        namespaces.set(`/${name}`, { apiVersion: 'v1', kind: 'Namespace', metadata: { name, uid } });
      }
    }
    for (const { metadata } of namespaces.values()) {
      const key = { namespace: metadata.name, name: 'default' };
      if (accounts.has(`${key.namespace}/default`)) continue;
      const uid = uidOf('ServiceAccount', key);
      accounts.set(`${key.namespace}/default`, { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { ...key, uid } });
    }
    for (const pod of this.#of<Pod>('Pod').values()) {
      const account = serviceAccountOf(pod);
      if (accounts.has(`${pod.metadata.namespace}/${account}`)) continue;
      const message = `read "${account}": expected a ServiceAccount of namespace "${pod.metadata.namespace}"`;
      this.#fault(pod, this.#origins.get(pod), 'spec.serviceAccountName', message);
    }
  }

  #assignClusterIps(): void {
    const services = [...this.#of<Service>('Service').values()];
    for (const [index, service] of assignClusterIps(services, this.#networks).entries()) {
      this.#replace('Service', services[index]!, service);
    }
  }

  #deriveSlices(): void {
    const slices = this.#of<EndpointSlice>('EndpointSlice');
    const serviceKey = (slice: EndpointSlice) =>
      `${slice.metadata.namespace}/${slice.metadata.labels?.[SERVICE_NAME_LABEL]}`;
    const given = new Set([...slices.values()].map(serviceKey));
    const nodes = new Map([...this.#of<Node>('Node').values()].map((node) => [node.metadata.name, node]));
    const podsOf = Map.groupBy(this.#of<Pod>('Pod').values(), ({ metadata }) => metadata.namespace);
    for (const [key, service] of this.#of<Service>('Service')) {
      if (given.has(key)) continue;
      const pods = podsOf.get(service.metadata.namespace) ?? [];
      for (const slice of slicesOfService(service, pods, nodes)) slices.set(keyOf(slice), slice);
    }
  }

  #checkAddresses(): void {
    const holders = new Map<string, KubeObject>();
    const claim = (address: string, object: KubeObject, field: string) => {
      const holder = holders.get(address);
      holders.set(address, holder ?? object);
      if (!holder) return;
      const other = `${holder.kind} ${keyOf(holder)}`;
      this.#fault(object, this.#origins.get(object), field, `read "${address}": ${other} has this address too`);
    };
    for (const service of this.#of<Service>('Service').values()) {
      const { clusterIP, clusterIPs } = service.spec;
      for (const address of clusterIPs ?? [clusterIP ?? '']) {
        if (address !== '' && address !== 'None') claim(address, service, 'spec.clusterIP');
      }
    }
    for (const pod of this.#of<Pod>('Pod').values()) {
      if (pod.spec.hostNetwork || isFinished(pod)) continue;
      for (const address of podIps(pod)) claim(address, pod, 'status.podIPs');
    }
  }

  #fault(object: KubeObject, origin: Origin | undefined, field: string, message: string): void {
    const { file, document } = origin ?? { file: '.', document: null };
    const name = object.metadata.namespace ? keyOf(object) : object.metadata.name;
    this.#problems.push({ file, document, object: `${object.kind} ${name}`, field, message, severity: 'error' });
  }
}
