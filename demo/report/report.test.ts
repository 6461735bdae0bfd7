import { describe, expect, test } from 'vitest';
import { judgeEdges, makeDocument } from './document.ts';
import { computeEdges, type Edge, UNMESHED } from './edges.ts';
import { parseExposition } from './exposition.ts';
import { histogramQuantile, type Scrape, Window } from './scrape.ts';
import { formatEdges, formatTable, formatWorkloads } from './table.ts';
import { computeWorkloads } from './workloads.ts';

const id = (name: string): string => `${name}.shop.serviceaccount.identity.heddle.cluster.local`;
const WORKLOADS = ['customers', 'front', 'redis'].map((name) => ({ name: `shop/${name}`, identity: id(name) }));

/** What customers' and front's proxies write after `n` requests, `failed` of them seen to fail by the client's. */
function exposition(n: number, options: { failed?: number; tls?: string; serverTls?: string } = {}): string {
  const { failed = 0, tls = 'true', serverTls = 'true' } = options;
  const out = `direction="outbound",namespace="shop",deployment="customers",pod="c-1",dst_namespace="shop",dst_deployment="front",tls="${tls}",server_id="${id('front')}"`;
  const in_ = `direction="inbound",namespace="shop",deployment="front",pod="f-1",tls="${serverTls}",client_id="${id('customers')}"`;
  return [
    '# HELP response_total Responses',
    '# TYPE response_total counter',
    `response_total{${out},status_code="200",classification="success"} ${n - failed}`,
    `response_total{${out},status_code="502",classification="failure"} ${failed}`,
    `response_total{${in_},status_code="200",classification="success"} ${n}`,
    `response_latency_ms_bucket{${out},le="1"} ${n / 2}`,
    `response_latency_ms_bucket{${out},le="2"} ${n}`,
    `response_latency_ms_bucket{${out},le="+Inf"} ${n}`,
    `response_latency_ms_bucket{${in_},le="1"} ${n}`,
    `response_latency_ms_bucket{${in_},le="+Inf"} ${n}`,
    `tcp_open_total{peer="dst",${out}} 3`,
    `tcp_open_total{peer="src",${in_}} 3`,
    `tcp_open_connections{peer="src",${in_}} 2`,
    '',
  ].join('\n');
}

function redis(opened: number, broken: number): string {
  const out = `direction="outbound",peer="dst",namespace="shop",deployment="front",dst_namespace="shop",dst_deployment="redis",tls="true",server_id="${id('redis')}"`;
  const in_ = `direction="inbound",peer="src",namespace="shop",deployment="redis",tls="true",client_id="${id('front')}"`;
  return [
    `tcp_open_total{${out}} ${opened}`,
    `tcp_open_total{${in_}} ${opened}`,
    `tcp_close_total{${out},errno=""} ${opened - broken}`,
    `tcp_close_total{${in_},errno="ECONNRESET"} ${broken}`,
    '',
  ].join('\n');
}

function scrape(text: string, atMs = 0): Scrape {
  return { atMs, samples: parseExposition(text) };
}

function edges(text: string): Edge[] {
  return computeEdges(new Window(scrape(text), null), WORKLOADS);
}

describe('the text format', () => {
  test('is read with escapes, without labels, with every number', () => {
    const text = '# a comment\nup 1\nx{a="q\\"\\\\\\n",b=""} +Inf\ny{c="1,2}"} 1.5e3 1700000000\nz NaN\n';
    expect(parseExposition(text)).toEqual([
      { name: 'up', labels: {}, value: 1 },
      { name: 'x', labels: { a: 'q"\\\n', b: '' }, value: Number.POSITIVE_INFINITY },
      { name: 'y', labels: { c: '1,2}' }, value: 1500 },
      { name: 'z', labels: {}, value: Number.NaN },
    ]);
  });

  test.each(['no value', 'x{a=1} 2', 'x{a="1"', 'x one', '{a="1"} 2'])('that is none is an error: %s', (line) => {
    expect(() => parseExposition(`${line}\n`)).toThrow(expect.objectContaining({ code: 'bad-exposition' }));
  });
});

