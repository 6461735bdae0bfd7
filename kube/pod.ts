// Questions about a Pod that several parts ask, answered once.

import { isPort } from './port-set.ts';
import type { Container, Pod, PodSpec } from './resources.ts';

/** The workload a pod belongs to: its controller, or the Deployment behind a ReplicaSet; null for a bare pod. */
export interface PodOwner {
  kind: string;
  name: string;
}

/**
 * The owner for labels and display. A ReplicaSet whose name ends in the pod's template hash was made by a Deployment:
 * the Deployment controller names it `<deployment>-<pod-template-hash>`, and nobody else sets that label.
 */
export function ownerOf(pod: Pod): PodOwner | null {
  const controller = pod.metadata.ownerReferences?.find((owner) => owner.controller);
  if (!controller) return null;
  const hash = pod.metadata.labels?.['pod-template-hash'];
  if (controller.kind === 'ReplicaSet' && hash && controller.name.endsWith(`-${hash}`)) {
    return { kind: 'Deployment', name: controller.name.slice(0, -hash.length - 1) };
  }
  return { kind: controller.kind, name: controller.name };
}

/** The addresses of a pod, the primary one first. Empty before it has any. */
export function podIps(pod: Pod): string[] {
  const all = pod.status?.podIPs?.map(({ ip }) => ip) ?? [];
  if (all.length > 0) return all;
  return pod.status?.podIP ? [pod.status.podIP] : [];
}

export function isReady(pod: Pod): boolean {
  return pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;
}

/** Finished pods keep their addresses in the API although others may have them by now. */
export function isFinished(pod: Pod): boolean {
  return pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';
}

export function serviceAccountOf(pod: Pod): string {
  return pod.spec.serviceAccountName || 'default';
}

/** Init containers (sidecars among them) and containers. */
export function allContainers(spec: PodSpec): Container[] {
  return [...(spec.initContainers ?? []), ...spec.containers];
}

/** TCP ports of containers with a given name. */
export function namedPorts(spec: PodSpec, name: string): number[] {
  return allContainers(spec)
    .flatMap((container) => container.ports ?? [])
    .filter((port) => port.name === name && (port.protocol ?? 'TCP') === 'TCP')
    .map((port) => port.containerPort);
}

/** An HTTP probe of the kubelet. */
export interface HttpProbe {
  port: number;
  path: string;
}

/** The liveness, readiness and startup probes over HTTP, their named ports resolved. */
export function httpProbes(spec: PodSpec): HttpProbe[] {
  const probes: HttpProbe[] = [];
  for (const container of allContainers(spec)) {
    for (const probe of [container.livenessProbe, container.readinessProbe, container.startupProbe]) {
      if (!probe?.httpGet) continue;
      const { port: wanted, path = '/' } = probe.httpGet;
      const port = container.ports?.find(({ name }) => name === wanted)?.containerPort ?? Number(wanted);
      if (isPort(port)) probes.push({ port, path: path.startsWith('/') ? path : `/${path}` });
    }
  }
  return probes;
}

/** The ports that a pod says it serves: TCP ports of its containers and of its HTTP probes, ascending. */
export function declaredPorts(spec: PodSpec): number[] {
  const ports = allContainers(spec)
    .flatMap((container) => container.ports ?? [])
    .filter((port) => (port.protocol ?? 'TCP') === 'TCP')
    .map((port) => port.containerPort);
  return [...new Set([...ports, ...httpProbes(spec).map(({ port }) => port)])].sort((a, b) => a - b);
}
