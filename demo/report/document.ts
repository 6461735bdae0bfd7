// The one document of `make demo ONCE=1`, and the judgement over it: every edge of the checked-in list there, secured,
// and without a failure by the metrics of both ends. Pure.

import type { Edge, PeerView } from './edges.ts';

export interface PodReport {
  name: string;
  meshed: boolean;
  /** Null for a pod that nothing redirects. */
  redirect: string | null;
  /** Proportional memory of its worker; null without one. */
  workerPssKiB: number | null;
}

export interface DemoDocument {
  pods: PodReport[];
  edges: Omit<Edge, 'peers'>[];
  agentRssKiB: number;
  failures: string[];
}

export interface ExpectedEdge {
  client: string;
  server: string;
  protocol: 'http' | 'tcp';
}

/** Requests under way when the ends are read differ by this much at most, beside a twentieth of all. */
const IN_FLIGHT = 20;

/** What is wrong with the edges, in sentences; empty when all is well. */
export function judgeEdges(edges: readonly Edge[], expected: readonly ExpectedEdge[]): string[] {
  return expected.flatMap((wanted) => {
    const { client, server, protocol } = wanted;
    const edge = edges.find(
      (candidate) => candidate.client === client && candidate.server === server && candidate.protocol === protocol,
    );
    const name = `${client} -> ${server} (${protocol})`;
    return edge ? judgeEdge(name, edge) : [`edge ${name} is not in the metrics`];
  });
}

function judgeEdge(name: string, edge: Edge): string[] {
  const { client, server } = edge.peers;
  const faults = [
    ...judgePeer(`edge ${name}: the client's proxy`, client),
    ...judgePeer(`edge ${name}: the server's proxy`, server),
  ];
  if (client && server && Math.abs(client.total - server.total) > IN_FLIGHT + client.total / 20) {
    faults.push(`edge ${name}: the client's proxy counted ${client.total}, the server's ${server.total}`);
  }
  return faults;
}

function judgePeer(who: string, view: PeerView | null): string[] {
  if (!view) return [`${who} counted nothing`];
  const faults: string[] = [];
  if (!view.secured) faults.push(`${who} saw traffic without TLS`);
  if (view.peerId === '') faults.push(`${who} did not see an identity`);
  if (view.succeeded !== view.total)
    faults.push(`${who} counted ${view.total - view.succeeded} failures of ${view.total}`);
  return faults;
}

/** The document as it is printed: figures rounded, the ends' own counts left out. */
export function makeDocument(parts: {
  pods: PodReport[];
  edges: readonly Edge[];
  agentRssKiB: number;
  failures: string[];
}): DemoDocument {
  return {
    pods: parts.pods,
    edges: parts.edges.map(({ peers: _peers, ...edge }) => ({
      ...edge,
      successRate: round(edge.successRate, 6),
      p50Ms: edge.p50Ms === null ? null : round(edge.p50Ms, 3),
      p99Ms: edge.p99Ms === null ? null : round(edge.p99Ms, 3),
    })),
    agentRssKiB: Math.round(parts.agentRssKiB),
    failures: parts.failures,
  };
}

function round(value: number, digits: number): number {
  const factor = 10 ** digits;
  // Down: a rate below one must not be rounded to one.
  return Math.floor(value * factor) / factor;
}
