import { describe, expect, test } from 'vitest';
import { GetDestination, Update } from '#api/gen/destination.ts';
import { PortSpec } from '#api/gen/inbound.ts';
import { TrafficSpec } from '#api/gen/outbound.ts';
import { type LinkStatus, WatchKind } from '#api/worker-link.ts';
import { FakeClock } from '#lib/clock.ts';
import { silentLog } from '#lib/log.ts';
import type { Subscriber } from './fan-out.ts';
import { Relay } from './relay.ts';
import type { Upstream, UpstreamListener } from './upstream.ts';

class FakeUpstream implements Upstream {
  readonly streams: { kind: WatchKind; request: Uint8Array; listener: UpstreamListener; isClosed: boolean }[] = [];

  open(kind: WatchKind, request: Uint8Array, listener: UpstreamListener) {
    const stream = { kind, request, listener, isClosed: false };
    this.streams.push(stream);
    return {
      close: () => {
        stream.isClosed = true;
      },
    };
  }
}

class Worker implements Subscriber {
  readonly seen: string[] = [];
  readonly addresses = new Set<string>();

  update(payload: Uint8Array): void {
    this.seen.push(`update ${payload.length}`);
    const { update } = Update.decode(payload);
    if (update?.$case === 'add') for (const { addr } of update.value.addrs) this.addresses.add(`${addr!.port}`);
    if (update?.$case === 'remove') for (const addr of update.value.addrs) this.addresses.delete(`${addr.port}`);
    if (update?.$case === 'noEndpoints') this.addresses.clear();
  }

  stale(status: LinkStatus): void {
    this.seen.push(`stale ${status.code}`);
  }

  end(status: LinkStatus): void {
    this.seen.push(`end ${status.code}`);
  }
}

const address = (port: number) => ({ ip: { ip: { $case: 'ipv4' as const, value: 0x0a000001 } }, port });
const weighted = (port: number) => ({
  addr: address(port),
  weight: 1,
  metricLabels: {},
  tlsIdentity: undefined,
  protocolHint: undefined,
  authorityOverride: undefined,
  http2: undefined,
  resourceRef: undefined,
});
const add = (ports: number[], service = 'web') =>
  Update.encode({
    update: { $case: 'add', value: { addrs: ports.map(weighted), metricLabels: { service } } },
  }).finish();
const remove = (ports: number[]) =>
  Update.encode({ update: { $case: 'remove', value: { addrs: ports.map(address) } } }).finish();
const destination = (path: string, token = '{"ns":"shop","nodeName":"n1","pod":"a"}') =>
  GetDestination.encode({ scheme: '', path, contextToken: token }).finish();
const outbound = (workload: string, authority: string) =>
  TrafficSpec.encode({ sourceWorkload: workload, target: { $case: 'authority', value: authority } }).finish();

function setUp(options: { targetsMax?: number } = {}) {
  const upstream = new FakeUpstream();
  const clock = new FakeClock();
  const relay = new Relay({ upstream, clock, log: silentLog, idleMs: 10_000, random: () => 0, ...options });
  return { upstream, clock, relay };
}
const turn = () => new Promise<void>((resolve) => queueMicrotask(resolve));

