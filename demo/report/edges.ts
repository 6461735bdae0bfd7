// Who talks to whom, from the metrics of both ends. The client's proxy knows the server by discovery (`dst_*` labels)
// and by the identity it verified (`server_id`); the server's knows the client by the identity it verified
// (`client_id`). An edge is secured when both say TLS. Pure.

import type { Labels, Sample } from './exposition.ts';
import { bucketsOf, histogramQuantile, type Window } from './scrape.ts';

/** A workload as the manifests name it. */
export interface Workload {
  /** `namespace/name`. */
  name: string;
  /** DNS form of its ServiceAccount's identity. */
  identity: string;
}

export interface Edge {
  client: string;
  server: string;
  protocol: 'http' | 'tcp';
  secured: boolean;
  clientId: string;
  serverId: string;
  /** HTTP requests, or TCP connections. */
  requests: number;
  successRate: number;
  p50Ms: number | null;
  p99Ms: number | null;
  peers: { client: PeerView | null; server: PeerView | null };
}

/** What one end counted. */
export interface PeerView {
  total: number;
  succeeded: number;
  secured: boolean;
  /** The identity of the other end; empty when it has none. */
  peerId: string;
}

/** Clients that show no identity. */
export const UNMESHED = '(unmeshed)';

const WORKLOAD_KINDS = ['deployment', 'statefulset', 'daemonset', 'replicaset', 'k8s_job', 'pod'];

/** `namespace/name` of the workload that a series is about; `prefix` is `dst_` for the other end. */
export function workloadOf(labels: Labels, prefix: '' | 'dst_' = ''): string | null {
  const namespace = labels[`${prefix}namespace`];
  const name = WORKLOAD_KINDS.map((kind) => labels[`${prefix}${kind}`]).find(
    (value) => value !== undefined && value !== '',
  );
  return namespace && name ? `${namespace}/${name}` : null;
}

interface Pair {
  client: string;
  server: string;
}

const isOutbound = ({ direction }: Labels): boolean => direction === 'outbound';
/** The node's own probes are no traffic of anybody. */
const isInbound = ({ direction, route_name }: Labels): boolean => direction === 'inbound' && route_name !== 'probe';

/** Every edge in the window, HTTP first, in the order of their names. */
export function computeEdges(window: Window, workloads: readonly Workload[]): Edge[] {
  const byIdentity = new Map(workloads.map(({ name, identity }) => [identity, name]));
  const clientPair = (labels: Labels): Pair | null => {
    const client = workloadOf(labels);
    const server = workloadOf(labels, 'dst_');
    return isOutbound(labels) && client && server ? { client, server } : null;
  };
  const serverPair = (labels: Labels): Pair | null => {
    const server = workloadOf(labels);
    const client = labels.client_id ? (byIdentity.get(labels.client_id) ?? labels.client_id) : UNMESHED;
    return isInbound(labels) && server ? { client, server } : null;
  };
  const http = httpEdges(window, clientPair, serverPair);
  const tcp = tcpEdges(window, clientPair, serverPair).filter(
    // The connections of an HTTP edge are no edge of their own.
    ({ client, server }) => !http.some((edge) => edge.client === client && edge.server === server),
  );
  const order = (a: Edge, b: Edge): number => (`${a.client} ${a.server}` < `${b.client} ${b.server}` ? -1 : 1);
  return [...http.sort(order), ...tcp.sort(order)].filter(({ requests }) => requests > 0);
}

type PairOf = (labels: Labels) => Pair | null;

function httpEdges(window: Window, clientPair: PairOf, serverPair: PairOf): Edge[] {
  const responses = window.increases('response_total');
  const isSuccess = ({ classification }: Labels): boolean => classification === 'success';
  const clients = views(responses, clientPair, 'server_id', isSuccess);
  const servers = views(responses, serverPair, 'client_id', isSuccess);
  const latency = window.increases('response_latency_ms_bucket');
  return join(clients, servers, 'http').map((edge) => {
    // An unmeshed client measures nothing: the server's proxy did.
    const pairOf = edge.peers.client ? clientPair : serverPair;
    const buckets = bucketsOf(latency, (labels) => {
      const pair = pairOf(labels);
      return pair?.client === edge.client && pair.server === edge.server;
    });
    return { ...edge, p50Ms: histogramQuantile(buckets, 0.5), p99Ms: histogramQuantile(buckets, 0.99) };
  });
}

/** Connections: all that opened, less those that ended with an error. */
function tcpEdges(window: Window, clientPair: PairOf, serverPair: PairOf): Edge[] {
  // Connections to a port that speaks HTTP are counted by what they carry, the node's probes among them not at all.
  const httpAddresses = new Set(
    window
      .gauges('response_total')
      .flatMap(({ labels }) => (labels.direction === 'inbound' ? (labels.target_addr ?? []) : [])),
  );
  const opened = window
    .increases('tcp_open_total')
    .filter(({ labels }) => labels.direction !== 'inbound' || !httpAddresses.has(labels.target_addr ?? ''));
  const broken = window.increases('tcp_close_total').filter(({ labels }) => (labels.errno ?? '') !== '');
  const only =
    (pairOf: PairOf, peer: string): PairOf =>
    (labels) =>
      labels.peer === peer ? pairOf(labels) : null;
  const outward = only(clientPair, 'dst');
  const inward = only(serverPair, 'src');
  const clients = views(opened, outward, 'server_id', () => true);
  const servers = views(opened, inward, 'client_id', () => true);
  subtract(clients, broken, outward);
  subtract(servers, broken, inward);
  return join(clients, servers, 'tcp');
}

const keyOf = ({ client, server }: Pair): string => JSON.stringify([client, server]);

interface View extends PeerView {
  pair: Pair;
}

function views(
  samples: readonly Sample[],
  pairOf: PairOf,
  peerLabel: string,
  isSuccess: (labels: Labels) => boolean,
): Map<string, View> {
  const found = new Map<string, View>();
  for (const { labels, value } of samples) {
    const pair = pairOf(labels);
    if (!pair || value === 0) continue;
    const key = keyOf(pair);
    const view = found.get(key) ?? { pair, total: 0, succeeded: 0, secured: true, peerId: '' };
    view.total += value;
    if (isSuccess(labels)) view.succeeded += value;
    view.secured &&= labels.tls === 'true';
    view.peerId ||= labels[peerLabel] ?? '';
    found.set(key, view);
  }
  return found;
}

function subtract(into: Map<string, View>, failures: readonly Sample[], pairOf: PairOf): void {
  for (const { labels, value } of failures) {
    const pair = pairOf(labels);
    const view = pair && into.get(keyOf(pair));
    if (view) view.succeeded -= value;
  }
}

function join(clients: Map<string, View>, servers: Map<string, View>, protocol: Edge['protocol']): Edge[] {
  return [...new Set([...clients.keys(), ...servers.keys()])].map((key) => {
    const client = clients.get(key) ?? null;
    const server = servers.get(key) ?? null;
    const rates = [client, server].flatMap((view) => (view ? [view.succeeded / view.total] : []));
    return {
      ...(client ?? server)!.pair,
      protocol,
      secured: client?.secured === true && server?.secured === true,
      clientId: server?.peerId ?? '',
      serverId: client?.peerId ?? '',
      requests: (client ?? server)!.total,
      successRate: Math.min(...rates),
      p50Ms: null,
      p99Ms: null,
      peers: { client: withoutPair(client), server: withoutPair(server) },
    };
  });
}

function withoutPair(view: View | null): PeerView | null {
  return view && { total: view.total, succeeded: view.succeeded, secured: view.secured, peerId: view.peerId };
}
