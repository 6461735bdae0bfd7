import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { closeListeners, openListeners } from '#agent/netns.ts';
import { EbpfRedirector } from '#agent/redirect/ebpf.ts';
import { removeLink } from '#agent/redirect/ebpf-links.ts';
import { NftablesRedirector } from '#agent/redirect/nftables.ts';
import { chooseRedirector, probeRedirector } from '#agent/redirect/probe.ts';
import type { Redirector, RedirectTarget } from '#agent/redirect/redirector.ts';
import { BpfMap, linkInfo, openPinned } from '#lib/bpf.ts';
import { close } from '#lib/libc.ts';
import { silentLog } from '#lib/log.ts';
import { Ground, MeshedPod, makeTarget, OBJECT_PATH, startRelay } from './support/mesh.ts';
import { ip, Network, type Place } from './support/network.ts';
import { Peer } from './support/peer.ts';

// What holds while parts of the node come and go: listeners, workers, agents, namespaces.

let ground: Ground;
let network: Network;
let redirector: EbpfRedirector;
let a: Place;
let b: Place;
let c: Place;
let client: Peer;
let server: Peer;
let outsider: Peer;

beforeAll(async () => {
  ground = new Ground('hdredl');
  network = new Network('hdredl');
  a = network.addPod('a');
  b = network.addPod('b');
  c = network.addPod('c');
  client = await Peer.start(a);
  server = await Peer.start(b);
  outsider = await Peer.start(c);
  await server.serve('b', 8080);
});

beforeEach(() => {
  redirector = ground.redirector();
});

afterEach(() => {
  for (const podUid of redirector.attachedPods()) redirector.detach({ podUid });
  redirector.close();
});

afterAll(async () => {
  for (const peer of [client, server, outsider]) await peer?.stop();
  network?.close();
  ground?.close();
});

const dial = () => client.dial({ host: b.ipv4, port: 8080, echo: 'x' });
const dial6 = () => client.dial({ host: b.ipv6, port: 8080, echo: 'x' });

function pinned(name: string): BpfMap {
  return new BpfMap(openPinned(path.join(ground.bpffsDir, 'v1/maps', name)), name);
}

function linkPins(): string[] {
  return readdirSync(path.join(ground.bpffsDir, 'v1/links'));
}

describe('when no listener is left', () => {
  test.each([
    { failOpen: false, error: 'ECONNREFUSED', echo: null },
    { failOpen: true, error: null, echo: 'x' },
  ])('fail open: $failOpen', async ({ failOpen, error, echo }) => {
    const podA = await MeshedPod.start(redirector, a, { plan: { failOpen } });
    expect(await dial()).toMatchObject({ error: null, echo: 'x' });
    expect((await podA.relay.report()).connections.outbound4).toBe(1);
    await podA.relay.stop();
    closeListeners(podA.target.listeners);
    const before = redirector.counters();
    expect(await dial()).toMatchObject({ error, echo });
    expect(await dial6()).toMatchObject({ error, echo });
    const after = redirector.counters();
    const outcome = failOpen ? 'outbound_skipped_no_listener' : 'outbound_refused_no_listener';
    expect(after[outcome]! - before[outcome]!).toBe(2n);
    redirector.detach(podA.target);

    const podB = await MeshedPod.start(redirector, b, { plan: { failOpen } });
    expect(await dial()).toMatchObject({ error: null, echo: 'x' });
    expect((await podB.relay.report()).connections.inbound4).toBe(1);
    await podB.relay.stop();
    closeListeners(podB.target.listeners);
    expect(await dial()).toMatchObject({ error, echo });
    expect(await dial6()).toMatchObject({ error, echo });
    const last = redirector.counters();
    const inbound = failOpen ? 'inbound_skipped_no_listener' : 'inbound_refused_no_listener';
    expect(last[inbound]! - after[inbound]!).toBe(2n);
    redirector.detach(podB.target);
  });

  test('a refused connection leaves no destination for the next one from its port', async () => {
    const pod = await MeshedPod.start(redirector, a);
    await pod.relay.stop();
    closeListeners(pod.target.listeners);
    const from = { bind: a.ipv4, bindPort: 34_567 };
    expect((await client.dial({ host: b.ipv4, port: 8080, ...from })).error).toBe('ECONNREFUSED');
    const pending = pinned('pending');
    // struct flow: the source port is behind 8 bytes of namespace and 16 of address.
    const remembered = () => pending.keys().filter((key) => key.readUInt16BE(24) === from.bindPort).length;
    expect(remembered()).toBe(1);
    const target = { ...pod.target, listeners: openListeners(a.netnsFd) };
    redirector.replaceListeners(target);
    const relay = await startRelay(redirector, a, target.listeners);
    const before = redirector.counters();
    expect((await client.dial({ host: a.ipv4, port: 4140, ...from })).reply).toBe(null);
    expect(redirector.counters().outbound_accepted_unknown! - before.outbound_accepted_unknown!).toBe(1n);
    expect(remembered()).toBe(0);
    expect((await relay.report()).connections.outbound4).toBe(0);
    pending.close();
    redirector.detach(target);
    await relay.stop();
    closeListeners(target.listeners);
  });
});

