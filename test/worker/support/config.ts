// Configurations of workers under test.

import type { WorkerConfig } from '#api/worker-config.ts';
import { workerConfig } from '#proxy/testing.ts';
import type { Sockets } from './process.ts';

export const POD_ADDRESS = '127.0.0.2';
export const WEB = 'web.shop.serviceaccount.identity.heddle.cluster.local';
export const API = 'api.shop.serviceaccount.identity.heddle.cluster.local';

/** The pod `web` at 127.0.0.2, without identity. Inbound fields may be changed. */
export function plainConfig(sockets: Sockets, inbound: Partial<WorkerConfig['inbound']> = {}): WorkerConfig {
  const config = workerConfig();
  return {
    ...config,
    pod: { ...config.pod, ips: [POD_ADDRESS] },
    identity: null,
    inbound: {
      ...config.inbound,
      proxyPort: sockets.ports.inbound4,
      clusterNetworks: ['127.0.0.0/16'],
      connectTimeoutMs: 1_000,
      ...inbound,
    },
    outbound: { ...config.outbound, proxyPort: sockets.ports.outbound4 },
    drainGraceMs: 2_000,
    logLevel: 'debug',
  };
}

/** The same with an identity. */
export function meshConfig(
  sockets: Sockets,
  anchorsPem: string,
  options: { name?: string; inbound?: Partial<WorkerConfig['inbound']> } = {},
): WorkerConfig {
  const { name = WEB, inbound = {} } = options;
  return { ...plainConfig(sockets, inbound), identity: { name, trustAnchorsPem: anchorsPem } };
}
