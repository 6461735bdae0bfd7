// A small world for tests of the outbound proxy: a network in memory with servers and clients, and a control plane
// whose answers are written in a few words.

import type { DestinationProfile, WeightedAddr } from '#api/gen/destination.ts';
import { DestinationProfile as DestinationProfileMessage, GetDestination, Update } from '#api/gen/destination.ts';
import {
  type Backend,
  type FailureAccrual,
  type HttpRoute,
  type HttpRoute_Rule,
  OutboundPolicy,
  type ProxyProtocol,
} from '#api/gen/outbound.ts';
import { WatchKind } from '#api/worker-link.ts';
import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import { memoryPair } from '#lib/memory-duplex.ts';
import { encodeIp } from '../control/discovery.ts';
import type { FakeStream, FakeTransport } from '../control/testing.ts';
import type { HttpService, RequestHead, ResponseStream } from '../http.ts';
import type { ConnectTarget } from '../io/connect.ts';
import { serveHttp1 } from '../io/http1-server.ts';
import { serveHttp2 } from '../io/http2-server.ts';
import { HeaderList } from '../wire/headers.ts';

/** Lets everything that is due in microtasks and immediates happen. */
export async function settle(rounds = 20): Promise<void> {
  for (let round = 0; round < rounds; round++) await new Promise((resolve) => setImmediate(resolve));
}

type Handler = (stream: Duplex) => void;

/** Addresses that answer, refuse or stay silent. */
export class MemoryNetwork {
  readonly connects: string[] = [];
  readonly #listeners = new Map<string, Handler>();
  readonly #silent = new Set<string>();

  listen(address: string, handler: Handler): void {
    this.#silent.delete(address);
    this.#listeners.set(address, handler);
  }

  /** From now on connections are refused. */
  refuse(address: string): void {
    this.#silent.delete(address);
    this.#listeners.delete(address);
  }

  /** From now on connections are not answered. */
  silence(address: string): void {
    this.#listeners.delete(address);
    this.#silent.add(address);
  }

  readonly connect = ({ address, port, timeoutMs }: ConnectTarget, signal?: AbortSignal): Promise<Duplex> => {
    const key = `${address}:${port}`;
    this.connects.push(key);
    const fail = (code: string) => new HeddleError(code, `connect to "${key}"`, { source: 'upstream', retry: 'yes' });
    if (this.#silent.has(key)) {
      const { promise, reject } = Promise.withResolvers<Duplex>();
      this.#clock.after(timeoutMs, () => reject(fail('connect-timeout')));
      signal?.addEventListener('abort', () => reject(new HeddleError('connect-aborted', 'not wanted any more')));
      return promise;
    }
    const handler = this.#listeners.get(key);
    if (!handler) return Promise.reject(fail('connect-refused'));
    const [near, far] = memoryPair();
    handler(far);
    return Promise.resolve(near);
  };

  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }
}

export interface OriginRequest {
  head: RequestHead;
  body: string;
  reply(status: number, body?: string, fields?: Record<string, string>): void;
  /** Cuts the exchange. */
  fail(): void;
}

/** An HTTP/1 server that reads the whole request and then asks `answer`. */
export function origin(clock: Clock, answer: (request: OriginRequest) => void): Handler {
  const service = originService(answer);
  return (stream) => {
    serveHttp1(stream, { service, clock, clientIdentity: null });
  };
}

/** The same as a peer's proxy that takes HTTP/2; `wrap` undoes what the client's proxy did. */
export function http2Origin(
  clock: Clock,
  answer: (request: OriginRequest) => void,
  wrap: (service: HttpService) => HttpService = (service) => service,
): Handler {
  const service = wrap(originService(answer));
  return (stream) => {
    serveHttp2(stream, { service, clock, clientIdentity: null });
  };
}

function originService(answer: (request: OriginRequest) => void): HttpService {
  return {
    call(head, _exchange, response) {
      let body = '';
      return {
        data(bytes) {
          body += Buffer.from(bytes).toString('latin1');
          return true;
        },
        end: () => answer(originRequest(head, body, response)),
        reset: () => {},
        resumeResponse: () => {},
      };
    },
  };
}

function originRequest(head: RequestHead, body: string, response: ResponseStream): OriginRequest {
  return {
    head,
    body,
    reply(status, text = '', fields = {}) {
      const headers = new HeaderList();
      headers.add('content-length', String(Buffer.byteLength(text)));
      for (const [name, value] of Object.entries(fields)) headers.add(name, value);
      response.head({ status, reason: 'x', version: head.version, headers, bodyBytes: Buffer.byteLength(text) });
      if (text !== '') response.data(Buffer.from(text));
      response.end(null);
    },
    fail: () => response.fail(new HeddleError('origin-failed', 'cut')),
  };
}

/** The application's end of a connection: what it got, as text. */
export class TestClient {
  received = '';
  isEnded = false;
  closed: HeddleError | null | undefined;
  readonly #stream: Duplex;

  constructor(stream: Duplex) {
    this.#stream = stream;
    stream.listener = {
      onData: (buffer, start, end) => {
        this.received += buffer.toString('latin1', start, end);
      },
      onEnd: () => {
        this.isEnded = true;
      },
      onDrain: () => {},
      onClose: (error) => {
        this.closed = error;
      },
    };
    stream.resume();
  }

