import { describe, expect, test } from 'vitest';
import { formatAims, stateAims } from './aims.ts';
import type { Row } from './row.ts';

function row(testName: string, system: string, measures: Partial<Row> = {}): Row {
  return { test: testName, system, cpuUsPerRequest: 10, p50Ms: 1, p99Ms: 2, pssKiB: 20_000, ...measures };
}

function find(rows: Row[], aim: string) {
  const found = stateAims(rows).find((stated) => stated.aim === aim);
  expect(found).toBeDefined();
  return found!;
}

describe('aims', () => {
  test('CPU is at most the bound times the peer', () => {
    const rows = [row('http1-16', 'haproxy'), row('http1-16', 'heddle', { cpuUsPerRequest: 11.5 })];
    expect(find(rows, 'CPU of http1-16, haproxy')).toMatchObject({ ratio: 1.15, isMet: true });
    rows[1] = row('http1-16', 'heddle', { cpuUsPerRequest: 11.6 });
    expect(find(rows, 'CPU of http1-16, haproxy')).toMatchObject({ ratio: 1.16, isMet: false });
  });

  test('throughput and connections are at least the bound', () => {
    const rows = [
      row('tcp', 'haproxy', { gbps: 2 }),
      row('tcp', 'heddle', { gbps: 1.9 }),
      row('connections', 'haproxy', { rps: 100, opaqueRps: 50 }),
      row('connections', 'heddle', { rps: 170, opaqueRps: 50 }),
    ];
    expect(find(rows, 'throughput of tcp, haproxy')).toMatchObject({ ratio: 0.95, isMet: false });
    expect(find(rows, 'new connections per second by HTTP, haproxy')).toMatchObject({ ratio: 1.7, isMet: true });
    expect(find(rows, 'new opaque connections per second, haproxy')).toMatchObject({ ratio: 1, isMet: true });
  });

  test('latency is what a system adds to the direct way', () => {
    const rows = [
      row('rate-1000', 'direct', { p50Ms: 1, p99Ms: 2 }),
      row('rate-1000', 'haproxy', { p50Ms: 2, p99Ms: 2 }),
      row('rate-1000', 'heddle', { p50Ms: 2.5, p99Ms: 3 }),
    ];
    expect(find(rows, 'p50 added at 1,000 per second, haproxy')).toMatchObject({ ratio: 1.5, isMet: false });
    // A peer that adds nothing cannot be compared with.
    expect(find(rows, 'p99 added at 1,000 per second, haproxy')).toMatchObject({ ratio: null, isMet: false });
  });

  test('memory is the largest of all tests', () => {
    const rows = [row('http2', 'heddle', { pssKiB: 13_312 }), row('tcp', 'heddle', { pssKiB: 53_248 })];
    const stated = find(rows, 'proportional memory of a worker, 26 MiB');
    expect(stated).toMatchObject({ ratio: 2, isMet: false });
  });

  test('Envoy is compared on every test, and what is missing is unknown, not met', () => {
    const stated = find(
      [row('grpc-stream', 'heddle'), row('grpc-stream', 'envoy', { cpuUsPerRequest: null })],
      'CPU of grpc-stream, envoy',
    );
    expect(stated).toMatchObject({ ratio: null, isMet: false });
    expect(formatAims([stated])).toMatch(/UNKNOWN$/);
  });

  test('a row without its memory makes the memory unknown', () => {
    expect(find([row('http2', 'heddle', { pssKiB: null })], 'proportional memory of a worker, 26 MiB').isMet).toBe(
      false,
    );
  });
});
