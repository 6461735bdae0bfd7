// The outbound proxy as a whole, in memory: applications, servers and a control plane around it, time by hand.

import { describe, expect, test } from 'vitest';
import { WatchKind } from '#api/worker-link.ts';
import { FakeClock } from '#lib/clock.ts';
import { silentLog } from '#lib/log.ts';
import { memoryPair } from '#lib/memory-duplex.ts';
import { seededRandom } from './balance/seeded-random.ts';
import { FakeTransport } from './control/testing.ts';
import { downgradeFromHttp2 } from './inbound/orig-proto.ts';
import { connectHttp2 } from './io/http2-client.ts';
import { LiveConnections } from './live-connections.ts';
import { silentRecorder } from './observe/silent-recorder.ts';
import {
  balancerBackend,
  detectPolicy,
  duration,
  forwardBackend,
  http2Origin,
  MemoryNetwork,
  type OriginRequest,
  origin,
  route,
  rule,
  settle,
  TestClient,
  TestControlPlane,
  weightedAddr,
} from './outbound/testing.ts';
import { EXCHANGE, RecordedResponse } from './outbound/testing-http.ts';
import { requestHead } from './policy/testing.ts';
import { createOutbound } from './stack.ts';
import { workerConfig } from './testing.ts';

const PATH = 'web.shop.svc.cluster.local:80';
const GET = 'GET / HTTP/1.1\r\nhost: web\r\n\r\n';

function setUp() {
  const clock = new FakeClock();
  const network = new MemoryNetwork(clock);
  const transport = new FakeTransport();
  const control = new TestControlPlane(transport);
  const live = new LiveConnections();
  const outbound = createOutbound({
    clock,
    log: silentLog,
    random: seededRandom(11),
    recorder: silentRecorder,
    transport,
    live,
    config: () => workerConfig(),
    tls: () => null,
    connect: network.connect,
  });
  const dial = (address = '10.96.0.1', port = 80): TestClient => {
    const [app, accepted] = memoryPair();
    void outbound.accept(accepted, { address, port });
    return new TestClient(app);
  };
  const seen: Record<string, OriginRequest[]> = {};
  /** A server that answers with its name, unless `answer` says otherwise. */
  const serve = (name: string, answer: (request: OriginRequest) => void = (request) => request.reply(200, name)) => {
    seen[name] = [];
    network.listen(
      name,
      origin(clock, (request) => {
        seen[name]!.push(request);
        answer(request);
      }),
    );
  };
  return { clock, network, transport, control, live, outbound, dial, serve, seen };
}

/** A service `web` with one server at 10.1.0.1 that policy and profile know. */
async function setUpService(options: Parameters<typeof rule>[2] = {}) {
  const world = setUp();
  const { control, dial } = world;
  const client = dial();
  control.profile();
  control.policy(detectPolicy([route([rule('/', [balancerBackend(PATH)], options)])], balancerBackend(PATH)));
  control.add(PATH, weightedAddr('10.1.0.1', 80));
  await settle();
  return { ...world, client };
}

