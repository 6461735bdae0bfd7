// The four systems of the peers' benchmark on one node: nothing between client and origin, a pair of HAProxy, a pair of
// Envoy, and two meshed pods with their workers. All are up during the whole run; who is not asked costs nothing.

import { execFileSync } from 'node:child_process';
import path from 'node:path';
import type { MeshNode, MeshPod } from '../../test/netns/support/mesh-node.ts';
import { startEnvoyPair } from './envoy.ts';
import { startHaproxyPair } from './haproxy.ts';
import { startOrigins } from './origins.ts';
import { type Pair, type PairOptions, ROUTES, type Route } from './system.ts';

export type SystemName = 'direct' | 'haproxy' | 'envoy' | 'heddle';

export interface System {
  name: SystemName;
  /** Where its clients are. */
  netns: string;
  /** What they dial. */
  address(route: Route): { host: string; port: number };
  /** Process ids of the proxies, the client's first; null of a system without. */
  proxies: readonly [number, number] | null;
}

const NAMESPACE = 'peers';
const OPAQUE_PORTS = Object.values(ROUTES)
  .filter(({ mode }) => mode === 'tcp')
  .map(({ originPort }) => originPort)
  .join(',');

/** Starts all; `node` has been started. */
export async function startSystems(node: MeshNode): Promise<System[]> {
  const at = (name: string): string => path.join(node.directory, name);
  const plain = unmeshed(node, 'haproxy');
  // The two pairs listen on the same ports, so each has namespaces of its own.
  const other = unmeshed(node, 'envoy');
  node.addNamespace(NAMESPACE, { 'linkerd.io/inject': 'enabled' });
  const meshed = {
    client: await node.addPod(NAMESPACE, 'client'),
    server: await node.addPod(NAMESPACE, 'server', {
      annotations: { 'config.linkerd.io/opaque-ports': OPAQUE_PORTS },
      ports: Object.values(ROUTES).map(({ originPort }) => originPort),
    }),
  };
  for (const { client, server } of [plain, other, meshed]) {
    widenPorts(client);
    widenPorts(server);
    await startOrigins(server.netns, at(`origins-${server.name}`));
  }
  const haproxy = await startHaproxyPair({ ...between(plain), directory: at('haproxy') });
  const envoy = await startEnvoyPair({ ...between(other), directory: at('envoy') });
  return [
    straight('direct', plain.client, plain.server, null),
    paired('haproxy', plain.client, haproxy),
    paired('envoy', other.client, envoy),
    straight('heddle', meshed.client, meshed.server, await workers(node, meshed.client.name, meshed.server.name)),
  ];
}

interface Ends {
  client: MeshPod;
  server: MeshPod;
}

function unmeshed(node: MeshNode, name: string): Ends {
  return { client: node.makePod(NAMESPACE, `${name}-client`), server: node.makePod(NAMESPACE, `${name}-server`) };
}

function between({ client, server }: Ends): Omit<PairOptions, 'directory'> {
  const routes = Object.values(ROUTES);
  return { clientNetns: client.netns, serverNetns: server.netns, serverAddress: server.ipv4, routes };
}

function straight(name: SystemName, client: MeshPod, server: MeshPod, proxies: System['proxies']): System {
  const address = ({ originPort }: Route) => ({ host: server.ipv4, port: originPort });
  return { name, netns: client.netns, address, proxies };
}

function paired(name: SystemName, client: MeshPod, pair: Pair): System {
  const address = ({ clientPort }: Route) => ({ host: '127.0.0.1', port: clientPort });
  return { name, netns: client.netns, address, proxies: [pair.client.pid, pair.server.pid] };
}

async function workers(node: MeshNode, client: string, server: string): Promise<[number, number]> {
  const pids = await node.workerPids();
  const [from, to] = [pids.get(client), pids.get(server)];
  if (from === undefined || to === undefined) throw new Error('the meshed pods have no workers: expected one each');
  return [from, to];
}

/** Thousands of connections a second would use up the ports that wait after a close. */
function widenPorts({ netns }: MeshPod): void {
  const settings = ['net.ipv4.ip_local_port_range=16000 65000', 'net.ipv4.tcp_tw_reuse=1'];
  execFileSync('ip', ['netns', 'exec', netns, 'sysctl', '--quiet', '--write', ...settings]);
}
