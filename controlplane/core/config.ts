// What the indexes know about the cluster besides its resources.

import {
  DEFAULT_CLUSTER_DOMAIN,
  DEFAULT_CLUSTER_NETWORKS,
  DEFAULT_CONTROL_PLANE_NAMESPACE,
  DEFAULT_TRUST_DOMAIN,
} from '#api/names.ts';
import { MESH_DEFAULTS, type MeshDefaults } from '#kube/meshed.ts';

/** Which connections between proxies begin with a transport header. */
export type TransportHeaderMode = 'always' | 'opaque';

export interface MeshConfig {
  controlPlaneNamespace: string;
  trustDomain: string;
  /** Service names end with `.svc.<cluster domain>`. */
  clusterDomain: string;
  /** Where pods and Services live; all else is egress. */
  clusterNetworks: readonly string[];
  /** Addresses that the kubelet's HTTP probes come from. */
  probeNetworks: readonly string[];
  /** Applies to pods that say nothing themselves. */
  defaults: MeshDefaults;
  /** Meshed endpoints are said to take HTTP/2 for HTTP/1.1 requests. */
  isH2UpgradeEnabled: boolean;
  isIpv6Enabled: boolean;
  transportHeader: TransportHeaderMode;
}

export const DEFAULT_MESH_CONFIG: MeshConfig = {
  controlPlaneNamespace: DEFAULT_CONTROL_PLANE_NAMESPACE,
  trustDomain: DEFAULT_TRUST_DOMAIN,
  clusterDomain: DEFAULT_CLUSTER_DOMAIN,
  clusterNetworks: DEFAULT_CLUSTER_NETWORKS,
  probeNetworks: ['0.0.0.0/0', '::/0'],
  defaults: MESH_DEFAULTS,
  isH2UpgradeEnabled: false,
  isIpv6Enabled: true,
  transportHeader: 'always',
};