describe('workers', () => {
  test('one that dies while its listeners are held makes clients wait for its successor', async () => {
    const pod = await MeshedPod.start(redirector, a);
    await pod.relay.stop();
    const waiting = client.flood({ host: b.ipv4, port: 8080, connections: 20, parallel: 20 });
    const successor = await startRelay(redirector, a, pod.target.listeners);
    expect(await waiting).toEqual({ complete: 20, failures: [] });
    expect((await successor.report()).connections.outbound4).toBe(20);
    redirector.detach(pod.target);
    await successor.stop();
    closeListeners(pod.target.listeners);
  });

  test('are replaced under load on the same listeners and on new ones, without a failure', async () => {
    const podA = await MeshedPod.start(redirector, a);
    const podB = await MeshedPod.start(redirector, b);
    const load = client.flood({ host: b.ipv4, port: 8080, connections: 1500, parallel: 4 });
    for (const pod of [podA, podB, podA, podB]) {
      const successor = await startRelay(redirector, pod.place, pod.target.listeners);
      const drained = pod.relay.drain();
      pod.relay = successor;
      await drained;
    }
    expect(await load).toEqual({ complete: 1500, failures: [] });

    // New listeners: the kernel hands each new connection to the one in the slot, never to none.
    const second = client.flood({ host: b.ipv4, port: 8080, connections: 500, parallel: 4 });
    const target = { ...podA.target, listeners: openListeners(a.netnsFd) };
    const successor = await startRelay(redirector, a, target.listeners);
    redirector.replaceListeners(target);
    expect(redirector.verify(target)).toEqual([]);
    expect(await second).toEqual({ complete: 500, failures: [] });
    const { connections } = await successor.report();
    expect(connections.outbound4).toBeGreaterThan(0);
    await podA.stop();
    await podB.stop();
    await successor.stop();
    closeListeners(target.listeners);
  });
});

