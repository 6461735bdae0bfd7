// What should be true of a sandbox: unmeshed, or meshed with this worker configuration and this plan. A pure function
// of the pod, its namespace, what the runtime said and the node's settings. Annotations that cannot be read do no harm
// to anything but their own meaning: they are named, and the default counts.

import { Annotation } from '#api/names.ts';
import type { WorkerConfig } from '#api/worker-config.ts';
import { type AnnotationProblem, decideMesh, MESH_DEFAULTS, podMeshConfig } from '#kube/meshed.ts';
import type { Namespace, Pod } from '#kube/resources.ts';
import { planRedirect } from './redirect/plan.ts';
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

/** Read by plan.ts, which reports them itself. */
const PLAN_ANNOTATIONS: readonly string[] = [
  Annotation.skipInboundPorts,
  Annotation.skipOutboundPorts,
  Annotation.skipOutboundSubnets,
  Annotation.skipSubnets,
  Annotation.onAgentDown,
];

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
  const { plan, problems: planProblems } = planRedirect({
    podAnnotations: annotations,
    namespaceAnnotations: namespace?.metadata.annotations ?? {},
  });
  const others = mesh.problems.filter(({ annotation }) => !PLAN_ANNOTATIONS.includes(annotation));
  problems.push(...describeProblems(others, sandbox));
  problems.push(...planProblems.map(({ message }) => `pod "${podName(sandbox)}": ${message}; the rest has its effect`));
  if (mesh.mode === 'sidecar') return { kind: 'unmeshed', reason: 'sidecar mode', problems };
  const config = workerConfig(input.pod, sandbox.ips, mesh, settings);
  const withUid = { ...config, pod: { ...config.pod, uid: sandbox.pod.uid } };
  return { kind: 'meshed', config: withUid, plan, problems };
}

/** One sentence for each annotation that could not be read, naming the object, the annotation, the value and the remedy. */
function describeProblems(problems: readonly AnnotationProblem[], sandbox: Pick<Sandbox, 'pod'>): string[] {
  return problems.map(({ on, annotation, message }) => {
    const name = on === 'pod' ? podName(sandbox) : sandbox.pod.namespace;
    return `${on} "${name}": annotation "${annotation}": ${message}; the default counts until it is corrected`;
  });
}

export function podName({ pod }: Pick<Sandbox, 'pod'>): string {
  return `${pod.namespace}/${pod.name}`;
}