describe('discovery', () => {
  test('waits for profile and policy before a byte goes anywhere', async () => {
    const { control, dial, serve, network, transport } = setUp();
    serve('10.1.0.1:80');
    const client = dial();
    client.send(GET);
    await settle();
    expect(transport.streams.map(({ kind }) => kind)).toEqual([WatchKind.profile, WatchKind.outboundPolicy]);
    control.profile();
    await settle();
    expect(network.connects).toEqual([]);
    control.policy(detectPolicy([route([rule('/', [balancerBackend(PATH)])])], balancerBackend(PATH)));
    control.add(PATH, weightedAddr('10.1.0.1', 80));
    await settle();
    expect(client.statuses).toEqual([200]);
    expect(client.received).toContain('10.1.0.1:80');
  });

  test('an unknown target is where the application said', async () => {
    const { control, dial, serve, seen } = setUp();
    serve('93.184.215.14:80');
    const client = dial('93.184.215.14');
    client.send(GET);
    await settle();
    control.unknown();
    await settle();
    expect(client.statuses).toEqual([200]);
    expect(seen['93.184.215.14:80']).toHaveLength(1);
  });

  test('the endpoint of a pod comes from its profile', async () => {
    const { control, dial, serve } = setUp();
    serve('10.1.0.9:8080');
    const client = dial('10.1.0.9', 8080);
    client.send(GET);
    await settle();
    control.profile({ fullyQualifiedName: '', endpoint: weightedAddr('10.1.0.9', 8080) });
    control.absent(WatchKind.outboundPolicy);
    await settle();
    expect(client.received).toContain('10.1.0.9:8080');
  });

  test('a meshed pod is never sent anything in clear while this pod has no identity', async () => {
    const { control, dial, serve, seen } = setUp();
    serve('10.1.0.9:8080');
    const client = dial('10.1.0.9', 8080);
    client.send(GET);
    await settle();
    const name = { name: 'web.shop.serviceaccount.identity.heddle.cluster.local' };
    const tlsIdentity = { strategy: { $case: 'dnsLikeIdentity' as const, value: name }, serverName: name };
    control.profile({ fullyQualifiedName: '', endpoint: weightedAddr('10.1.0.9', 8080, { tlsIdentity }) });
    control.absent(WatchKind.outboundPolicy);
    await settle();
    expect(client.statuses).toEqual([502]);
    expect(seen['10.1.0.9:8080']).toEqual([]);
  });

  test('without any answer the connection is reset after ten seconds, not forwarded', async () => {
    const { clock, transport, dial, serve, seen, network } = setUp();
    serve('10.96.0.1:80');
    const client = dial();
    client.send(GET);
    for (const stream of transport.streams) transport.end(stream, { code: 14, message: 'agent is gone' });
    clock.advance(9_999);
    await settle();
    expect(client.closed).toBeUndefined();
    clock.advance(1);
    await settle();
    expect(client.closed?.code).toBe('connection-reset');
    expect(network.connects).toEqual([]);
    expect(seen['10.96.0.1:80']).toEqual([]);
  });

  test('the last answer stands while the control plane is gone', async () => {
    const { clock, transport, dial, serve, client } = await setUpService();
    serve('10.1.0.1:80');
    for (const stream of transport.streams) transport.end(stream, { code: 14, message: 'agent is gone' });
    client.send(GET);
    await settle();
    expect(client.statuses).toEqual([200]);
    client.end();
    clock.advance(60_000);
    await settle();
    const later = dial();
    later.send(GET);
    await settle();
    expect(later.statuses).toEqual([200]);
  });

  test('a target nobody uses is forgotten after its idle time, with its backends', async () => {
    const { clock, transport, serve, client } = await setUpService();
    serve('10.1.0.1:80');
    client.send(GET);
    await settle();
    client.end();
    await settle();
    expect(transport.streams.filter(({ isOpen }) => isOpen)).toHaveLength(3);
    for (let second = 0; second < 20; second++) clock.advance(1_000);
    await settle();
    expect(transport.streams.filter(({ isOpen }) => isOpen)).toEqual([]);
  });

  test.each(['127.0.0.1', '::1', '0.0.0.0'])('%s is no destination', async (address) => {
    const { dial, network, transport } = setUp();
    const client = dial(address);
    await settle();
    expect(client.closed?.code).toBe('connection-reset');
    expect(transport.streams).toEqual([]);
    expect(network.connects).toEqual([]);
  });

  test('nor is the listener itself', async () => {
    const { dial, transport } = setUp();
    const client = dial('10.1.0.7', 4140);
    await settle();
    expect(client.closed?.code).toBe('connection-reset');
    expect(transport.streams).toEqual([]);
  });
});

