// What load-program.ts is told and what it reports, and the shape of a load in one line.

export type LoadProtocol = 'http' | 'tcp';

export interface LoadOptions {
  /** Asked in turn. */
  hosts: string[];
  /** Ports of an HTTP server and of a TCP server that sends back what it gets; those that are there, in turn. */
  ports: Partial<Record<LoadProtocol, number>>;
  /** Half of them on new connections, the other half on a few that stay open. */
  perSecond: number;
}

/** A request without its right answer. Times are milliseconds of the clock that all programs share. */
export interface LoadFailure {
  what: string;
  protocol: LoadProtocol;
  isOnNewConnection: boolean;
  /** When the connection was asked for. */
  connectionStartedMs: number;
  requestStartedMs: number;
  failedMs: number;
}

export interface LoadReport {
  sent: number;
  /** Answered with the status, the number and every byte of the body that were expected. */
  ok: number;
  failures: LoadFailure[];
  onNewConnections: number;
  /** How many of those sent, and connections that were opened for them. */
  requests: Record<LoadProtocol, number>;
  connections: Record<LoadProtocol, number>;
  /** Connections that stay open, and requests that waited for their answer at the same time at most. */
  keptConnections: number;
  unansweredMax: number;
  seconds: number;
  perSecond: number;
  slowestMs: number;
}

export type LoadCommand = { op: 'start'; options: LoadOptions } | { op: 'progress' } | { op: 'stop' };

/** The counts, for people. */
export function describeLoad(what: string, report: LoadReport): string {
  const { sent, ok, failures, onNewConnections, requests, connections, perSecond, slowestMs } = report;
  const causes = [...new Set(failures.map((failure) => `${failure.protocol}: ${failure.what}`))].join('; ');
  return (
    `${what}: ${sent} sent (${requests.http} http, ${requests.tcp} tcp), ${ok} ok, ${failures.length} failed` +
    `${causes && ` (${causes})`}; ${onNewConnections} on new connections, ${connections.http + connections.tcp} ` +
    `connections; ${perSecond.toFixed(0)}/s, slowest ${slowestMs.toFixed(0)} ms`
  );
}