describe('agents', () => {
  test('the next one takes over what the last one attached and replaces the programs under load', async () => {
    const podA = await MeshedPod.start(redirector, a);
    const podB = await MeshedPod.start(redirector, b);
    const programs = () => {
      const pins = linkPins();
      return new Map(
        pins.map((pin) => {
          const fd = openPinned(path.join(ground.bpffsDir, 'v1/links', pin));
          const { programId } = linkInfo(fd);
          close(fd);
          return [pin, programId];
        }),
      );
    };
    const redirected = () => redirector.counters().outbound_redirected!;
    const counted = redirected();
    const load = client.flood({ host: b.ipv4, port: 8080, connections: 1500, parallel: 4 });
    await vi.waitFor(() => expect(redirected()).toBeGreaterThan(counted), { timeout: 5000 });
    const before = programs();
    redirector.close();
    // Nobody runs: the kernel keeps the pods meshed.
    expect(await outsider.dial({ host: b.ipv4, port: 8080 })).toMatchObject({ reply: { peer: `::ffff:${b.ipv4}` } });
    redirector = ground.redirector();
    // Counters go on, and the load is not over.
    expect(redirected()).toBeGreaterThan(counted);
    expect(redirected()).toBeLessThan(counted + 1500n);
    const after = programs();
    expect([...after.keys()].sort()).toEqual([...before.keys()].sort());
    expect(after.size).toBe(10);
    for (const [pin, program] of after) expect(program).not.toBe(before.get(pin));
    expect(redirector.attachedPods().sort()).toEqual([podA.target.podUid, podB.target.podUid].sort());
    expect(redirector.verify(podA.target)).toEqual([]);
    expect(redirector.verify(podB.target)).toEqual([]);
    redirector.attach(podA.target);
    expect(await load).toEqual({ complete: 1500, failures: [] });
    expect(redirected() - counted).toBe(1500n);
    expect((await podA.relay.report()).connections.outbound4).toBe(1500);
    redirector.detach({ podUid: podA.target.podUid });
    redirector.detach({ podUid: podB.target.podUid });
    expect(redirector.attachedPods()).toEqual([]);
    for (const pod of [podA, podB]) {
      await pod.relay.stop();
      closeListeners(pod.target.listeners);
    }
  });

  test('programs of another version go when asked, those of this one stay', async () => {
    const other = path.join(ground.bpffsDir, 'v0/links');
    execFileSync('mkdir', ['-p', other]);
    const pod = await MeshedPod.start(redirector, a);
    redirector.retireOtherSchemas();
    expect(existsSync(path.dirname(other))).toBe(false);
    expect(redirector.verify(pod.target)).toEqual([]);
    await pod.stop();
  });

  test('an unfinished load of a dead one is swept away', () => {
    const leftover = path.join(ground.bpffsDir, 'loading-4194303');
    execFileSync('mkdir', ['-p', leftover]);
    redirector.close();
    redirector = ground.redirector();
    expect(existsSync(leftover)).toBe(false);
  });

  test('an object that does not load says why, and what runs goes on', async () => {
    const pod = await MeshedPod.start(redirector, a);
    const options = { bpffsDir: ground.bpffsDir, cgroupRoot: ground.cgroupRoot, log: silentLog };
    const missing = new EbpfRedirector({ ...options, objectPath: '/nowhere/heddle.bpf.o' });
    expect(() => missing.start()).toThrow('load eBPF object "/nowhere/heddle.bpf.o": expected the file');
    const broken = new EbpfRedirector({ ...options, objectPath: path.resolve('package.json') });
    expect(() => broken.start()).toThrow('expected Linux 5.15 or newer');
    expect(() => broken.counters()).toThrow('expected start() before');
    expect(broken.attachedPods()).toEqual([pod.target.podUid]);
    expect(redirector.verify(pod.target)).toEqual([]);
    expect(await dial()).toMatchObject({ error: null, echo: 'x' });
    await pod.stop();
  });

  test('two on one machine serve their own pods and do not meet', async () => {
    const elsewhere = path.join(ground.directory, 'bpf2');
    const second = ground.redirector(elsewhere);
    const podA = await MeshedPod.start(redirector, a);
    const podB = await MeshedPod.start(second, b);
    expect(await dial()).toMatchObject({ error: null, echo: 'x' });
    expect((await podA.relay.report()).connections.outbound4).toBe(1);
    expect((await podB.relay.report()).connections.inbound4).toBe(1);
    expect(redirector.attachedPods()).toEqual([podA.target.podUid]);
    expect(second.attachedPods()).toEqual([podB.target.podUid]);
    second.uninstall();
    expect(existsSync(elsewhere)).toBe(false);
    expect(await dial()).toMatchObject({ error: null, reply: { peer: `::ffff:${a.ipv4}` } });
    expect((await podA.relay.report()).connections.outbound4).toBe(2);
    expect((await podB.relay.report()).connections.inbound4).toBe(1);
    await podA.stop();
    await podB.relay.stop();
    closeListeners(podB.target.listeners);
  });
});

