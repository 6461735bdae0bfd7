// What should be true of a sandbox: unmeshed, or meshed with this worker configuration and this plan. A pure function
// of the pod, its namespace, what the runtime said and the node's settings. Annotations that cannot be read do no harm
// to anything but their own meaning: they are named, and the default counts.

import type { WorkerConfig } from '#api/worker-config.ts';
import { type AnnotationProblem, decideMesh, MESH_DEFAULTS, type PodMeshConfig, podMeshConfig } from '#kube/meshed.ts';
import type { Namespace, Pod } from '#kube/resources.ts';
import type { RedirectPlan } from './redirect/redirector.ts';
import type { Sandbox } from './sandboxes.ts';
import { type MeshSettings, workerConfig } from './worker-config.ts';

export type Desired =
  | { kind: 'unmeshed'; reason: string; problems: string[] }
  | { kind: 'meshed'; config: WorkerConfig; plan: RedirectPlan; problems: string[] }
  /** The pod is meshed, but not known well enough yet to give it a worker. */
  | { kind: 'waiting'; reason: string }
  /** Nobody can say whether the pod is meshed. */
  | { kind: 'unknown'; reason: string };

export interface DesiredInput {
  sandbox: Pick<Sandbox, 'pod' | 'annotations' | 'ips'>;
  /** From the source; undefined while it does not know the pod. */
  pod: Pod | undefined;
  namespace: Namespace | undefined;
  /** Whether the source has listed what there is. */
  hasSynced: boolean;
  settings: MeshSettings;
}

export function desiredState(input: DesiredInput): Desired {
  const { sandbox, namespace, settings, hasSynced } = input;
  if (sandbox.pod.namespace === settings.controlPlaneNamespace) {
    return { kind: 'unmeshed', reason: 'namespace of the control plane', problems: [] };
  }
  const isNamespaceKnown = namespace !== undefined || hasSynced;
  const annotations = input.pod?.metadata.annotations ?? (input.pod ? {} : sandbox.annotations);
  if (annotations === null || !isNamespaceKnown) {
    return { kind: 'unknown', reason: `nothing is known of pod "${podName(sandbox)}" yet` };
  }
  const like = input.pod ?? { metadata: { annotations }, spec: { containers: [] } };
  const decision = decideMesh(like, namespace);
  const problems = describeProblems(decision.problems, sandbox);
  if (!decision.isMeshed) return { kind: 'unmeshed', reason: decision.reason, problems };
  if (!input.pod)
    return { kind: 'waiting', reason: `pod "${podName(sandbox)}" is not known to the agent's source yet` };
  const defaults = { ...MESH_DEFAULTS, inboundPolicy: settings.defaultInboundPolicy };
  const mesh = podMeshConfig(input.pod, namespace, defaults);
  problems.push(...describeProblems(mesh.problems, sandbox));
  if (mesh.mode === 'sidecar') return { kind: 'unmeshed', reason: 'sidecar mode', problems };
  const config = workerConfig(input.pod, sandbox.ips, mesh, settings);
  return {
    kind: 'meshed',
    config: { ...config, pod: { ...config.pod, uid: sandbox.pod.uid } },
    plan: planOf(mesh),
    problems,
  };
}

/** One sentence for each annotation that could not be read, naming the object, the annotation, the value and the remedy. */
function describeProblems(problems: readonly AnnotationProblem[], sandbox: Pick<Sandbox, 'pod'>): string[] {
  return problems.map(({ on, annotation, message }) => {
    const name = on === 'pod' ? podName(sandbox) : sandbox.pod.namespace;
    return `${on} "${name}": annotation "${annotation}": ${message}; the default counts until it is corrected`;
  });
}

function planOf(mesh: PodMeshConfig): RedirectPlan {
  const ranges = (ports: PodMeshConfig['opaquePorts']) => ports.map(([from, to]) => ({ from, to }));
  return {
    inbound: true,
    outbound: true,
    failOpen: mesh.onAgentDown === 'open',
    skipInboundPorts: ranges(mesh.skipInboundPorts),
    skipOutboundPorts: ranges(mesh.skipOutboundPorts),
    skipOutboundCidrs: [],
    // Linkerd's annotation names clients, not servers: packets from there reach the application untouched.
    skipInboundCidrs: mesh.skipSubnets,
  };
}

export function podName({ pod }: Pick<Sandbox, 'pod'>): string {
  return `${pod.namespace}/${pod.name}`;
}
