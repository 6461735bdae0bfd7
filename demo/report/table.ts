// The live table as text. Pure: data in, lines out.

import type { Edge } from './edges.ts';
import type { WorkloadRow } from './workloads.ts';

type Cell = string | number;

const DASH = '-';

/** Columns padded to their widest cell; numbers to the right. */
export function formatTable(header: readonly string[], rows: readonly (readonly Cell[])[]): string[] {
  const widths = header.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => String(row[column] ?? '').length)),
  );
  const line = (cells: readonly Cell[], isHeader: boolean): string =>
    cells
      .map((cell, column) => {
        const isNumeric = !isHeader && /^[\d.]+(%|ms|rps)?$|^-$/.test(String(cell));
        return isNumeric ? String(cell).padStart(widths[column]!) : String(cell).padEnd(widths[column]!);
      })
      .join('  ')
      .trimEnd();
  return [line(header, true), ...rows.map((row) => line(row, false))];
}

export function formatWorkloads(rows: readonly WorkloadRow[]): string[] {
  const header = ['WORKLOAD', 'MESHED', 'SUCCESS', 'RPS', 'P50', 'P95', 'P99', 'TCP_CONN'];
  return formatTable(
    header,
    rows.map((row) => [
      row.name,
      `${row.meshed}/${row.pods}`,
      percent(row.successRate),
      row.requestsPerSecond === null ? DASH : `${row.requestsPerSecond.toFixed(1)}rps`,
      milliseconds(row.p50Ms),
      milliseconds(row.p95Ms),
      milliseconds(row.p99Ms),
      row.tcpConnections ?? DASH,
    ]),
  );
}

export function formatEdges(edges: readonly Edge[]): string[] {
  const header = ['CLIENT', 'SERVER', 'PROTO', 'SECURED', 'SUCCESS', 'COUNT', 'CLIENT_ID', 'SERVER_ID'];
  return formatTable(
    header,
    edges.map((edge) => [
      edge.client,
      edge.server,
      edge.protocol,
      edge.secured ? 'yes' : 'NO',
      percent(edge.successRate),
      edge.requests,
      shortIdentity(edge.clientId),
      shortIdentity(edge.serverId),
    ]),
  );
}

function percent(ratio: number | null): string {
  if (ratio === null) return DASH;
  // Never round a failure away.
  const shown = ratio < 1 ? Math.min(ratio * 100, 99.99) : 100;
  return `${shown.toFixed(2)}%`;
}

function milliseconds(value: number | null): string {
  if (value === null) return DASH;
  return value < 10 ? `${value.toFixed(1)}ms` : `${Math.round(value)}ms`;
}

/** `<sa>.<ns>` of `<sa>.<ns>.serviceaccount.identity.<control-plane ns>.<trust domain>`. */
function shortIdentity(identity: string): string {
  return identity === '' ? DASH : identity.replace(/\.serviceaccount\.identity\..*$/, '');
}