describe('requests', () => {
  test('keep the connection alive on both sides', async () => {
    const { client, serve, network, seen } = await setUpService();
    serve('10.1.0.1:80');
    for (let index = 1; index <= 5; index++) {
      client.send(GET);
      await settle();
      expect(client.statuses).toHaveLength(index);
    }
    expect(network.connects).toEqual(['10.1.0.1:80']);
    expect(seen['10.1.0.1:80']).toHaveLength(5);
  });

  test('bodies arrive in full', async () => {
    const { client, serve } = await setUpService();
    serve('10.1.0.1:80', (request) => request.reply(200, `got ${request.body.length}`));
    client.send(`POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 200000\r\n\r\n${'x'.repeat(200_000)}`);
    await settle();
    expect(client.received).toContain('got 200000');
  });

  test('a policy update applies to the next request on the same connection', async () => {
    const { client, control, serve } = await setUpService();
    serve('10.1.0.1:80');
    serve('10.2.0.2:80');
    client.send(GET);
    await settle();
    control.policy(
      detectPolicy([route([rule('/', [forwardBackend('10.2.0.2', 80)])])], forwardBackend('10.2.0.2', 80)),
    );
    client.send(GET);
    await settle();
    expect(client.statuses).toEqual([200, 200]);
    expect(client.received).toContain('10.2.0.2:80');
  });

  test('no route is 404, and the connection lives on', async () => {
    const { client, control, serve } = await setUpService();
    serve('10.1.0.1:80');
    control.policy(detectPolicy([route([rule('/api', [balancerBackend(PATH)])])], balancerBackend(PATH)));
    client.send(GET);
    await settle();
    expect(client.statuses).toEqual([404]);
    expect(client.received).toContain('l5d-proxy-error: no route found for request');
    client.send('GET /api/x HTTP/1.1\r\nhost: web\r\n\r\n');
    await settle();
    expect(client.statuses).toEqual([404, 200]);
  });

  test('what the peer proxy says to this one does not reach the application', async () => {
    const { client, serve } = await setUpService();
    serve('10.1.0.1:80', (request) =>
      request.reply(502, '', { 'l5d-proxy-error': 'secret', 'l5d-proxy-connection': 'close' }),
    );
    client.send(GET);
    await settle();
    expect(client.statuses).toEqual([502]);
    expect(client.received).not.toContain('l5d-proxy');
    expect(client.isEnded).toBe(false);
  });

  test('a single endpoint whose proxy closes takes the connection of the application with it', async () => {
    const { control, dial, serve } = setUp();
    serve('10.1.0.9:80', (request) => request.reply(502, '', { 'l5d-proxy-connection': 'close' }));
    const client = dial('10.1.0.9');
    client.send(GET);
    await settle();
    control.unknown();
    await settle();
    expect(client.statuses).toEqual([502]);
    expect(client.isEnded).toBe(true);
  });

  test('l5d-require-id that the endpoint does not have is 502 before anything is sent', async () => {
    const { client, serve, seen } = await setUpService();
    serve('10.1.0.1:80');
    client.send('GET / HTTP/1.1\r\nhost: web\r\nl5d-require-id: other\r\n\r\n');
    await settle();
    expect(client.statuses).toEqual([502]);
    expect(seen['10.1.0.1:80']).toEqual([]);
  });
});

describe('tunnels', () => {
  const UPGRADE = 'GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n';
  const SWITCHING = 'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n';

  test.each(['server', 'client'])('half-close by the %s leaves the other direction open', async (first) => {
    const { client, network } = await setUpService();
    let server: TestClient | null = null;
    network.listen('10.1.0.1:80', (stream) => {
      server = new TestClient(stream);
      server.send(SWITCHING);
    });
    client.send(UPGRADE);
    await settle();
    expect(client.statuses).toEqual([101]);
    const [early, late] = first === 'server' ? [server!, client] : [client, server!];
    early.send('early');
    early.end();
    await settle();
    late.send('late');
    await settle();
    expect(late.received).toContain('early');
    expect(late.isEnded).toBe(true);
    expect(early.received).toContain('late');
    late.end();
    await settle();
    expect([client.closed, server!.closed]).toEqual([null, null]);
  });
});