describe('relay', () => {
  test('opens one stream for workers of one namespace that ask for one target', async () => {
    const { upstream, relay } = setUp();
    const workers = [new Worker(), new Worker()];
    relay.watch(WatchKind.destination, destination('web.shop:80', '{"ns":"shop","pod":"a"}'), workers[0]!);
    relay.watch(WatchKind.destination, destination('web.shop:80', '{"ns":"shop","pod":"b"}'), workers[1]!);
    await turn();
    upstream.streams[0]!.listener.update(add([1, 2]));

    expect(upstream.streams).toHaveLength(1);
    expect(workers.map((worker) => [...worker.addresses])).toEqual([
      ['1', '2'],
      ['1', '2'],
    ]);
  });

  test('keeps clients apart whose answers may differ', () => {
    const { upstream, relay } = setUp();
    relay.watch(WatchKind.destination, destination('web.shop:80', '{"ns":"shop"}'), new Worker());
    relay.watch(WatchKind.destination, destination('web.shop:80', '{"ns":"other"}'), new Worker());
    relay.watch(WatchKind.destination, destination('web.shop:80', '{"ns":"shop","nodeName":"n2"}'), new Worker());
    relay.watch(WatchKind.profile, destination('web.shop:80', '{"ns":"shop"}'), new Worker());
    relay.watch(WatchKind.outboundPolicy, outbound('{"ns":"shop","pod":"a"}', 'web.shop:80'), new Worker());
    relay.watch(WatchKind.outboundPolicy, outbound('{"ns":"shop","pod":"b"}', 'web.shop:80'), new Worker());
    relay.watch(
      WatchKind.outboundPolicy,
      outbound('{"ns":"shop","external_workload":"v"}', 'web.shop:80'),
      new Worker(),
    );

    expect(upstream.streams.map(({ kind }) => kind)).toEqual([
      WatchKind.destination,
      WatchKind.destination,
      WatchKind.destination,
      WatchKind.profile,
      WatchKind.outboundPolicy,
      WatchKind.outboundPolicy,
    ]);
  });

  test('tells a late joiner the sum of all changes', async () => {
    const { upstream, relay } = setUp();
    relay.watch(WatchKind.destination, destination('web.shop:80'), new Worker());
    await turn();
    const { listener } = upstream.streams[0]!;
    listener.update(add([1, 2]));
    listener.update(add([3], 'other'));
    listener.update(remove([1]));
    const late = new Worker();
    relay.watch(WatchKind.destination, destination('web.shop:80'), late);
    expect(late.seen).toEqual([]);
    await turn();

    expect([...late.addresses].sort()).toEqual(['2', '3']);
  });

  test('a message between joining and the welcome comes once', async () => {
    const { upstream, relay } = setUp();
    const worker = new Worker();
    relay.watch(WatchKind.destination, destination('web.shop:80'), worker);
    upstream.streams[0]!.listener.update(add([1]));
    await turn();

    expect(worker.seen).toHaveLength(1);
    expect([...worker.addresses]).toEqual(['1']);
  });

  test('keeps the answer while the control plane is away, says so, and catches up', async () => {
    const { upstream, clock, relay } = setUp();
    const worker = new Worker();
    relay.watch(WatchKind.destination, destination('web.shop:80'), worker);
    await turn();
    upstream.streams[0]!.listener.update(add([1, 2]));
    upstream.streams[0]!.listener.end({ code: 14, message: 'gone' });
    expect(worker.seen.at(-1)).toBe('stale 14');
    expect(relay.stats()[0]).toMatchObject({ targets: 1, subscribers: 1, stale: 1 });

    const late = new Worker();
    relay.watch(WatchKind.destination, destination('web.shop:80'), late);
    await turn();
    expect([...late.addresses]).toEqual(['1', '2']);
    expect(late.seen.at(-1)).toBe('stale 14');

    clock.advance(200);
    expect(upstream.streams).toHaveLength(2);
    upstream.streams[1]!.listener.update(add([2, 3]));
    expect([...worker.addresses].sort()).toEqual(['2', '3']);
    expect([...late.addresses].sort()).toEqual(['2', '3']);
    expect(relay.stats()[0]).toMatchObject({ stale: 0 });
  });

  test('an answer that there is nothing ends the watch and is told to the next to ask until it is asked again', async () => {
    const { upstream, clock, relay } = setUp();
    const worker = new Worker();
    relay.watch(WatchKind.destination, destination('web.shop:80'), worker);
    await turn();
    upstream.streams[0]!.listener.update(add([1]));
    upstream.streams[0]!.listener.end({ code: 5, message: 'no such service' });
    expect(worker.seen.at(-1)).toBe('end 5');

    const second = new Worker();
    relay.watch(WatchKind.destination, destination('web.shop:80'), second);
    await turn();
    expect(second.seen).toEqual(['end 5']);
    expect(upstream.streams).toHaveLength(1);

    clock.advance(200);
    relay.watch(WatchKind.destination, destination('web.shop:80'), new Worker());
    expect(upstream.streams).toHaveLength(2);
  });

  test('backs off from a control plane that is away', async () => {
    const { upstream, clock, relay } = setUp();
    const worker = new Worker();
    relay.watch(WatchKind.profile, destination('web.shop:80'), worker);
    await turn();
    upstream.streams[0]!.listener.update(add([]));
    const delays: number[] = [];
    for (let attempt = 0; attempt < 5; attempt++) {
      const startMs = clock.nowMs();
      const count = upstream.streams.length;
      upstream.streams.at(-1)!.listener.end({ code: 14, message: 'gone' });
      while (upstream.streams.length === count) clock.advance(50);
      delays.push(clock.nowMs() - startMs);
    }

    expect(delays).toEqual([200, 400, 800, 1600, 3200]);
  });

  test('closes a stream that nobody reads, but not while its answer is the only one there is', async () => {
    const { upstream, clock, relay } = setUp();
    const cancel = relay.watch(WatchKind.profile, destination('web.shop:80'), new Worker());
    await turn();
    upstream.streams[0]!.listener.update(add([]));
    cancel();
    cancel();
    clock.advance(9_999);
    expect(upstream.streams[0]!.isClosed).toBe(false);
    clock.advance(1);
    expect(upstream.streams[0]!.isClosed).toBe(true);
    expect(relay.stats().map(({ targets }) => targets)).toEqual([0, 0, 0, 0]);

    const again = relay.watch(WatchKind.profile, destination('web.shop:80'), new Worker());
    await turn();
    upstream.streams[1]!.listener.update(add([]));
    upstream.streams[1]!.listener.end({ code: 14, message: 'gone' });
    again();
    for (let step = 0; step < 10; step++) {
      clock.advance(10_000);
      upstream.streams.at(-1)!.listener.end({ code: 14, message: 'gone' });
    }
    expect(relay.stats()[1]).toMatchObject({ targets: 1, stale: 1 });
  });

  test('refuses targets beyond the bound, and drops unread ones first', async () => {
    const { relay } = setUp({ targetsMax: 2 });
    const cancel = relay.watch(WatchKind.profile, destination('a:80'), new Worker());
    relay.watch(WatchKind.profile, destination('b:80'), new Worker());
    const refused = new Worker();
    relay.watch(WatchKind.profile, destination('c:80'), refused);
    await turn();
    expect(refused.seen).toEqual(['end 8']);

    cancel();
    const accepted = new Worker();
    relay.watch(WatchKind.profile, destination('d:80'), accepted);
    await turn();
    expect(accepted.seen).toEqual([]);
  });

  test('keeps room for inbound policies, however many destinations applications ask for', async () => {
    const { upstream, relay } = setUp({ targetsMax: 10 });
    const workers = Array.from({ length: 10 }, () => new Worker());
    for (const [index, worker] of workers.entries()) {
      relay.watch(WatchKind.profile, destination(`10.0.0.${index}:80`), worker);
    }
    await turn();
    expect(workers.filter(({ seen }) => seen.length > 0)).toHaveLength(2);
    const victim = new Worker();
    relay.watch(WatchKind.inboundPolicy, PortSpec.encode({ workload: 'ns:shop', port: 80 }).finish(), victim);
    await turn();
    expect(victim.seen).toEqual([]);
    expect(upstream.streams.at(-1)!.kind).toBe(WatchKind.inboundPolicy);
  });

  test('refuses bytes that are no request', () => {
    const { relay } = setUp();
    expect(() => relay.watch(9, destination('a:80'), new Worker())).toThrow('open a watch of kind "9"');
    expect(() => relay.watch(WatchKind.profile, Uint8Array.of(0xff, 0xff), new Worker())).toThrow(
      'expected its request',
    );
    expect(() => relay.watch(WatchKind.profile, new Uint8Array(20_000), new Worker())).toThrow('"20000" bytes');
  });

  test('an update that is no protobuf is trouble of the stream, not of the workers', async () => {
    const { upstream, clock, relay } = setUp();
    const worker = new Worker();
    relay.watch(WatchKind.destination, destination('web.shop:80'), worker);
    await turn();
    upstream.streams[0]!.listener.update(add([1]));
    upstream.streams[0]!.listener.update(Uint8Array.of(0x0a, 0xff));
    expect(upstream.streams[0]!.isClosed).toBe(true);
    expect(worker.seen.at(-1)).toBe('stale 13');
    clock.advance(200);
    expect(upstream.streams).toHaveLength(2);
    expect([...worker.addresses]).toEqual(['1']);
  });
});
