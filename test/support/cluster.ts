// A cluster of given objects with all its indexes, for tests of the control plane.

import { DEFAULT_MESH_CONFIG, type MeshConfig } from '#controlplane/core/config.ts';
import { Cluster } from '#controlplane/index/cluster.ts';
import { EndpointIndex } from '#controlplane/index/endpoints.ts';
import { InboundIndex } from '#controlplane/index/inbound.ts';
import { OutboundIndex } from '#controlplane/index/outbound.ts';
import { PodEndpoints } from '#controlplane/index/pod-endpoints.ts';
import { ProfileIndex } from '#controlplane/index/profiles.ts';
import type { Kind, KubeObject } from '#kube/resources.ts';

export interface TestCluster {
  cluster: Cluster;
  endpoints: EndpointIndex;
  profiles: ProfileIndex;
  outbound: OutboundIndex;
  inbound: InboundIndex;
  /** Applies objects and flushes. */
  apply(...objects: KubeObject[]): void;
  /** Deletes objects and flushes. */
  delete(...objects: KubeObject[]): void;
}

export function mkCluster(objects: readonly KubeObject[] = [], config: Partial<MeshConfig> = {}): TestCluster {
  const full = { ...DEFAULT_MESH_CONFIG, ...config };
  const cluster = new Cluster();
  const pods = new PodEndpoints(cluster, full);
  const rig: TestCluster = {
    cluster,
    endpoints: new EndpointIndex(cluster, full, pods),
    profiles: new ProfileIndex(cluster, full, pods),
    outbound: new OutboundIndex(cluster, full),
    inbound: new InboundIndex(cluster, full, pods),
    apply: (...changed) => {
      for (const object of changed) cluster.apply(object.kind as Kind, object);
      cluster.flush();
    },
    delete: (...gone) => {
      for (const { kind, metadata } of gone) {
        cluster.delete(kind as Kind, { namespace: metadata.namespace ?? '', name: metadata.name });
      }
      cluster.flush();
    },
  };
  rig.apply(...objects);
  return rig;
}
