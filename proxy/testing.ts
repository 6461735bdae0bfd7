// A worker's configuration for tests.

import type { WorkerConfig } from '#api/worker-config.ts';

/** A pod `web-1` in namespace `shop` at 10.1.0.7, changed by `part`. */
export function workerConfig(part: Partial<WorkerConfig> = {}): WorkerConfig {
  return {
    pod: {
      uid: 'pod-uid',
      namespace: 'shop',
      name: 'web-1',
      serviceAccount: 'web',
      node: 'node-1',
      ips: ['10.1.0.7', 'fd00::7'],
    },
    metricLabels: { namespace: 'shop', pod: 'web-1', deployment: 'web' },
    identity: { name: 'web.shop.serviceaccount.identity.heddle.cluster.local', trustAnchorsPem: 'anchors' },
    inbound: {
      proxyPort: 4143,
      ports: [],
      opaquePorts: [],
      requireIdentityPorts: [],
      defaultPolicy: 'all-unauthenticated',
      clusterNetworks: ['10.0.0.0/8', 'fd00::/8'],
      detectTimeoutMs: 10_000,
      connectTimeoutMs: 100,
      discoveryIdleMs: 90_000,
    },
    outbound: {
      proxyPort: 4140,
      detectTimeoutMs: 10_000,
      connectTimeoutMs: 1_000,
      discoveryIdleMs: 5_000,
      destinationContext: '{"ns":"shop","nodeName":"node-1","pod":"web-1"}',
      policyWorkload: '{"ns":"shop","pod":"web-1"}',
      clusterDomain: 'cluster.local',
    },
    drainGraceMs: 30_000,
    logLevel: 'info',
    ...part,
  };
}
