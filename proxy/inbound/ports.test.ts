import { describe, expect, test } from 'vitest';
import { PortSpec, Server } from '#api/gen/inbound.ts';
import { WatchKind } from '#api/worker-link.ts';
import { FakeClock } from '#lib/clock.ts';
import { silentLog } from '#lib/log.ts';
import type { WatchListener } from '../control/watch.ts';
import { workerConfig } from '../testing.ts';
import { PORTS_MAX, Ports } from './ports.ts';

interface Stream {
  workload: string;
  port: number;
  listener: WatchListener;
  isOpen: boolean;
}

function make(inbound: Partial<ReturnType<typeof workerConfig>['inbound']> = {}) {
  const clock = new FakeClock();
  const streams: Stream[] = [];
  const config = { ...workerConfig(), inbound: { ...workerConfig().inbound, ...inbound } };
  const ports = new Ports(config, {
    transport: {
      open: (kind, request, listener) => {
        expect(kind).toBe(WatchKind.inboundPolicy);
        const stream = { ...PortSpec.decode(request), listener, isOpen: true };
        streams.push(stream);
        return {
          close: () => {
            stream.isOpen = false;
          },
        };
      },
    },
    clock,
    log: silentLog,
    random: () => 0,
  });
  return { clock, ports, streams, config };
}

const server = (name: string): Uint8Array =>
  Server.encode({
    protocol: { kind: { $case: 'opaque', value: {} } },
    serverIps: [],
    authorizations: [],
    labels: { group: 'policy.linkerd.io', kind: 'server', name },
  }).finish();

describe('policies of ports', () => {
  test('are the default until the service answers, then what it says', () => {
    const { ports, streams } = make({ defaultPolicy: 'deny' });
    const port = ports.get(8080);
    expect([port.current.ref.name, streams.length, streams[0]!.port]).toEqual(['deny', 1, 8080]);
    expect(streams[0]!.workload).toBe(workerConfig().outbound.policyWorkload);
    const seen: string[] = [];
    port.onChange((policy) => seen.push(policy.ref.name));
    streams[0]!.listener.update(server('web'));
    streams[0]!.listener.update(server('web2'));
    expect([seen, port.current.ref.name, ports.get(8080)]).toEqual([['web', 'web2'], 'web2', port]);
  });

  test('stay what they are when the service goes away', () => {
    const { ports, streams } = make();
    const port = ports.get(8080);
    let changes = 0;
    port.onChange(() => changes++);
    streams[0]!.listener.update(server('web'));
    streams[0]!.listener.end({ code: 14, message: 'gone' });
    expect([port.current.ref.name, changes]).toEqual(['web', 1]);
  });

  test('of opaque ports and of ports that require identity differ by default', () => {
    const { ports } = make({
      opaquePorts: [
        [25, 25],
        [3306, 3310],
      ],
      requireIdentityPorts: [[9000, 9001]],
    });
    expect([24, 25, 26, 3309, 3311].map((port) => ports.get(port).current.protocol.kind)).toEqual([
      'detect',
      'opaque',
      'detect',
      'opaque',
      'detect',
    ]);
    expect([8999, 9000, 9001].map((port) => ports.get(port).current.ref.name)).toEqual([
      'all-unauthenticated',
      'all-authenticated',
      'all-authenticated',
    ]);
  });

  test('of named ports are watched for ever, others until they are idle', () => {
    const { clock, ports, streams } = make({ ports: [8080], discoveryIdleMs: 90_000 });
    ports.get(9090);
    for (const stream of streams) stream.listener.update(server('web'));
    expect(ports.size).toBe(2);
    clock.advance(89_000);
    expect(ports.size).toBe(2);
    clock.advance(1_000);
    expect([ports.size, streams.map(({ port, isOpen }) => [port, isOpen])]).toEqual([
      1,
      [
        [8080, true],
        [9090, false],
      ],
    ]);
    expect(ports.get(9090).current.ref.name).toBe('all-unauthenticated');
  });

  test('of ports in use are not dropped', () => {
    const { clock, ports, streams } = make({ discoveryIdleMs: 1_000 });
    const port = ports.get(9090);
    const leave = port.onChange(() => {});
    streams[0]!.listener.update(server('web'));
    clock.advance(60_000);
    expect(ports.get(9090)).toBe(port);
    leave();
    clock.advance(1_000);
    expect(ports.size).toBe(0);
  });

  test('follow a changed default at once, unless the service has answered', () => {
    const { ports, streams, config } = make();
    const [open, answered] = [ports.get(1), ports.get(2)];
    const seen: string[] = [];
    open.onChange((policy) => seen.push(policy.ref.name));
    answered.onChange((policy) => seen.push(policy.ref.name));
    streams[1]!.listener.update(server('web'));
    ports.configure({ ...config, inbound: { ...config.inbound, defaultPolicy: 'deny' } });
    expect([seen, open.current.ref.name, answered.current.ref.name]).toEqual([['web', 'deny'], 'deny', 'web']);
  });

  test('are asked for anew for another workload', () => {
    const { ports, streams, config } = make({ ports: [8080] });
    streams[0]!.listener.update(server('web'));
    ports.configure({ ...config, outbound: { ...config.outbound, policyWorkload: 'other' } });
    expect(streams.map(({ workload, isOpen }) => [workload, isOpen])).toEqual([
      [config.outbound.policyWorkload, false],
      ['other', true],
    ]);
    expect(ports.get(8080).current.ref.name).toBe('all-unauthenticated');
  });

  test('follow the named ports of a changed configuration', () => {
    const { clock, ports, config } = make({ ports: [1], discoveryIdleMs: 1_000 });
    ports.configure({ ...config, inbound: { ...config.inbound, ports: [2] } });
    clock.advance(2_000);
    expect(ports.size).toBe(1);
  });

  test('are waited for a little, for what the default permits they may forbid', async () => {
    const { clock, ports, streams } = make();
    const answered = ports.get(7000);
    const waiting = answered.whenKnown(500);
    expect(waiting).not.toBeNull();
    streams.at(-1)!.listener.update(server('own'));
    await waiting;
    expect(answered.whenKnown(500)).toBeNull();

    const unreachable = ports.get(7001);
    const failing = unreachable.whenKnown(500);
    streams.at(-1)!.listener.end({ code: 14, message: 'agent is not connected' });
    await failing;
    expect(unreachable.whenKnown(500)).toBeNull();

    const silent = ports.get(7002);
    const first = silent.whenKnown(500);
    clock.advance(300);
    const second = silent.whenKnown(500);
    clock.advance(200);
    await Promise.all([first, second]);
    expect(silent.whenKnown(500)).toBeNull();
  });

  test('are bounded: a scan is refused, ports that the agent names are not', () => {
    const { clock, ports } = make({ ports: [9], discoveryIdleMs: 90_000 });
    for (let port = 1_000; ports.size < PORTS_MAX; port++) ports.get(port);
    expect(() => ports.get(50_000)).toThrow(/1024 ports are watched already/);
    expect(ports.get(9).port).toBe(9);
    clock.advance(90_000);
    expect(ports.get(50_000).port).toBe(50_000);
  });

  test('that cannot be understood let nothing pass', () => {
    const { ports, streams } = make();
    const port = ports.get(8080);
    const empty = { serverIps: [], authorizations: [], labels: {}, protocol: undefined };
    streams[0]!.listener.update(Server.encode(empty).finish());
    expect([port.current.protocol.kind, port.current.authorizations]).toEqual(['invalid', []]);
  });
});