describe('endpoints', () => {
  test('fail-fast: nothing ready for three seconds is 504, and at once from then on, until there is an endpoint', async () => {
    const { clock, client, control, serve, dial } = await setUpService();
    serve('10.1.0.1:80');
    control.remove(PATH, weightedAddr('10.1.0.1', 80));
    client.send(GET);
    await settle();
    clock.advance(2_999);
    await settle();
    expect(client.statuses).toEqual([]);
    clock.advance(1);
    await settle();
    expect(client.statuses).toEqual([504]);
    expect(client.received).toContain('service in fail-fast');
    expect(client.isEnded).toBe(true);
    const second = dial();
    second.send(GET);
    await settle();
    expect(second.statuses).toEqual([504]);
    control.add(PATH, weightedAddr('10.1.0.1', 80));
    const third = dial();
    third.send(GET);
    await settle();
    expect(third.statuses).toEqual([200]);
  });

  test('a refused connection costs no request while there is another endpoint, and is not tried again at once', async () => {
    const { client, control, serve, network } = await setUpService();
    serve('10.1.0.2:80');
    control.add(PATH, weightedAddr('10.1.0.2', 80));
    for (let index = 0; index < 20; index++) {
      client.send('POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi');
      await settle();
    }
    expect(client.statuses).toEqual(Array.from({ length: 20 }, () => 200));
    expect(network.connects.filter((each) => each === '10.1.0.1:80').length).toBe(1);
  });

  test('nobody there is 502 for the first request, and a wait for the end of the back-off for the next', async () => {
    const { clock, client, serve, dial } = await setUpService();
    client.send(GET);
    await settle();
    expect(client.statuses).toEqual([502]);
    expect(client.received).toContain('connect to "10.1.0.1:80"');
    serve('10.1.0.1:80');
    const second = dial();
    second.send(GET);
    await settle();
    expect(second.statuses).toEqual([]);
    clock.advance(150);
    await settle();
    expect(second.statuses).toEqual([200]);
  });

  test('an endpoint that does not answer is 504 after the connect timeout', async () => {
    const { clock, client, network } = await setUpService();
    network.silence('10.1.0.1:80');
    client.send(GET);
    await settle();
    clock.advance(1_000);
    await settle();
    expect(client.statuses).toEqual([504]);
  });

  test('a removed endpoint finishes what it has begun', async () => {
    const { client, control, serve, dial, seen } = await setUpService();
    serve('10.1.0.1:80', () => {});
    serve('10.1.0.2:80');
    client.send(GET);
    await settle();
    control.add(PATH, weightedAddr('10.1.0.2', 80));
    control.remove(PATH, weightedAddr('10.1.0.1', 80));
    const other = dial();
    for (let index = 0; index < 5; index++) {
      other.send(GET);
      await settle();
    }
    expect(seen['10.1.0.2:80']).toHaveLength(5);
    seen['10.1.0.1:80']![0]!.reply(200, 'late');
    await settle();
    expect(client.statuses).toEqual([200]);
    expect(client.received).toContain('late');
  });
});

describe('circuit breaking', () => {
  const accrual = {
    kind: {
      $case: 'consecutiveFailures' as const,
      value: {
        maxFailures: 3,
        backoff: {
          minBackoff: duration(1_000),
          maxBackoff: duration(60_000),
          jitterRatio: 0,
          respectRetryAfterHint: false,
        },
      },
    },
    ejection: undefined,
  };

  test('an endpoint that fails is left alone, then gets one probe', async () => {
    const { clock, client, control, serve, seen } = await setUpService();
    control.policy(detectPolicy([route([rule('/', [balancerBackend(PATH)])])], balancerBackend(PATH), accrual));
    control.add(PATH, weightedAddr('10.1.0.1', 80), weightedAddr('10.1.0.2', 80));
    serve('10.1.0.1:80', (request) => request.reply(500));
    serve('10.1.0.2:80', (request) => request.reply(200));
    for (let index = 0; index < 60; index++) {
      client.send(GET);
      await settle(5);
    }
    expect(seen['10.1.0.1:80']).toHaveLength(3);
    clock.advance(1_001);
    for (let index = 0; index < 60; index++) {
      client.send(GET);
      await settle(5);
    }
    expect(seen['10.1.0.1:80']).toHaveLength(4);
    expect(client.statuses).toHaveLength(120);
  });
});

