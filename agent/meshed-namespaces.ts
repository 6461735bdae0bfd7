// What the CNI plugin needs to know of namespaces when it finds no agent. Pure.

import type { CniMeshedNamespaces } from '#api/cni-message.ts';
import { Annotation } from '#api/names.ts';
import { decideMesh } from '#kube/meshed.ts';
import type { Namespace } from '#kube/resources.ts';

/** Sorts namespaces by whether a pod without annotations of its own would be meshed in them. */
export function meshedNamespaces(namespaces: readonly Namespace[]): Pick<CniMeshedNamespaces, 'meshed' | 'unmeshed'> {
  const sorted: Pick<CniMeshedNamespaces, 'meshed' | 'unmeshed'> = { meshed: {}, unmeshed: [] };
  const anyPod = { metadata: {}, spec: { containers: [] } };
  for (const namespace of namespaces) {
    const { name, annotations } = namespace.metadata;
    if (!decideMesh(anyPod, namespace).isMeshed) {
      sorted.unmeshed.push(name);
      continue;
    }
    const onAgentDown = annotations?.[Annotation.onAgentDown];
    sorted.meshed[name] = onAgentDown === 'open' || onAgentDown === 'closed' ? { onAgentDown } : {};
  }
  return sorted;
}
