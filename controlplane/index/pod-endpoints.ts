// What a pod's port is as an endpoint: whether it is meshed, with which identity, and how to talk to it (reference:
// linkerd2-proxy-api, WeightedAddr). Kept for each pod until the pod or its circumstances change.

import { identityName, Port } from '#api/names.ts';
import { decideMesh, type PodMeshConfig, podMeshConfig, stampOf } from '#kube/meshed.ts';
import { hasPort } from '#kube/port-set.ts';
import type { MeshConfig } from '../core/config.ts';
import type { Endpoint } from '../core/model.ts';
import type { Cluster } from './cluster.ts';
import type { PodRecord } from './pod-record.ts';
import { serverOf } from './servers.ts';
import { tag } from './tags.ts';

/** Every endpoint weighs this; the balancer of linkerd2-proxy does not look at it. */
export const WEIGHT = 10_000;

/** The proxy's own ports: never through a transport header. */
const META_PORTS: readonly number[] = [Port.tap, Port.workerAdmin];

export interface PodMesh {
  isMeshed: boolean;
  config: PodMeshConfig;
  /** Whose certificates the pod has; null when it is not meshed. */
  controlPlaneNamespace: string | null;
  /** Null unless the pod belongs to this control plane. */
  identity: string | null;
  /** Where the pod's proxy takes connections with a transport header. */
  inboundPort: number;
}

interface Cached {
  epoch: number;
  mesh: PodMesh;
  endpoints: Map<string, Endpoint>;
}

export interface EndpointPlace {
  ip: string;
  port: number;
  zone: string | null;
  nodeName: string | null;
  forZones: readonly string[] | null;
}

export class PodEndpoints {
  readonly #cluster: Cluster;
  readonly #config: MeshConfig;
  readonly #cache = new WeakMap<PodRecord, Cached>();

  constructor(cluster: Cluster, config: MeshConfig) {
    this.#cluster = cluster;
    this.#config = config;
  }

  /** How a pod is meshed. Depends on its namespace. */
  meshOf(pod: PodRecord): PodMesh {
    return this.#entry(pod).mesh;
  }

  /** A port of a pod as an endpoint. The answer depends on the tags named here. */
  endpointOf(pod: PodRecord, place: EndpointPlace, depend: (tag: string) => void): Endpoint {
    depend(tag.namespace(pod.namespace));
    depend(tag.policy(pod.namespace));
    const { mesh, endpoints } = this.#entry(pod);
    const key = JSON.stringify(place);
    const known = endpoints.get(key);
    if (known) return known;
    const endpoint = this.#build(pod, mesh, place);
    endpoints.set(key, endpoint);
    return endpoint;
  }

  /** True when a pod's port carries bytes that nobody should look into. */
  isOpaque(pod: PodRecord, port: number, depend: (tag: string) => void): boolean {
    depend(tag.namespace(pod.namespace));
    depend(tag.policy(pod.namespace));
    const server = serverOf(this.#cluster, pod, port);
    if (server) return server.spec.proxyProtocol === 'opaque';
    return hasPort(this.meshOf(pod).config.opaquePorts, port);
  }

  #entry(pod: PodRecord): Cached {
    const epoch = this.#cluster.meshEpoch;
    const known = this.#cache.get(pod);
    if (known?.epoch === epoch) return known;
    const entry: Cached = { epoch, mesh: this.#meshOf(pod), endpoints: new Map() };
    this.#cache.set(pod, entry);
    return entry;
  }

  #meshOf(pod: PodRecord): PodMesh {
    const namespace = this.#cluster.namespaces.get(`/${pod.namespace}`);
    const isMeshed = pod.sidecarPort !== null || decideMesh(pod.like, namespace).isMeshed;
    const { controlPlaneNamespace: ours, trustDomain } = this.#config;
    const controlPlaneNamespace = isMeshed ? (stampOf(pod.like) ?? ours) : null;
    const { serviceAccount, namespace: podNamespace } = pod;
    const parts = { serviceAccount, namespace: podNamespace, controlPlaneNamespace: ours, trustDomain };
    return {
      isMeshed,
      config: podMeshConfig(pod.like, namespace, this.#config.defaults),
      controlPlaneNamespace,
      identity: controlPlaneNamespace === ours ? identityName(parts) : null,
      inboundPort: pod.sidecarPort ?? Port.inbound,
    };
  }

  #build(pod: PodRecord, mesh: PodMesh, place: EndpointPlace): Endpoint {
    const { ip, port, zone, nodeName, forZones } = place;
    // A skipped port is not redirected: whoever dials it talks to the application itself.
    const isMeshed = mesh.isMeshed && !hasPort(mesh.config.skipInboundPorts, port);
    const isOpaque = isMeshed && this.isOpaque(pod, port, () => {});
    const wantsHeader = isOpaque || this.#config.transportHeader === 'always';
    return {
      ip,
      port,
      weight: WEIGHT,
      labels: labelsOf(pod, isMeshed ? mesh.controlPlaneNamespace : null, zone),
      identity: isMeshed ? mesh.identity : null,
      isMeshed,
      protocol: isOpaque ? 'opaque' : isMeshed && this.#config.isH2UpgradeEnabled ? 'h2' : 'unknown',
      transportPort: isMeshed && wantsHeader && !META_PORTS.includes(port) ? mesh.inboundPort : null,
      authorityOverride: null,
      zone,
      nodeName,
      forZones,
      targetKey: `pod:${pod.namespace}/${pod.name}`,
    };
  }
}

function labelsOf(pod: PodRecord, controlPlaneNamespace: string | null, zone: string | null): Record<string, string> {
  const hash = pod.labels['pod-template-hash'];
  return {
    pod: pod.name,
    ...(pod.owner ? { [pod.owner.kind.toLowerCase()]: pod.owner.name } : {}),
    serviceaccount: pod.serviceAccount,
    ...(controlPlaneNamespace === null ? {} : { control_plane_ns: controlPlaneNamespace }),
    ...(hash === undefined ? {} : { pod_template_hash: hash }),
    zone: zone ?? '',
  };
}