describe('retries and deadlines of a policy route', () => {
  const retry = {
    maxRetries: 2,
    maxRequestBytes: 0,
    conditions: { statusRanges: [{ start: 500, end: 599 }] },
    timeout: undefined,
    backoff: { minBackoff: duration(25), maxBackoff: duration(250), jitterRatio: 0, respectRetryAfterHint: false },
  };

  test('a failure is tried again with its body, after the back-off', async () => {
    const { clock, client, serve, seen } = await setUpService({ retry });
    let calls = 0;
    serve('10.1.0.1:80', (request) => request.reply(++calls < 3 ? 503 : 200, request.body));
    client.send('POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\n\r\nhello');
    await settle();
    expect(calls).toBe(1);
    clock.advance(25);
    await settle();
    expect(calls).toBe(2);
    clock.advance(50);
    await settle();
    expect(client.statuses).toEqual([200]);
    expect(client.received).toContain('hello');
    expect(seen['10.1.0.1:80']!.map(({ body }) => body)).toEqual(['hello', 'hello', 'hello']);
  });

  test('the last failure goes to the client when the limit is reached', async () => {
    const { clock, client, serve, seen } = await setUpService({ retry });
    serve('10.1.0.1:80', (request) => request.reply(503, 'sorry'));
    client.send(GET);
    for (let index = 0; index < 5; index++) {
      await settle();
      clock.advance(250);
    }
    await settle();
    expect(seen['10.1.0.1:80']).toHaveLength(3);
    expect(client.statuses).toEqual([503]);
  });

  test('a body of more than 64 KiB goes once', async () => {
    const { clock, client, serve, seen } = await setUpService({ retry });
    serve('10.1.0.1:80', (request) => request.reply(503));
    client.send(`POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 70000\r\n\r\n${'x'.repeat(70_000)}`);
    await settle();
    clock.advance(1_000);
    await settle();
    expect(client.statuses).toEqual([503]);
    expect(seen['10.1.0.1:80']).toHaveLength(1);
  });

  test('the time per try ends an attempt, but not the last one', async () => {
    const { clock, client, serve, seen } = await setUpService({
      retry: { ...retry, maxRetries: 1, timeout: duration(100), backoff: undefined },
    });
    serve('10.1.0.1:80', () => {});
    client.send(GET);
    await settle();
    clock.advance(100);
    await settle();
    expect(seen['10.1.0.1:80']).toHaveLength(2);
    clock.advance(5_000);
    await settle();
    expect(client.statuses).toEqual([]);
    seen['10.1.0.1:80']![1]!.reply(200);
    await settle();
    expect(client.statuses).toEqual([200]);
  });

  test('the deadline of the request covers all attempts and keeps the connection', async () => {
    const { clock, client, serve, seen } = await setUpService({
      retry,
      timeouts: { request: duration(60), response: undefined, idle: undefined },
    });
    serve('10.1.0.1:80', (request) => request.reply(503));
    client.send(GET);
    await settle();
    clock.advance(25);
    await settle();
    clock.advance(35);
    await settle();
    expect(client.statuses).toEqual([504]);
    expect(client.isEnded).toBe(false);
    expect(seen['10.1.0.1:80']).toHaveLength(2);
  });

  test('headers of the application change retries where the policy allows it, and go no further', async () => {
    const { clock, client, serve, seen } = await setUpService({ allowL5dRequestHeaders: true });
    let calls = 0;
    serve('10.1.0.1:80', (request) => request.reply(++calls < 2 ? 503 : 200));
    client.send('GET / HTTP/1.1\r\nhost: web\r\nl5d-retry-http: 5xx\r\nl5d-retry-limit: 1\r\n\r\n');
    await settle();
    clock.advance(250);
    await settle();
    expect(client.statuses).toEqual([200]);
    expect(seen['10.1.0.1:80']![0]!.head.headers.has('l5d-retry-http')).toBe(false);
  });
});

describe('filters', () => {
  test('headers change both ways, and a redirect needs no backend', async () => {
    const { client, control, serve, seen } = await setUpService();
    serve('10.1.0.1:80');
    const header = (name: string, value: string) => ({ headers: [{ name, value: Buffer.from(value) }] });
    control.policy(
      detectPolicy(
        [
          route([
            rule('/', [balancerBackend(PATH)], {
              filters: [
                {
                  kind: {
                    $case: 'requestHeaderModifier',
                    value: { add: header('x-added', '1'), set: undefined, remove: ['x-gone'] },
                  },
                },
                {
                  kind: {
                    $case: 'responseHeaderModifier',
                    value: { add: undefined, set: header('x-back', '2'), remove: [] },
                  },
                },
              ],
            }),
            rule('/old', [], {
              filters: [
                {
                  kind: {
                    $case: 'redirect',
                    value: {
                      scheme: undefined,
                      host: '',
                      port: 0,
                      status: 302,
                      path: { replace: { $case: 'prefix', value: '/new' } },
                    },
                  },
                },
              ],
            }),
          ]),
        ],
        balancerBackend(PATH),
      ),
    );
    client.send('GET / HTTP/1.1\r\nhost: web\r\nx-gone: yes\r\n\r\n');
    await settle();
    expect(client.received).toContain('x-back: 2');
    const { headers } = seen['10.1.0.1:80']![0]!.head;
    expect([headers.get('x-added'), headers.has('x-gone')]).toEqual(['1', false]);
    client.send('GET /old/page?q=1 HTTP/1.1\r\nhost: web\r\n\r\n');
    await settle();
    expect(client.statuses).toEqual([200, 302]);
    expect(client.received).toContain('location: http://web/new/page?q=1');
  });
});

