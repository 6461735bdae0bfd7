// A pod and its namespace become the configuration of its worker: what a sidecar would be told by LINKERD2_PROXY_*
// variables, and the labels that Linkerd's relabelling would put on its series. Pure.

import { identityName, Port } from '#api/names.ts';
import type { DefaultInboundPolicy, WorkerConfig } from '#api/worker-config.ts';
import type { PodMeshConfig } from '#kube/meshed.ts';
import { ownerOf, serviceAccountOf } from '#kube/pod.ts';
import type { Pod } from '#kube/resources.ts';

/** What is the same for every pod of the node. */
export interface MeshSettings {
  nodeName: string;
  trustDomain: string;
  clusterDomain: string;
  controlPlaneNamespace: string;
  clusterNetworks: readonly string[];
  defaultInboundPolicy: DefaultInboundPolicy;
  trustAnchorsPem: string;
}

const DETECT_TIMEOUT_MS = 10_000;
const INBOUND_DISCOVERY_IDLE_MS = 90_000;
const OUTBOUND_DISCOVERY_IDLE_MS = 5_000;

/** `ips` are the addresses the sandbox has: a pod's status may not know them yet. */
export function workerConfig(
  pod: Pod,
  ips: readonly string[],
  mesh: PodMeshConfig,
  settings: MeshSettings,
): WorkerConfig {
  const { namespace = '', name, uid = '' } = pod.metadata;
  const serviceAccount = serviceAccountOf(pod);
  const { trustDomain, controlPlaneNamespace, nodeName } = settings;
  return {
    pod: { uid, namespace, name, serviceAccount, node: nodeName, ips: [...ips] },
    metricLabels: metricLabels(pod, settings),
    identity: {
      name: identityName({ serviceAccount, namespace, controlPlaneNamespace, trustDomain }),
      trustAnchorsPem: settings.trustAnchorsPem,
    },
    inbound: {
      proxyPort: Port.inbound,
      ports: mesh.inboundPorts,
      opaquePorts: mesh.opaquePorts.map(([from, to]) => [from, to]),
      requireIdentityPorts: mesh.requireIdentityPorts.map(([from, to]) => [from, to]),
      defaultPolicy: mesh.defaultInboundPolicy,
      clusterNetworks: [...settings.clusterNetworks],
      detectTimeoutMs: DETECT_TIMEOUT_MS,
      connectTimeoutMs: mesh.inboundConnectTimeoutMs,
      discoveryIdleMs: INBOUND_DISCOVERY_IDLE_MS,
    },
    outbound: {
      proxyPort: Port.outbound,
      detectTimeoutMs: DETECT_TIMEOUT_MS,
      connectTimeoutMs: mesh.outboundConnectTimeoutMs,
      discoveryIdleMs: OUTBOUND_DISCOVERY_IDLE_MS,
      destinationContext: JSON.stringify({ ns: namespace, nodeName, pod: name }),
      policyWorkload: JSON.stringify({ ns: namespace, pod: name }),
      clusterDomain: settings.clusterDomain,
    },
    drainGraceMs: mesh.drainGraceMs,
    logLevel: mesh.logLevel,
  };
}

/** Linkerd calls the label of a Job `k8s_job`, since Prometheus itself has a label `job`. */
function metricLabels(pod: Pod, settings: MeshSettings): Record<string, string> {
  const { namespace = '', name, labels } = pod.metadata;
  const result: Record<string, string> = {
    namespace,
    pod: name,
    control_plane_ns: settings.controlPlaneNamespace,
    workload_ns: namespace,
  };
  const owner = ownerOf(pod);
  if (owner) result[owner.kind === 'Job' ? 'k8s_job' : owner.kind.toLowerCase()] = owner.name;
  const hash = labels?.['pod-template-hash'];
  if (hash) result.pod_template_hash = hash;
  return result;
}
