import { describe, expect, test } from 'vitest';
import { FakeClock } from '#lib/clock.ts';
import { EXPOSITION_CHUNK_CHARS, renderLabels } from './exposition.ts';
import { FAMILIES } from './families.ts';
import { RESPONSE_KINDS_MAX } from './http-metrics.ts';
import { Metrics } from './metrics.ts';
import { NO_GRPC_STATUS } from './recorder.ts';
import { REGISTRY_LIMITS } from './registry.ts';

const make = (limits = {}) => {
  const clock = new FakeClock();
  return { clock, metrics: new Metrics(clock, { ...REGISTRY_LIMITS, ...limits }) };
};
const text = (metrics: Metrics) => [...metrics.scrape()].join('');
const lines = (metrics: Metrics, start: string) =>
  text(metrics)
    .split('\n')
    .filter((line) => line.startsWith(start));

describe('exposition', () => {
  test('has names, labels and buckets of the field', () => {
    const { metrics } = make();
    metrics.setPodLabels({ namespace: 'shop', pod: 'web-1', deployment: 'web' });
    const http = metrics.http('inbound', { target_addr: '10.0.0.1:80', tls: 'true', client_id: 'a.b' });
    http.request();
    http.request();
    http.latency(200, 0.4);
    http.latency(200, 45);
    http.response(200, 'success', NO_GRPC_STATUS, '');
    http.response(503, 'failure', NO_GRPC_STATUS, 'unclassified');
    expect(text(metrics)).toMatchInlineSnapshot(`
      "# HELP heddle_worker_series Series in this exposition
      # TYPE heddle_worker_series gauge
      heddle_worker_series{namespace="shop",pod="web-1",deployment="web"} 6
      # HELP heddle_worker_series_overflows_total Total count of label sets that found no room
      # TYPE heddle_worker_series_overflows_total counter
      heddle_worker_series_overflows_total{namespace="shop",pod="web-1",deployment="web"} 0
      # HELP request_total Total count of HTTP requests
      # TYPE request_total counter
      request_total{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",namespace="shop",pod="web-1",deployment="web"} 2
      # HELP response_latency_ms Milliseconds from a request to the first frame of its response
      # TYPE response_latency_ms histogram
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="1"} 1
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="2"} 1
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="3"} 1
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="4"} 1
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="5"} 1
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="10"} 1
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="20"} 1
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="30"} 1
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="40"} 1
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="50"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="100"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="200"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="300"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="400"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="500"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="1000"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="2000"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="3000"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="4000"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="5000"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="10000"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="20000"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="30000"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="40000"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="50000"} 2
      response_latency_ms_bucket{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web",le="+Inf"} 2
      response_latency_ms_sum{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web"} 45.4
      response_latency_ms_count{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",namespace="shop",pod="web-1",deployment="web"} 2
      # HELP response_total Total count of HTTP responses
      # TYPE response_total counter
      response_total{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="200",classification="success",grpc_status="",error="",namespace="shop",pod="web-1",deployment="web"} 1
      response_total{direction="inbound",target_addr="10.0.0.1:80",tls="true",client_id="a.b",status_code="503",classification="failure",grpc_status="",error="unclassified",namespace="shop",pod="web-1",deployment="web"} 1
      "
    `);
  });

  test('sorts families, each once', () => {
    const { metrics } = make();
    for (const { name, kind } of FAMILIES) if (kind !== 'histogram') metrics.gauge(name).set(1);
    const names = lines(metrics, '# TYPE').map((line) => line.split(' ')[2]);
    expect(names).toEqual([...new Set(names)].sort());
    expect(names.length).toBe(FAMILIES.filter(({ kind }) => kind !== 'histogram').length);
  });

  test('escapes values and renames labels of the pod that collide', () => {
    const { metrics } = make();
    metrics.setPodLabels({ direction: 'x', dst_pod: 'y', pod: 'a"b\\c\nd' });
    metrics.counter('request_total', { direction: 'inbound' }).add(1);
    expect(lines(metrics, 'request_total')).toEqual([
      'request_total{direction="inbound",exported_direction="x",exported_dst_pod="y",pod="a\\"b\\\\c\\nd"} 1',
    ]);
  });

  test('keeps a label of the pod that collides in one family only', () => {
    const { metrics } = make();
    metrics.setPodLabels({ version: 'v1' });
    metrics.gauge('proxy_build_info', { version: '2' }).set(1);
    metrics.counter('request_total', {}).add(1);
    expect([...lines(metrics, 'proxy_build_info'), ...lines(metrics, 'request_total')]).toEqual([
      'proxy_build_info{version="2",exported_version="v1"} 1',
      'request_total{version="v1"} 1',
    ]);
  });

  test('comes in bounded pieces that make up the whole', () => {
    const { metrics } = make();
    for (let index = 0; index < 1500; index++)
      metrics.counter('request_total', { target_addr: `10.0.0.1:${index}` }).add(1);
    const chunks = [...metrics.scrape()];
    expect(chunks.length).toBeGreaterThan(1);
    expect(Math.max(...chunks.map((chunk) => chunk.length))).toBeLessThan(EXPOSITION_CHUNK_CHARS + 8192);
    expect(chunks.join('').match(/^request_total\{/gm)?.length).toBe(1500);
  });

  test('renders labels in the order given', () => {
    expect(renderLabels({ b: '1', a: '2' })).toBe('b="1",a="2"');
  });
});

describe('histograms', () => {
  test('count a value in the first bucket that holds it, bounds included', () => {
    const { metrics } = make();
    const http = metrics.http('outbound', {});
    for (const latency of [0, 1, 1.5, 50_000, 50_001]) http.latency(200, latency);
    const buckets = lines(metrics, 'response_latency_ms_bucket').map((line) => Number(line.split(' ')[1]));
    expect([buckets[0], buckets[1], buckets.at(-2), buckets.at(-1)]).toEqual([2, 3, 4, 5]);
    expect(lines(metrics, 'response_latency_ms_count')[0]).toMatch(/ 5$/);
    expect(lines(metrics, 'response_latency_ms_sum')[0]).toMatch(/ 100003\.5$/);
  });
});

test('numbers survive when their array grows under them', () => {
  const { metrics } = make();
  for (let index = 0; index < 200; index++) {
    metrics.http('outbound', { authority: `${index}` }).latency(200, 7);
    metrics.gauge('process_open_fds', { of: `${index}` }).set(index);
  }
  expect(lines(metrics, 'response_latency_ms_sum').filter((line) => !line.endsWith(' 7'))).toEqual([]);
  expect(lines(metrics, 'process_open_fds').map((line) => Number(line.split(' ')[1]))).toEqual(
    Array.from({ length: 200 }, (_, index) => index),
  );
});

describe('transports', () => {
  test('read bytes from open streams and settle them once', () => {
    const { metrics } = make();
    const recorder = metrics.transport('inbound', 'src', { tls: 'true' });
    const stream = { bytesRead: 10, bytesWritten: 5 };
    const close = recorder.opened(stream);
    expect(lines(metrics, 'tcp_read_bytes_total')[0]).toMatch(/ 10$/);
    stream.bytesRead = 25;
    close('ECONNRESET');
    close('ECONNRESET');
    recorder.failed('ECONNREFUSED');
    expect(
      lines(metrics, 'tcp_').map((line) => line.replace('direction="inbound",peer="src",tls="true"', '…')),
    ).toEqual([
      'tcp_close_total{…,errno="ECONNRESET"} 1',
      'tcp_close_total{…,errno="ECONNREFUSED"} 1',
      'tcp_open_connections{…} 0',
      'tcp_open_total{…} 2',
      'tcp_read_bytes_total{…} 25',
      'tcp_write_bytes_total{…} 5',
    ]);
  });
});

describe('bounds', () => {
  test('what does not fit a family is counted in its overflow series', () => {
    const { metrics } = make({ seriesPerFamilyMax: 3 });
    for (let index = 0; index < 10; index++) metrics.counter('request_total', { authority: `${index}` }).add(1);
    expect(lines(metrics, 'request_total')).toEqual([
      'request_total{authority="0"} 1',
      'request_total{authority="1"} 1',
      'request_total{authority="2"} 1',
      'request_total{overflow="true"} 7',
    ]);
    expect(lines(metrics, 'heddle_worker_series_overflows_total')[0]).toMatch(/ 7$/);
  });

  test('all families together have a bound too', () => {
    const { metrics } = make({ seriesMax: 12 });
    for (let index = 0; index < 100; index++) {
      metrics.counter('request_total', { authority: `${index}` }).add(1);
      metrics.counter('response_total', { authority: `${index}` }).add(1);
    }
    expect(
      Number(
        lines(metrics, 'heddle_worker_series{')[0]?.split(' ')[1] ??
          lines(metrics, 'heddle_worker_series ')[0]?.split(' ')[1],
      ),
    ).toBeLessThanOrEqual(14);
  });

  test('a server that invents statuses fills one series at most', () => {
    const { metrics } = make();
    const http = metrics.http('outbound', {});
    for (let status = 100; status < 600; status++) http.response(status, 'success', NO_GRPC_STATUS, '');
    expect(lines(metrics, 'response_total').length).toBe(RESPONSE_KINDS_MAX + 1);
    expect(lines(metrics, 'response_total{direction="outbound",overflow')[0]).toMatch(/ 436$/);
  });

  test('gRPC statuses that do not exist are Unknown', () => {
    const { metrics } = make();
    metrics.http('outbound', {}).response(200, 'failure', 999, '');
    expect(lines(metrics, 'response_total')[0]).toContain('grpc_status="2"');
  });
});

describe('idle series', () => {
  test('go after ten minutes, come back from zero, and keep others intact', () => {
    const { clock, metrics } = make();
    const idle = metrics.counter('request_total', { authority: 'idle' });
    const busy = metrics.counter('request_total', { authority: 'busy' });
    idle.add(5);
    for (let minute = 0; minute < 12; minute++) {
      busy.add(1);
      clock.advance(60_000);
    }
    expect(lines(metrics, 'request_total')).toEqual(['request_total{authority="busy"} 12']);
    const fresh = metrics.counter('request_total', { authority: 'fresh' });
    fresh.add(1);
    idle.add(2);
    expect(lines(metrics, 'request_total')).toEqual([
      'request_total{authority="busy"} 12',
      'request_total{authority="fresh"} 1',
      'request_total{authority="idle"} 2',
    ]);
  });

  test('stay while a gauge says that something is open', () => {
    const { clock, metrics } = make();
    const recorder = metrics.transport('inbound', 'src', {});
    const close = recorder.opened({ bytesRead: 0, bytesWritten: 0 });
    clock.advance(3_600_000);
    expect(lines(metrics, 'tcp_open_connections')[0]).toMatch(/ 1$/);
    close('');
    clock.advance(3_600_000);
    expect(lines(metrics, 'tcp_open_connections')).toEqual([]);
  });

  test('of the process never go', () => {
    const { clock, metrics } = make();
    metrics.gauge('proxy_build_info', { version: '1' }).set(1);
    clock.advance(3_600_000);
    expect(lines(metrics, 'proxy_build_info')).toEqual(['proxy_build_info{version="1"} 1']);
  });
});