describe('service profiles', () => {
  const all = { match: { $case: 'path' as const, value: { regex: '/.*' } } };

  async function setUpProfile(isRetryable: boolean, timeoutMs: number | null = null) {
    const world = setUp();
    const client = world.dial();
    world.control.profile({
      routes: [
        {
          condition: all,
          responseClasses: [
            { condition: { match: { $case: 'status', value: { min: 404, max: 404 } } }, isFailure: true },
          ],
          metricsLabels: { route: 'all' },
          isRetryable,
          timeout: timeoutMs === null ? undefined : duration(timeoutMs),
        },
      ],
      retryBudget: { retryRatio: 0, minRetriesPerSecond: 1, ttl: duration(10_000) },
    });
    world.control.policy(
      detectPolicy([route([rule('/', [forwardBackend('10.9.9.9', 1)])])], forwardBackend('10.9.9.9', 1)),
    );
    world.control.add(PATH, weightedAddr('10.1.0.1', 80));
    await settle();
    return { ...world, client };
  }

  test('replace the policy, name the destination to the peer, and retry what they call a failure within a budget', async () => {
    const { client, serve, seen } = await setUpProfile(true);
    serve('10.1.0.1:80', (request) => request.reply(404));
    client.send(GET);
    await settle(60);
    expect(client.statuses).toEqual([404]);
    expect(seen['10.1.0.1:80']).toHaveLength(11);
    expect(seen['10.1.0.1:80']![0]!.head.headers.get('l5d-dst-canonical')).toBe(PATH);
  });

  test('a timeout is 504 and ends the connection', async () => {
    const { clock, client, serve } = await setUpProfile(false, 300);
    serve('10.1.0.1:80', () => {});
    client.send(GET);
    await settle();
    clock.advance(300);
    await settle();
    expect(client.statuses).toEqual([504]);
    expect(client.isEnded).toBe(true);
  });
});

describe('opaque connections', () => {
  /** A server that sends back what it gets, in capitals. */
  const shout = (stream: import('#lib/duplex.ts').Duplex): void => {
    stream.listener = {
      onData: (buffer, start, end) => stream.write(Buffer.from(buffer.toString('latin1', start, end).toUpperCase())),
      onEnd: () => stream.end(),
      onDrain: () => {},
      onClose: () => {},
    };
    stream.resume();
  };

  test('few bytes are opaque, and half-close passes through', async () => {
    const { client, network } = await setUpService();
    network.listen('10.1.0.1:80', shout);
    client.send('ping');
    await settle();
    expect(client.received).toBe('PING');
    client.end();
    await settle();
    expect(client.isEnded).toBe(true);
    expect(client.closed).toBeNull();
  });

  test('a server that speaks first is reached after the detection timeout', async () => {
    const { clock, client, network } = await setUpService();
    network.listen('10.1.0.1:80', (stream) => void stream.write(Buffer.from('220 ready\r\n')));
    await settle();
    clock.advance(10_000);
    await settle();
    expect(client.received).toBe('220 ready\r\n');
  });

  test('a profile that says opaque spares the detection', async () => {
    const { control, dial, network } = setUp();
    network.listen('10.1.0.1:80', (stream) => void stream.write(Buffer.from('220 ready\r\n')));
    const client = dial();
    control.profile({ opaqueProtocol: true });
    control.policy(detectPolicy([route([rule('/', [balancerBackend(PATH)])])], balancerBackend(PATH)));
    control.add(PATH, weightedAddr('10.1.0.1', 80));
    await settle();
    expect(client.received).toBe('220 ready\r\n');
  });

  test('a connection that cannot be made is a reset, after another endpoint was tried', async () => {
    const { client, control, network, dial } = await setUpService();
    client.send('ping');
    await settle();
    expect(client.closed?.code).toBe('connection-reset');
    network.listen('10.1.0.2:80', shout);
    control.add(PATH, weightedAddr('10.1.0.2', 80));
    const other = dial();
    other.send('ping');
    await settle();
    expect(other.received).toBe('PING');
  });

  test('fail-fast resets', async () => {
    const { clock, client, control } = await setUpService();
    control.remove(PATH, weightedAddr('10.1.0.1', 80));
    client.send('ping');
    await settle();
    clock.advance(3_000);
    await settle();
    expect(client.closed?.code).toBe('connection-reset');
  });
});

