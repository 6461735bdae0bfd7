// Which Server speaks for a port of a pod. Among several the oldest wins, then the first by name (Linkerd's rule).

import { namedPorts } from '#kube/pod.ts';
import type { Server } from '#kube/policy-resources.ts';
import { matchesSelector } from '#kube/selector.ts';
import type { Cluster } from './cluster.ts';
import type { PodRecord } from './pod-record.ts';

/** Null when no Server selects it. Depends on the policies of the pod's namespace. */
export function serverOf(cluster: Cluster, pod: PodRecord, port: number): Server | null {
  let best: Server | null = null;
  for (const key of cluster.serversByNamespace.get(pod.namespace)) {
    const server = cluster.servers.get(key);
    if (!server || !selects(server, pod, port)) continue;
    if (!best || isBefore(server, best)) best = server;
  }
  return best;
}

function selects({ spec }: Server, pod: PodRecord, port: number): boolean {
  if (!spec.podSelector || !matchesSelector(spec.podSelector, pod.labels)) return false;
  return typeof spec.port === 'number' ? spec.port === port : namedPorts(pod.like.spec, spec.port).includes(port);
}

/** Older first; without times, and among equals, by name. */
export function isBefore(a: Server, b: Server): boolean {
  const [left, right] = [a, b].map(({ metadata }) => `${metadata.creationTimestamp ?? ''} ${metadata.name}`);
  return left! < right!;
}