describe('a quantile', () => {
  const buckets = new Map([
    [1, 10],
    [2, 30],
    [10, 40],
    [Number.POSITIVE_INFINITY, 40],
  ]);

  test.each([
    [0.25, 1],
    [0.5, 1.5],
    [0.75, 2],
    [0.99, 9.68],
    [1, 10],
  ])('%d is %d', (quantile, value) => {
    expect(histogramQuantile(buckets, quantile)).toBeCloseTo(value, 6);
  });

  test('in the open bucket is its lower bound, and without observations nothing', () => {
    expect(
      histogramQuantile(
        new Map([
          [1, 0],
          [Number.POSITIVE_INFINITY, 5],
        ]),
        0.5,
      ),
    ).toBe(1);
    expect(
      histogramQuantile(
        new Map([
          [1, 0],
          [Number.POSITIVE_INFINITY, 0],
        ]),
        0.5,
      ),
    ).toBeNull();
    expect(histogramQuantile(new Map(), 0.5)).toBeNull();
  });
});

describe('a window', () => {
  test('holds what counters grew by, and from zero where one began again', () => {
    const window = new Window(
      scrape('a{x="1"} 12\na{x="2"} 3\na{x="3"} 4\n', 5000),
      scrape('a{x="1"} 10\na{x="2"} 9\n', 0),
    );
    expect(window.increases('a').map(({ value }) => value)).toEqual([2, 3, 4]);
    expect(window.gauges('a').map(({ value }) => value)).toEqual([12, 3, 4]);
    expect(window.seconds).toBe(5);
  });
});

describe('edges', () => {
  test('are joined from both ends', () => {
    const [edge] = edges(exposition(100));
    expect(edge).toMatchObject({
      client: 'shop/customers',
      server: 'shop/front',
      protocol: 'http',
      secured: true,
      clientId: id('customers'),
      serverId: id('front'),
      requests: 100,
      successRate: 1,
      p50Ms: 1,
    });
    expect(edge!.p99Ms).toBeCloseTo(1.98, 6);
  });

  test('are only as good as the worse end says', () => {
    expect(edges(exposition(100, { failed: 10 }))[0]).toMatchObject({ requests: 100, successRate: 0.9 });
    expect(edges(exposition(100, { tls: 'no_identity' }))[0]).toMatchObject({ secured: false });
    expect(edges(exposition(100, { serverTls: 'no_tls_from_remote' }))[0]).toMatchObject({ secured: false });
  });

  test('of opaque connections count connections and their errors', () => {
    const tcp = edges(exposition(10) + redis(20, 0)).filter(({ protocol }) => protocol === 'tcp');
    expect(tcp).toHaveLength(1);
    expect(tcp[0]).toMatchObject({
      client: 'shop/front',
      server: 'shop/redis',
      secured: true,
      requests: 20,
      successRate: 1,
    });
    expect(edges(redis(20, 1))[0]).toMatchObject({ successRate: 0.95 });
  });

  test('from clients without an identity are shown as such', () => {
    const line =
      'response_total{direction="inbound",namespace="shop",deployment="front",tls="no_tls_from_remote",classification="success"} 7\n';
    expect(edges(line)[0]).toMatchObject({
      client: UNMESHED,
      server: 'shop/front',
      secured: false,
      clientId: '',
      requests: 7,
    });
  });

  test('leave out what the node probes', () => {
    const probe = 'response_total{direction="inbound",namespace="shop",deployment="front",route_name="probe"} 7\n';
    expect(edges(probe)).toEqual([]);
    const labels = 'direction="inbound",namespace="shop",deployment="front",target_addr="10.0.0.1:80"';
    const opened = `tcp_open_total{peer="src",${labels}} 7\n`;
    expect(edges(opened)).toMatchObject([{ client: UNMESHED, protocol: 'tcp' }]);
    expect(edges(`${opened}response_total{${labels},route_name="probe"} 7\n`)).toEqual([]);
  });

  test('that saw nothing in the window are left out', () => {
    const window = new Window(scrape(exposition(100), 1000), scrape(exposition(100), 0));
    expect(computeEdges(window, WORKLOADS)).toEqual([]);
  });
});