describe('HTTP/2', () => {
  const h2 = { protocolHint: { protocol: { $case: 'h2' as const, value: {} }, opaqueTransport: undefined } };

  test('requests of HTTP/1 clients share one connection to a peer that takes HTTP/2', async () => {
    const { clock, control, dial, network } = setUp();
    const heads: string[] = [];
    network.listen(
      '10.1.0.1:80',
      http2Origin(
        clock,
        (request) => {
          heads.push(`${request.head.version} ${request.head.method} ${request.body}`);
          request.reply(200, 'hello');
        },
        (service) => downgradeFromHttp2(service, true),
      ),
    );
    const clients = [dial(), dial(), dial()];
    control.profile();
    control.policy(detectPolicy([route([rule('/', [balancerBackend(PATH)])])], balancerBackend(PATH)));
    control.add(PATH, weightedAddr('10.1.0.1', 80, h2));
    await settle();
    for (const client of clients) client.send('POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi');
    await settle();
    expect(clients.map(({ statuses }) => statuses)).toEqual([[200], [200], [200]]);
    expect(clients[0]!.received).toContain('hello');
    expect(heads).toEqual(['HTTP/1.1 POST hi', 'HTTP/1.1 POST hi', 'HTTP/1.1 POST hi']);
    expect(network.connects).toEqual(['10.1.0.1:80']);
  });

  test('clients of HTTP/2 are balanced request by request', async () => {
    const { clock, control, network, outbound } = setUp();
    const counts = new Map<string, number>();
    for (const name of ['10.1.0.1:80', '10.1.0.2:80']) {
      network.listen(
        name,
        http2Origin(clock, (request) => {
          counts.set(name, (counts.get(name) ?? 0) + 1);
          request.reply(200, name);
        }),
      );
    }
    const [app, accepted] = memoryPair();
    void outbound.accept(accepted, { address: '10.96.0.1', port: 80 });
    const client = connectHttp2(app, { clock });
    await settle();
    control.profile();
    control.policy(detectPolicy([route([rule('/', [balancerBackend(PATH)])])], balancerBackend(PATH)));
    control.add(PATH, weightedAddr('10.1.0.1', 80), weightedAddr('10.1.0.2', 80));
    await settle();
    for (let index = 0; index < 40; index++) {
      const response = new RecordedResponse();
      const head = requestHead({ version: 'HTTP/2', authority: 'web' });
      client.call(head, EXCHANGE, response).end(null);
      await settle(5);
      expect(response.events[0]).toBe('head 200');
    }
    expect([...counts.keys()].sort()).toEqual(['10.1.0.1:80', '10.1.0.2:80']);
    expect(network.connects).toHaveLength(2);
  });

  test('a gRPC client is told in its own words', async () => {
    const { clock, control, outbound } = setUp();
    const [app, accepted] = memoryPair();
    void outbound.accept(accepted, { address: '10.96.0.1', port: 80 });
    const client = connectHttp2(app, { clock });
    await settle();
    control.profile();
    control.policy(detectPolicy([route([rule('/', [balancerBackend(PATH)])])], balancerBackend(PATH)));
    await settle();
    const response = new RecordedResponse();
    const head = requestHead({ version: 'HTTP/2', method: 'POST', authority: 'web' }, [
      ['content-type', 'application/grpc'],
    ]);
    let told: string | undefined;
    const record = response.head.bind(response);
    response.head = (answer) => {
      told = answer.headers.get('grpc-status');
      record(answer);
    };
    client.call(head, EXCHANGE, response).end(null);
    await settle();
    clock.advance(3_000);
    await settle();
    expect(response.events[0]).toBe('head 200');
    expect(told).toBe('4');
  });
});

describe('drain', () => {
  test('HTTP connections end after their request, opaque ones go on', async () => {
    const { client, serve, live, seen } = await setUpService();
    serve('10.1.0.1:80', () => {});
    client.send(GET);
    await settle();
    let isEmpty = false;
    live.drain(() => {
      isEmpty = true;
    });
    await settle();
    expect(isEmpty).toBe(false);
    seen['10.1.0.1:80']![0]!.reply(200);
    await settle();
    expect(client.received.toLowerCase()).toContain('connection: close');
    client.end();
    await settle();
    expect(isEmpty).toBe(true);
  });
});
