// A Pod reduced to what the indexes ask of it: a cluster's pods are most of the control plane's memory.

import type { PodLike } from '#kube/meshed.ts';
import {
  allContainers,
  type HttpProbe,
  httpProbes,
  isFinished,
  ownerOf,
  type PodOwner,
  podIps,
  serviceAccountOf,
} from '#kube/pod.ts';
import type { Container, Pod } from '#kube/resources.ts';
import { canonicalIp } from '../core/ip.ts';

export interface PodRecord {
  namespace: string;
  name: string;
  /** Empty once the pod is finished: somebody else may have the addresses by then. */
  ips: string[];
  hostIp: string | null;
  hostPorts: { hostPort: number; containerPort: number }[];
  isHostNetwork: boolean;
  nodeName: string | null;
  serviceAccount: string;
  owner: PodOwner | null;
  labels: Record<string, string>;
  /** `<hostname>.<subdomain>` names the pod behind a headless Service. */
  hostname: string | null;
  subdomain: string | null;
  probes: HttpProbe[];
  /** Port of the proxy when one was injected as a container; null in node mode. */
  sidecarPort: number | null;
  /** Annotations and ports, in the shape that kube/meshed.ts reads. */
  like: PodLike;
}

const MESH_ANNOTATION = /^(?:linkerd\.io|config\.linkerd\.io|config\.heddle\.dev|heddle\.dev)\//;

export function podRecord(pod: Pod): PodRecord {
  const { metadata, spec, status } = pod;
  const labels = metadata.labels ?? {};
  const annotations = Object.fromEntries(
    Object.entries(metadata.annotations ?? {}).filter(([key]) => MESH_ANNOTATION.test(key)),
  );
  const isOver = isFinished(pod);
  const containers = spec.containers.map(portsOnly);
  const initContainers = (spec.initContainers ?? []).map(portsOnly);
  return {
    namespace: metadata.namespace ?? 'default',
    name: metadata.name,
    ips: isOver ? [] : podIps(pod).map(canonicalIp),
    hostIp: isOver || !status?.hostIP ? null : canonicalIp(status.hostIP),
    hostPorts: allContainers(spec).flatMap(({ ports = [] }) =>
      ports.flatMap(({ hostPort, containerPort }) => (hostPort ? [{ hostPort, containerPort }] : [])),
    ),
    isHostNetwork: spec.hostNetwork ?? false,
    nodeName: spec.nodeName ?? null,
    serviceAccount: serviceAccountOf(pod),
    owner: ownerOf(pod),
    labels,
    hostname: spec.hostname ?? null,
    subdomain: spec.subdomain ?? null,
    probes: httpProbes(spec),
    sidecarPort: sidecarPort(spec.initContainers ?? [], spec.containers),
    like: {
      metadata: { labels, annotations },
      spec: { containers, initContainers, hostNetwork: spec.hostNetwork ?? false },
    },
  };
}

function portsOnly({ name, ports = [] }: Container): Container {
  return {
    name,
    ports: ports.map(({ name: portName, containerPort, protocol }) => ({
      ...(portName === undefined ? {} : { name: portName }),
      containerPort,
      ...(protocol === undefined ? {} : { protocol }),
    })),
  };
}

/** A Linkerd sidecar tells its inbound port in its environment: `0.0.0.0:4143` or `[::]:4143`. */
function sidecarPort(...lists: Container[][]): number | null {
  const proxy = lists.flat().find(({ name }) => name === 'linkerd-proxy');
  const listen = proxy?.env?.find(({ name }) => name === 'LINKERD2_PROXY_INBOUND_LISTEN_ADDR')?.value;
  const port = Number(/:(\d{1,5})$/.exec(listen ?? '')?.[1]);
  return port >= 1 && port <= 65_535 ? port : null;
}
