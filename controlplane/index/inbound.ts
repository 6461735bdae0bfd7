// The policy of each port of each workload (InboundServerPolicies): the Server that selects it, else the default policy
// of the pod, its namespace or the cluster.

import type { Server, ServerProtocol } from '#kube/policy-resources.ts';
import { hasPort } from '#kube/port-set.ts';
import type { MeshConfig } from '../core/config.ts';
import type { InboundProtocol, InboundRoute, InboundSnapshot, RouteMatch } from '../core/model.ts';
import { defaultAuthorizations, openTo, requireIdentity, serverAuthorizations } from './authorizations.ts';
import type { Cluster } from './cluster.ts';
import type { PodEndpoints } from './pod-endpoints.ts';
import type { PodRecord } from './pod-record.ts';
import { serverOf } from './servers.ts';
import { tag } from './tags.ts';
import { type Listener, type Subscription, Topics } from './topics.ts';

export interface InboundTarget {
  namespace: string;
  pod: string;
  port: number;
}

type Depend = (tag: string) => void;

const PROTOCOLS: Record<ServerProtocol, InboundProtocol> = {
  unknown: 'detect',
  'HTTP/1': 'http1',
  'HTTP/2': 'http2',
  gRPC: 'grpc',
  opaque: 'opaque',
  TLS: 'tls',
};

export class InboundIndex {
  readonly #cluster: Cluster;
  readonly #config: MeshConfig;
  readonly #pods: PodEndpoints;
  readonly #topics: Topics<InboundTarget, InboundSnapshot>;

  constructor(cluster: Cluster, config: MeshConfig, pods: PodEndpoints) {
    this.#cluster = cluster;
    this.#config = config;
    this.#pods = pods;
    this.#topics = new Topics({
      compute: (target, depend) => this.#compute(target, depend),
      keyOf: ({ namespace, pod, port }) => `${namespace}/${pod}:${port}`,
    });
    cluster.onChange((tags) => this.#topics.refresh(tags));
  }

  get size(): number {
    return this.#topics.size;
  }

  get(target: InboundTarget): InboundSnapshot {
    return this.#topics.get(target);
  }

  subscribe(target: InboundTarget, listener: Listener<InboundSnapshot>): Subscription<InboundSnapshot> {
    return this.#topics.subscribe(target, listener);
  }

  #compute({ namespace, pod: name, port }: InboundTarget, depend: Depend): InboundSnapshot {
    depend(tag.pod(namespace, name));
    depend(tag.namespace(namespace));
    depend(tag.policy(namespace));
    const pod = this.#cluster.pods.get(`${namespace}/${name}`);
    if (!pod) return { kind: 'refused', code: 'not-found', message: 'unknown server' };
    const server = serverOf(this.#cluster, pod, port);
    return server ? this.#ofServer(server, pod, port, depend) : this.#ofDefault(pod, port);
  }

  #ofServer(server: Server, pod: PodRecord, port: number, depend: Depend): InboundSnapshot {
    const { namespace = 'default', name } = server.metadata;
    const protocol = PROTOCOLS[server.spec.proxyProtocol ?? 'unknown'];
    return {
      kind: 'server',
      reference: { kind: 'resource', group: 'policy.linkerd.io', resource: 'server', namespace, name },
      protocol,
      authorizations: serverAuthorizations(this.#cluster, this.#config, server, depend),
      routes: this.#routes(pod, port, protocol),
    };
  }

  #ofDefault(pod: PodRecord, port: number): InboundSnapshot {
    const { config } = this.#pods.meshOf(pod);
    const isStrict = hasPort(config.requireIdentityPorts, port);
    const policy = isStrict ? requireIdentity(config.defaultInboundPolicy) : config.defaultInboundPolicy;
    const protocol = hasPort(config.opaquePorts, port) ? 'opaque' : 'detect';
    return {
      kind: 'server',
      reference: { kind: 'default', name: policy },
      protocol,
      authorizations: defaultAuthorizations(policy, this.#config),
      routes: this.#routes(pod, port, protocol),
    };
  }

  /** While nobody attached routes: one for everything, and one that lets the kubelet's HTTP probes in. */
  #routes(pod: PodRecord, port: number, protocol: InboundProtocol): InboundRoute[] {
    if (protocol === 'opaque' || protocol === 'tls') return [];
    const everything: InboundRoute = {
      reference: { kind: 'default', name: 'default' },
      authorizations: [],
      matches: [{ path: { kind: 'prefix', value: '/' }, method: null }],
    };
    const paths = new Set(pod.probes.filter((probe) => probe.port === port).map(({ path }) => path.split('?')[0]!));
    if (paths.size === 0 || protocol === 'grpc') return [everything];
    const reference = { kind: 'default', name: 'probe' } as const;
    const matches = [...paths].sort().map((value): RouteMatch => ({ path: { kind: 'exact', value }, method: 'GET' }));
    return [everything, { reference, authorizations: [openTo(this.#config.probeNetworks, reference)], matches }];
  }
}