  send(text: string): void {
    this.#stream.write(Buffer.from(text, 'latin1'));
  }

  end(): void {
    this.#stream.end();
  }

  reset(): void {
    this.#stream.reset();
  }

  /** Status lines so far, without the version. */
  get statuses(): number[] {
    return [...this.received.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]));
  }
}

// The control plane.

export function weightedAddr(ip: string, port: number, part: Partial<WeightedAddr> = {}): WeightedAddr {
  return {
    addr: { ip: encodeIp(ip), port },
    weight: 10_000,
    metricLabels: {},
    tlsIdentity: undefined,
    protocolHint: undefined,
    authorityOverride: undefined,
    http2: undefined,
    resourceRef: undefined,
    ...part,
  };
}

export const duration = (ms: number) => ({ seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1e6 });

export function balancerBackend(path: string): Backend {
  return {
    metadata: { kind: { $case: 'default', value: path } },
    kind: {
      $case: 'balancer',
      value: {
        discovery: { kind: { $case: 'dst', value: { path } } },
        load: { $case: 'peakEwma', value: { defaultRtt: duration(30), decay: duration(10_000) } },
      },
    },
    queue: undefined,
  };
}

export function forwardBackend(ip: string, port: number): Backend {
  return {
    metadata: { kind: { $case: 'default', value: ip } },
    kind: { $case: 'forward', value: weightedAddr(ip, port) },
    queue: undefined,
  };
}

const prefix = (path: string) => ({
  path: { kind: { $case: 'prefix' as const, value: path } },
  headers: [],
  queryParams: [],
  method: undefined,
});

/** A rule that takes a path prefix to backends, the first available one. */
export function rule(path: string, backends: Backend[], part: Partial<HttpRoute_Rule> = {}): HttpRoute_Rule {
  return {
    matches: [prefix(path)],
    filters: [],
    backends: {
      kind: {
        $case: 'firstAvailable',
        value: { backends: backends.map((backend) => ({ backend, filters: [], requestTimeout: undefined })) },
      },
    },
    requestTimeout: undefined,
    timeouts: undefined,
    retry: undefined,
    allowL5dRequestHeaders: false,
    ...part,
  };
}

export function route(rules: HttpRoute_Rule[], name = 'http'): HttpRoute {
  return { metadata: { kind: { $case: 'default', value: name } }, hosts: [], rules };
}

/** Detect with these routes for HTTP, and the first backend of `path` for everything else. */
export function detectPolicy(
  routes: HttpRoute[],
  opaque: Backend,
  failureAccrual: FailureAccrual | undefined = undefined,
): ProxyProtocol {
  return {
    kind: {
      $case: 'detect',
      value: {
        timeout: duration(10_000),
        http1: { routes, failureAccrual },
        http2: { routes, failureAccrual },
        opaque: {
          routes: [
            {
              metadata: { kind: { $case: 'default', value: 'opaq' } },
              rules: [
                {
                  filters: [],
                  backends: {
                    kind: { $case: 'firstAvailable', value: { backends: [{ backend: opaque, filters: [] }] } },
                  },
                },
              ],
            },
          ],
        },
      },
    },
  };
}

/** Answers the watches of a FakeTransport. */
export class TestControlPlane {
  readonly transport: FakeTransport;

  constructor(transport: FakeTransport) {
    this.transport = transport;
  }

  policy(protocol: ProxyProtocol): void {
    const payload = OutboundPolicy.encode({
      protocol,
      metadata: {
        kind: {
          $case: 'resource',
          value: { group: 'core', kind: 'Service', namespace: 'shop', name: 'web', section: '', port: 80 },
        },
      },
    }).finish();
    for (const stream of this.transport.openOf(WatchKind.outboundPolicy)) stream.listener.update(payload);
  }

  profile(part: Partial<DestinationProfile> = {}): void {
    const payload = DestinationProfileMessage.encode({
      routes: [],
      retryBudget: undefined,
      dstOverrides: [],
      opaqueProtocol: false,
      fullyQualifiedName: 'web.shop.svc.cluster.local',
      endpoint: undefined,
      parentRef: undefined,
      profileRef: undefined,
      ...part,
    }).finish();
    for (const stream of this.transport.openOf(WatchKind.profile)) stream.listener.update(payload);
  }

  /** Both answers of a target that nobody knows. */
  unknown(): void {
    this.absent(WatchKind.profile);
    this.absent(WatchKind.outboundPolicy);
  }

  absent(kind: WatchKind): void {
    for (const stream of this.transport.openOf(kind))
      this.transport.end(stream, { code: 5, message: 'No such service' });
  }

  add(path: string, ...addrs: WeightedAddr[]): void {
    const update = { $case: 'add' as const, value: { addrs, metricLabels: { service: 'web', namespace: 'shop' } } };
    this.#update(path, Update.encode({ update }).finish());
  }

  remove(path: string, ...addrs: WeightedAddr[]): void {
    const update = { $case: 'remove' as const, value: { addrs: addrs.map(({ addr }) => addr!) } };
    this.#update(path, Update.encode({ update }).finish());
  }

  #update(path: string, payload: Uint8Array): void {
    for (const stream of this.endpointStreams(path)) stream.listener.update(payload);
  }

  endpointStreams(path: string): FakeStream[] {
    return this.transport
      .openOf(WatchKind.destination)
      .filter(({ request }) => GetDestination.decode(request).path === path);
  }
}
