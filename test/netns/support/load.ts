// What load-program.ts is told and what it reports, and the shape of a load in one line.

export interface LoadOptions {
  protocol: 'http' | 'tcp';
  /** Asked in turn. */
  hosts: string[];
  port: number;
  /** Half of them on new connections, the other half on a few that stay open. */
  perSecond: number;
}

/** A request without its right answer. Times are milliseconds of the clock that all programs share. */
export interface LoadFailure {
  what: string;
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
  /** Connections that were opened in all. */
  connections: number;
  seconds: number;
  perSecond: number;
  slowestMs: number;
}

export type LoadCommand = { op: 'start'; options: LoadOptions } | { op: 'progress' } | { op: 'stop' };

/** The counts, for people. */
export function describeLoad(what: string, report: LoadReport): string {
  const { sent, ok, failures, onNewConnections, connections, perSecond, slowestMs } = report;
  const causes = [...new Set(failures.map((failure) => failure.what))].join('; ');
  return (
    `${what}: ${sent} sent, ${ok} ok, ${failures.length} failed${causes && ` (${causes})`}; ${onNewConnections} on new ` +
    `connections, ${connections} connections; ${perSecond.toFixed(0)}/s, slowest ${slowestMs.toFixed(0)} ms`
  );
}