describe('the judgement', () => {
  const expected = [{ client: 'shop/customers', server: 'shop/front', protocol: 'http' as const }];

  test('finds nothing wrong with what is right', () => {
    expect(judgeEdges(edges(exposition(100)), expected)).toEqual([]);
  });

  test.each([
    ['an edge that is missing', '', 'edge shop/customers -> shop/front (http) is not in the metrics'],
    [
      'a failure',
      exposition(100, { failed: 1 }),
      "edge shop/customers -> shop/front (http): the client's proxy counted 1 failures of 100",
    ],
    [
      'plain text at the client',
      exposition(9, { tls: 'disabled' }),
      "edge shop/customers -> shop/front (http): the client's proxy saw traffic without TLS",
    ],
    [
      'plain text at the server',
      exposition(9, { serverTls: 'disabled' }),
      "edge shop/customers -> shop/front (http): the server's proxy saw traffic without TLS",
    ],
    [
      'an end that is silent',
      exposition(9).replaceAll('direction="inbound"', 'direction="elsewhere"'),
      "edge shop/customers -> shop/front (http): the server's proxy counted nothing",
    ],
    [
      'an end without an identity',
      exposition(9).replaceAll(/server_id="[^"]*"/g, 'server_id=""'),
      "edge shop/customers -> shop/front (http): the client's proxy did not see an identity",
    ],
  ])('names %s', (_what, text, fault) => {
    expect(judgeEdges(edges(text), expected)).toEqual([fault]);
  });

  test('names ends that counted differently', () => {
    const text = exposition(1000).replace(/(direction="inbound"[^}]*classification="success"} )1000/, '$1500');
    expect(judgeEdges(edges(text), expected)).toEqual([
      "edge shop/customers -> shop/front (http): the client's proxy counted 1000, the server's 500",
    ]);
  });

  test('never rounds a failure away in the document', () => {
    const { edges: shown } = makeDocument({
      pods: [],
      edges: edges(exposition(10_000_000, { failed: 1 })),
      agentRssKiB: 1.5,
      failures: [],
    });
    expect(shown[0]!.successRate).toBe(0.999999);
    expect(shown[0]).not.toHaveProperty('peers');
  });
});

describe('the tables', () => {
  test('show what each workload received', () => {
    const window = new Window(scrape(exposition(150), 10_000), scrape(exposition(50), 0));
    const rows = computeWorkloads(window, [
      { name: 'shop/front', pods: 1, meshed: 1 },
      { name: 'shop/customers', pods: 1, meshed: 1 },
      { name: 'outside/visitors', pods: 2, meshed: 0 },
    ]);
    expect(rows[0]).toMatchObject({ successRate: 1, requestsPerSecond: 10, tcpConnections: 2 });
    expect(formatWorkloads(rows)).toEqual([
      'WORKLOAD          MESHED  SUCCESS  RPS      P50    P95    P99    TCP_CONN',
      'shop/front        1/1     100.00%  10.0rps  0.5ms  0.9ms  1.0ms         2',
      'shop/customers    1/1           -        -      -      -      -         0',
      'outside/visitors  0/2           -        -      -      -      -         -',
    ]);
  });

  test('show who talks to whom', () => {
    expect(formatEdges(edges(exposition(100, { failed: 1 })))).toEqual([
      'CLIENT          SERVER      PROTO  SECURED  SUCCESS  COUNT  CLIENT_ID       SERVER_ID',
      'shop/customers  shop/front  http   yes       99.00%    100  customers.shop  front.shop',
    ]);
  });

  test('are empty but for their header without rows', () => {
    expect(formatTable(['A', 'B'], [])).toEqual(['A  B']);
  });
});