describe('an application that starts again', () => {
  test('gets its port while steered connections hold it, and did not without the bind hook', async () => {
    const pod = await MeshedPod.start(redirector, b);
    await outsider.hold(b.ipv4, 8080);
    await outsider.hold(b.ipv6, 8080);
    await server.stopServing();
    const attempts = [
      { host: '0.0.0.0', port: 8080, reuse: false },
      { host: '::', port: 8080, reuse: false },
      { host: b.ipv4, port: 8080, reuse: true },
    ];
    const before = redirector.counters().bind_shared!;
    for (const attempt of attempts) expect(await server.bindAndListen(attempt)).toBe(null);
    expect(redirector.counters().bind_shared! - before).toBe(3n);

    for (const name of ['heddle_bind4', 'heddle_bind6']) removeLink(path.join(ground.bpffsDir, 'v1/links', name));
    expect(await server.bindAndListen(attempts[0]!)).toBe('EADDRINUSE');
    expect(redirector.verify(pod.target).map(({ cause }) => cause)).toEqual([
      expect.stringMatching(/heddle_bind4" is not pinned/),
      expect.stringMatching(/heddle_bind6" is not pinned/),
    ]);
    redirector.attach(pod.target);
    expect(redirector.verify(pod.target)).toEqual([]);
    expect(await server.bindAndListen(attempts[0]!)).toBe(null);

    // Connections in TIME_WAIT hold it as well.
    await outsider.release();
    expect(await server.bindAndListen(attempts[0]!)).toBe(null);
    await server.serve('b', 8080);
    expect(await dial()).toMatchObject({ error: null, echo: 'x' });
    await pod.stop();
  });
});

describe('verification', () => {
  test('finds each thing that is not as it was attached, and attaching again repairs it', async () => {
    const pod = await MeshedPod.start(redirector, a, {
      plan: { skipOutboundPorts: [{ from: 25, to: 25 }], skipInboundCidrs: ['10.0.0.0/8'] },
    });
    const { target } = pod;
    const links = path.join(ground.bpffsDir, 'v1/links');
    const podPin = linkPins().find((name) => name.startsWith('pod_'))!;
    const detachLink = (pin: string) =>
      execFileSync('bpftool', ['link', 'detach', 'pinned', path.join(links, pin)], { stdio: 'ignore' });
    const clear =
      (name: string, keep = 0) =>
      () => {
        const map = pinned(name);
        const filled = map.keys().filter((key) => map.lookup(key) !== null);
        for (const key of filled) map.delete(key);
        map.close();
      };
    const damages: [string, () => void][] = [
      [`link "${path.join(links, podPin)}" is not pinned`, () => removeLink(path.join(links, podPin))],
      [`link "${path.join(links, podPin)}" is detached`, () => detachLink(podPin)],
      [`link "${path.join(links, 'heddle_connect4')}" is detached`, () => detachLink('heddle_connect4')],
      [
        `link "${path.join(links, 'heddle_sockops')}" is not pinned`,
        () => removeLink(path.join(links, 'heddle_sockops')),
      ],
      ['entry is missing in map "pods"', clear('pods')],
      [`address "${a.ipv4}" is not steered`, clear('addresses')],
      ['a skipped port is missing', clear('skip_ports')],
      ['a skipped network is missing', clear('skip_networks')],
      [`slot "${target.slot}" holds nothing for inbound4`, clear('listeners')],
    ];
    expect(redirector.verify(target)).toEqual([]);
    for (const [cause, damage] of damages) {
      damage();
      const causes = redirector.verify(target).map((drift) => drift.cause);
      expect(causes.join('\n')).toContain(cause);
      redirector.attach(target);
      expect(redirector.verify(target)).toEqual([]);
    }
    const other = openListeners(a.netnsFd);
    expect(redirector.verify({ ...target, listeners: other })[0]).toEqual({
      kind: 'listener',
      cause: `slot "${target.slot}" holds another socket for inbound4`,
    });
    closeListeners(other);
    expect(redirector.verify({ ...target, listeners: other })[0]!.cause).toContain('does not listen');
    expect(redirector.verify({ ...target, plan: { ...target.plan, failOpen: true } })[0]!.cause).toContain(
      'differs from the plan',
    );
    expect(await dial()).toMatchObject({ error: null, echo: 'x' });
    await pod.stop();
  });

  test('a changed plan takes effect when the pod is attached again', async () => {
    const pod = await MeshedPod.start(redirector, a);
    expect(await dial()).toMatchObject({ reply: { peer: `::ffff:${a.ipv4}` } });
    expect((await pod.relay.report()).connections.outbound4).toBe(1);
    const skipping = { ...pod.target, plan: { ...pod.target.plan, skipOutboundPorts: [{ from: 8080, to: 8080 }] } };
    redirector.attach(skipping);
    await dial();
    expect((await pod.relay.report()).connections.outbound4).toBe(1);
    redirector.attach(pod.target);
    await dial();
    expect((await pod.relay.report()).connections.outbound4).toBe(2);
    await pod.stop();
  });

  test('an address that the pod got later is found, steered, and let go of', async () => {
    const pod = await MeshedPod.start(redirector, b);
    ip(b.name, ['addr add 10.77.0.99/24 dev eth0']);
    const late = () => outsider.dial({ host: '10.77.0.99', port: 8080 });
    expect((await late()).reply!.peer).toBe(`::ffff:${c.ipv4}`);
    expect(redirector.verify(pod.target).map(({ cause }) => cause)).toEqual([
      `pod "${pod.target.podUid}": address "10.77.0.99" is not steered`,
    ]);
    redirector.attach(pod.target);
    expect((await late()).reply!.peer).toBe(`::ffff:${b.ipv4}`);
    expect((await pod.destinations()).at(-1)).toBe('inbound4 10.77.0.99:8080');
    await pod.stop();
    expect((await late()).reply!.peer).toBe(`::ffff:${c.ipv4}`);
    ip(b.name, ['addr del 10.77.0.99/24 dev eth0']);
  });
});

describe('pods', () => {
  test('two with one address or one slot: the second is refused with the name of the first, which goes on', async () => {
    const first = await MeshedPod.start(redirector, a);
    const second = makeTarget(b);
    expect(() => redirector.attach({ ...second, ips: [b.ipv4, a.ipv6] })).toThrow(
      `redirect pod "${second.podUid}": address "${a.ipv6}" is in use by pod "${first.target.podUid}"`,
    );
    expect(() => redirector.attach({ ...second, slot: first.target.slot })).toThrow(
      `slot "${first.target.slot}" is in use by pod "${first.target.podUid}"`,
    );
    expect(redirector.attachedPods()).toEqual([first.target.podUid]);
    expect(redirector.verify(first.target)).toEqual([]);
    expect(await dial()).toMatchObject({ error: null, echo: 'x' });
    expect((await first.relay.report()).connections.outbound4).toBe(1);
    await first.stop();
    closeListeners(second.listeners);
  });

  test('an address that two have on their interfaces is steered in neither, and in the last one when one is gone', async () => {
    ip(a.name, ['addr add 192.0.2.7/32 dev eth0']);
    ip(b.name, ['addr add 192.0.2.7/32 dev eth0']);
    ip(c.name, [`route add 192.0.2.7/32 via ${b.ipv4}`]);
    const shared = () => outsider.dial({ host: '192.0.2.7', port: 8080 });
    const podB = await MeshedPod.start(redirector, b);
    expect((await shared()).reply!.peer).toBe('::ffff:192.0.2.7');
    expect((await podB.destinations()).at(-1)).toBe('inbound4 192.0.2.7:8080');
    const podA = await MeshedPod.start(redirector, a);
    expect((await shared()).reply!.peer).toBe(`::ffff:${c.ipv4}`);
    expect(redirector.verify(podA.target)).toEqual([]);
    expect(redirector.verify(podB.target)).toEqual([]);
    await podA.stop();
    expect((await shared()).reply!.peer).toBe('::ffff:192.0.2.7');
    await podB.stop();
    ip(a.name, ['addr del 192.0.2.7/32 dev eth0']);
    ip(b.name, ['addr del 192.0.2.7/32 dev eth0']);
    ip(c.name, ['route del 192.0.2.7/32']);
  });

  test('one whose namespace went first is detached, and its address may be used again before', async () => {
    const gone = network.addPod('gone');
    const pod = await MeshedPod.start(redirector, gone);
    await pod.relay.stop();
    closeListeners(pod.target.listeners);
    network.removePod(gone);
    expect(redirector.attachedPods()).toEqual([pod.target.podUid]);
    const successor = makeTarget(c);
    // The kernel takes a moment to end a namespace; until then the address is still somebody's.
    await vi.waitFor(() => redirector.attach({ ...successor, ips: [gone.ipv4, c.ipv4] }), { timeout: 5000 });
    expect(redirector.attachedPods()).toEqual([successor.podUid]);
    redirector.detach(pod.target);
    redirector.detach(successor);
    redirector.detach(successor);
    expect(redirector.attachedPods()).toEqual([]);
    closeListeners(successor.listeners);
  });

  test.each([
    { failOpen: false, error: 'ECONNREFUSED' },
    { failOpen: true, error: null },
  ])('one with a single family does not reach neighbours in the other: $error', async ({ failOpen, error }) => {
    const single = network.addPod(failOpen ? 'open' : 'closed');
    // A route and the link-local address are enough to talk to whoever is on the link.
    ip(single.name, [
      'addr flush dev eth0 scope global',
      `addr add ${single.ipv4}/24 dev eth0`,
      'route add fd77::/64 dev eth0',
    ]);
    const app = await Peer.start(single);
    expect((await app.dial({ host: b.ipv6, port: 8080 })).error).toBe(null);
    const target = { ...makeTarget(single, { failOpen }), ips: [single.ipv4] };
    const relay = await startRelay(redirector, single, target.listeners);
    redirector.attach(target);
    expect(redirector.verify(target)).toEqual([]);
    expect(await app.dial({ host: b.ipv4, port: 8080, echo: 'x' })).toMatchObject({ error: null, echo: 'x' });
    const outcome = failOpen ? 'outbound_skipped_no_family' : 'outbound_refused_no_family';
    const before = redirector.counters()[outcome]!;
    expect((await app.dial({ host: b.ipv6, port: 8080 })).error).toBe(error);
    expect(redirector.counters()[outcome]! - before).toBe(1n);
    expect((await relay.report()).connections).toMatchObject({ outbound4: 1, outbound6: 0 });
    redirector.detach(target);
    await relay.stop();
    await app.stop();
    closeListeners(target.listeners);
    network.removePod(single);
  });

  test('a new sandbox of the same pod replaces the old one, and the late end of the old one changes nothing', async () => {
    const old = makeTarget(a);
    redirector.attach({ ...old, podUid: 'same-pod' });
    const fresh = makeTarget(c);
    redirector.attach({ ...fresh, podUid: 'same-pod', slot: old.slot });
    redirector.detach({ ...old, podUid: 'same-pod' });
    expect(redirector.attachedPods()).toEqual(['same-pod']);
    expect(redirector.verify({ ...fresh, podUid: 'same-pod', slot: old.slot })).toEqual([]);
    redirector.detach({ podUid: 'same-pod' });
    expect(redirector.attachedPods()).toEqual([]);
    closeListeners(old.listeners);
    closeListeners(fresh.listeners);
  });

  test('attaching undoes itself when it fails half-way', async () => {
    const target = makeTarget(a);
    closeListeners(target.listeners);
    expect(() => redirector.attach(target)).toThrow('expected a listening socket');
    const wrongNetns = { ...makeTarget(a), netnsFd: Number.parseInt('999', 10) };
    expect(() => redirector.attach(wrongNetns)).toThrow('enter network namespace of descriptor "999"');
    expect(redirector.attachedPods()).toEqual([]);
    expect(linkPins().filter((name) => name.startsWith('pod_'))).toEqual([]);
    for (const name of ['addresses', 'listeners', 'skip_ports', 'skip_networks']) {
      const map = pinned(name);
      expect(map.keys().filter((key) => name !== 'listeners' || map.lookup(key) !== null)).toEqual([]);
      map.close();
    }
    expect(await dial()).toMatchObject({ reply: { peer: `::ffff:${a.ipv4}` } });
    closeListeners(wrongNetns.listeners);
  });
});

test('uninstalling leaves nothing: pods connect directly, pins and mount are gone', async () => {
  const podA = await MeshedPod.start(redirector, a);
  const podB = await MeshedPod.start(redirector, b);
  await client.hold(b.ipv4, 8080);
  expect((await podA.relay.report()).connections.outbound4).toBe(1);
  redirector.uninstall();
  expect(existsSync(ground.bpffsDir)).toBe(false);
  expect(await dial()).toMatchObject({ error: null, reply: { peer: `::ffff:${a.ipv4}` } });
  // What was open stays open.
  expect(await client.touchHeld()).toBe(1);
  await client.release();
  for (const pod of [podA, podB]) {
    await pod.relay.stop();
    closeListeners(pod.target.listeners);
  }
  redirector.uninstall();
  redirector = ground.redirector();
  expect(redirector.attachedPods()).toEqual([]);
});

describe('the probe', () => {
  const withObject = (objectPath: string) =>
    new EbpfRedirector({ bpffsDir: ground.bpffsDir, cgroupRoot: ground.cgroupRoot, objectPath, log: silentLog });

  test('carries a connection through the programs and leaves nothing behind', () => {
    const before = redirector.counters();
    probeRedirector(redirector);
    const after = redirector.counters();
    expect(after.outbound_redirected! - before.outbound_redirected!).toBe(1n);
    expect(after.outbound_accepted! - before.outbound_accepted!).toBe(1n);
    expect(redirector.attachedPods()).toEqual([]);
    expect(linkPins().filter((name) => name.startsWith('pod_'))).toEqual([]);
  });

  test('notices that a program is missing', () => {
    for (const [program, symptom] of [
      ['heddle_connect4', 'did not arrive at the listener'],
      ['heddle_sockops', 'the original destination is "undefined:undefined"'],
      ['heddle_getsockopt', 'the original destination is "undefined:undefined"'],
    ] as const) {
      const broken: Redirector = Object.create(redirector, {
        attach: {
          value: (target: RedirectTarget) => {
            redirector.attach(target);
            removeLink(path.join(ground.bpffsDir, 'v1/links', program));
          },
        },
        detach: { value: (target: RedirectTarget) => redirector.detach(target) },
      });
      expect(() => probeRedirector(broken)).toThrow(symptom);
    }
  });

  test('chooses the first that works, and says why another does not', () => {
    redirector.uninstall();
    const missing = withObject('/nowhere/heddle.bpf.o');
    const { redirector: chosen, rejected } = chooseRedirector([missing, redirector], silentLog);
    expect(chosen).toBe(redirector);
    expect(rejected.map(({ kind, reason }) => [kind, reason.code])).toEqual([['ebpf', 'bpf-object-missing']]);
    expect(() => chooseRedirector([missing], silentLog)).toThrow(
      'expected eBPF or nftables to work (ebpf: load eBPF object',
    );
    redirector = ground.redirector();
  });

  test('does not give up a kind that has pods', async () => {
    const pod = await MeshedPod.start(redirector, a);
    const failing = withObject('/nowhere/heddle.bpf.o');
    const stateDir = path.join(ground.directory, 'nftables');
    const other = new NftablesRedirector({ stateDir, log: silentLog });
    expect(() => chooseRedirector([failing, other], silentLog)).toThrow('load eBPF object "/nowhere/heddle.bpf.o"');
    expect(() => chooseRedirector([other], silentLog, [failing])).toThrow(
      'redirect by "nftables": pods of this node are redirected by "ebpf"',
    );
    const working = withObject(OBJECT_PATH);
    expect(chooseRedirector([other, working], silentLog).redirector).toBe(working);
    expect(working.verify(pod.target)).toEqual([]);
    working.close();
    expect(existsSync(stateDir)).toBe(false);
    expect(await dial()).toMatchObject({ error: null, echo: 'x' });
    await pod.stop();
  });
});
