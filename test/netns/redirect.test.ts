import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { EbpfRedirector } from '#agent/redirect/ebpf.ts';
import { Ground, MeshedPod } from './support/mesh.ts';
import { ip, Network, type Place } from './support/network.ts';
import { Peer } from './support/peer.ts';

// Pods a and b are meshed, c is not. Servers echo and say who they think the client is: a server behind a relay sees
// its own pod's address, one that is reached directly sees the client's.

const PORT = 8080;
let latePort = 9100;
const SKIPPED_OUT = 9005;
const SKIPPED_IN = 9505;

let ground: Ground;
let network: Network;
let redirector: EbpfRedirector;
let a: Place;
let b: Place;
let c: Place;
let appA: Peer;
let appB: Peer;
let appC: Peer;
let nodePeer: Peer;
let podA: MeshedPod;
let podB: MeshedPod;

beforeAll(async () => {
  ground = new Ground('hdred');
  network = new Network('hdred');
  a = network.addPod('a');
  b = network.addPod('b');
  c = network.addPod('c');
  ip(network.node.name, [
    'addr add 169.254.169.254/32 dev br0',
    'addr add 169.254.1.1/32 dev br0',
    'addr add fd00:ec2::254/128 dev br0 nodad',
    'addr add fd00:ec2::255/128 dev br0 nodad',
  ]);
  appA = await Peer.start(a);
  appB = await Peer.start(b);
  appC = await Peer.start(c);
  nodePeer = await Peer.start(network.node);
  for (const port of [PORT, SKIPPED_OUT, SKIPPED_OUT + 100, SKIPPED_IN, SKIPPED_IN + 100]) await appB.serve('b', port);
  await appB.serveUdp(5353);
  await appC.serve('c', PORT);
  await nodePeer.serve('node', 80);
  redirector = ground.redirector();
});

afterAll(async () => {
  for (const peer of [appA, appB, appC, nodePeer]) await peer?.stop();
  network?.close();
  ground?.close();
});

async function mesh(): Promise<void> {
  podA = await MeshedPod.start(redirector, a, {
    plan: { skipOutboundPorts: [{ from: 9000, to: 9010 }], skipOutboundCidrs: ['10.77.0.4/32', 'fd77::4/128'] },
  });
  podB = await MeshedPod.start(redirector, b, {
    plan: { skipInboundPorts: [{ from: 9500, to: 9510 }], skipInboundCidrs: [`${network.node.ipv4}/32`] },
  });
}

/** What both relays forwarded since the last call, as `a outbound4 10.77.0.3:8080`. */
const forwarded = (() => {
  let seen = { a: 0, b: 0 };
  return Object.assign(
    async () => {
      const [fromA, fromB] = await Promise.all([podA.destinations(), podB.destinations()]);
      const fresh = [
        ...fromA.slice(seen.a).map((line) => `a ${line}`),
        ...fromB.slice(seen.b).map((line) => `b ${line}`),
      ];
      seen = { a: fromA.length, b: fromB.length };
      return fresh;
    },
    {
      restart: () => {
        seen = { a: 0, b: 0 };
      },
    },
  );
})();

const FORMS = [
  { form: 'IPv4', host: () => b.ipv4, local: () => a.ipv4, family: 4, seen: () => b.ipv4 },
  { form: 'IPv6', host: () => b.ipv6, local: () => a.ipv6, family: 6, seen: () => b.ipv6 },
  { form: 'v4-mapped', host: () => `::ffff:${b.ipv4}`, local: () => `::ffff:${a.ipv4}`, family: 4, seen: () => b.ipv4 },
] as const;

/** As a dual-stack server writes it. */
const mapped = (address: string) => (address.includes(':') ? address : `::ffff:${address}`);

test.each(FORMS)('control: unmeshed, $form goes straight from pod to pod', async ({ host, local }) => {
  const result = await appA.dial({ host: host(), port: PORT, echo: 'warp' });
  expect(result).toMatchObject({ error: null, echo: 'warp', peer: { address: host(), port: PORT } });
  expect(result.local!.address).toBe(local());
  expect(result.reply).toMatchObject({ peer: mapped(local().replace('::ffff:', '')), isNoDelay: false });
  expect(result.isNoDelay).toBe(false);
});

describe('between two meshed pods', () => {
  beforeAll(async () => {
    await mesh();
    forwarded.restart();
  });

  afterAll(async () => {
    await podA.stop();
    await podB.stop();
  });

  afterEach(async () => {
    await forwarded();
  });

  describe.each(FORMS)('$form', ({ host, local, family, seen }) => {
    const through = () => [`a outbound${family} ${seen()}:${PORT}`, `b inbound${family} ${seen()}:${PORT}`];

    test('both relays learn where it was going, and nobody else notices', async () => {
      const result = await appA.dial({ host: host(), port: PORT, echo: 'weft' });
      expect(result.error).toBe(null);
      expect(result.echo).toBe('weft');
      expect(result.peer).toEqual({ address: host(), port: PORT });
      expect(result.local!.address).toBe(local());
      expect(result.reply).toMatchObject({
        server: 'b',
        peer: mapped(seen()),
        localAddress: mapped(seen()),
        localPort: PORT,
      });
      expect(await forwarded()).toEqual(through());
    });

    test('programs that leave Nagle on do not wait for delayed acknowledgements', async () => {
      // A listener inherits from when it was bound: this one is bound in a meshed pod.
      const port = ++latePort;
      await appB.serve('late', port);
      const result = await appA.dial({ host: host(), port });
      expect(result).toMatchObject({ error: null, isNoDelay: true, reply: { server: 'late', isNoDelay: true } });
      await forwarded();
    });

    test('from a bound address and port', async () => {
      const result = await appA.dial({ host: host(), port: PORT, bind: local(), bindPort: 33_333, echo: 'weft' });
      expect(result).toMatchObject({ error: null, echo: 'weft', local: { address: local(), port: 33_333 } });
      expect(await forwarded()).toEqual(through());
    });

    test('bound to a device', async () => {
      const result = await appA.dial({ host: host(), port: PORT, device: 'eth0', echo: 'weft' });
      expect(result).toMatchObject({ error: null, echo: 'weft' });
      expect(await forwarded()).toEqual(through());
    });

    test('with TCP fast open', async () => {
      const result = await appA.dial({ host: host(), port: PORT, fastOpen: true, echo: 'weft' });
      expect(result).toMatchObject({ error: null, echo: 'tfoweft', peer: { address: host(), port: PORT } });
      expect(await forwarded()).toEqual(through());
    });

    test('with MPTCP', async () => {
      const result = await appA.dial({ host: host(), port: PORT, mptcp: true, echo: 'weft' });
      expect(result).toMatchObject({ error: null, echo: 'weft' });
      expect(await forwarded()).toEqual(through());
    });
  });

  test('many at once, half of them to a port that nobody serves', async () => {
    const before = redirector.counters();
    const [good, bad] = await Promise.all([
      appA.flood({ host: b.ipv4, port: PORT, connections: 200, parallel: 8 }),
      appC.flood({ host: b.ipv6, port: 4, connections: 20, parallel: 4 }),
    ]);
    expect(good).toEqual({ complete: 200, failures: [] });
    expect(bad.complete).toBe(0);
    const after = redirector.counters();
    expect(after.outbound_accepted! - before.outbound_accepted!).toBe(200n);
    expect(after.outbound_accepted_unknown).toBe(before.outbound_accepted_unknown);
  });

  test('an unmeshed client reaches the application through the relay, an unmeshed server is reached through it', async () => {
    const inward = await appC.dial({ host: b.ipv4, port: PORT });
    expect(inward).toMatchObject({ error: null, peer: { address: b.ipv4, port: PORT } });
    expect(inward.reply!.peer).toBe(mapped(b.ipv4));
    expect(await forwarded()).toEqual([`b inbound4 ${b.ipv4}:${PORT}`]);
    const outward = await appA.dial({ host: network.node.ipv4, port: 80 });
    expect(outward.reply).toMatchObject({ server: 'node', peer: mapped(a.ipv4) });
    expect(await forwarded()).toEqual([`a outbound4 ${network.node.ipv4}:80`]);
  });

  describe('left alone', () => {
    test.each([SKIPPED_OUT, SKIPPED_OUT + 100])('outbound port %i: skipped or, beside the range, not', async (port) => {
      const result = await appA.dial({ host: b.ipv4, port });
      expect(result.error).toBe(null);
      const outbound = port === SKIPPED_OUT ? [] : [`a outbound4 ${b.ipv4}:${port}`];
      expect(await forwarded()).toEqual([...outbound, `b inbound4 ${b.ipv4}:${port}`]);
    });

    test.each([SKIPPED_IN, SKIPPED_IN + 100])('inbound port %i: skipped or, beside the range, not', async (port) => {
      const result = await appC.dial({ host: b.ipv6, port });
      expect(result.error).toBe(null);
      expect(result.reply!.peer).toBe(port === SKIPPED_IN ? c.ipv6 : b.ipv6);
      expect(await forwarded()).toEqual(port === SKIPPED_IN ? [] : [`b inbound6 ${b.ipv6}:${port}`]);
    });

    test.each([
      { network: 'IPv4', host: () => c.ipv4, client: () => a.ipv4 },
      { network: 'IPv6', host: () => c.ipv6, client: () => a.ipv6 },
    ])('an $network destination in a skipped network', async ({ host, client }) => {
      const result = await appA.dial({ host: host(), port: PORT });
      expect(result.reply).toMatchObject({ server: 'c', peer: mapped(client()) });
      expect(await forwarded()).toEqual([]);
    });

    test('a source in a skipped network, beside one that is not', async () => {
      const skipped = await nodePeer.dial({ host: b.ipv4, port: PORT });
      expect(skipped.reply!.peer).toBe(mapped(network.node.ipv4));
      expect(await forwarded()).toEqual([]);
      const other = await nodePeer.dial({ host: b.ipv6, port: PORT });
      expect(other.reply!.peer).toBe(b.ipv6);
      expect(await forwarded()).toEqual([`b inbound6 ${b.ipv6}:${PORT}`]);
    });

    test.each(['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1'])('loopback %s', async (host) => {
      const { port } = await appA.serve('a', 0);
      const before = redirector.counters();
      const result = await appA.flood({ host, port, connections: 3, parallel: 1 });
      expect(result).toEqual({ complete: 3, failures: [] });
      expect(await forwarded()).toEqual([]);
      expect(redirector.counters().outbound_skipped_loopback! - before.outbound_skipped_loopback!).toBe(3n);
    });

    test.each(FORMS)("the pod's own address, $form", async ({ local }) => {
      const { port } = await appA.serve('a', 0);
      expect(await appA.flood({ host: local(), port, connections: 3, parallel: 1 })).toEqual({
        complete: 3,
        failures: [],
      });
      expect(await forwarded()).toEqual([]);
    });

    test.each([
      { host: '169.254.169.254', neighbour: '169.254.1.1', family: 4 },
      { host: 'fd00:ec2::254', neighbour: 'fd00:ec2::255', family: 6 },
    ])('the metadata service $host, not $neighbour', async ({ host, neighbour, family }) => {
      const direct = await appA.dial({ host, port: 80 });
      expect(direct.reply).toMatchObject({ server: 'node', peer: mapped(family === 4 ? a.ipv4 : a.ipv6) });
      expect(await forwarded()).toEqual([]);
      const redirected = await appA.dial({ host: neighbour, port: 80 });
      expect(redirected.reply).toMatchObject({ server: 'node' });
      expect(await forwarded()).toEqual([`a outbound${family} ${neighbour}:80`]);
    });

    test.each(FORMS)('UDP, $form', async ({ host }) => {
      const before = redirector.counters();
      expect(await appA.udp({ host: host(), port: 5353 })).toBe('ping');
      expect(await forwarded()).toEqual([]);
      expect(redirector.counters().outbound_skipped_udp! - before.outbound_skipped_udp!).toBe(1n);
    });
  });

  describe('a socket that connects twice', () => {
    test('tells the second peer, also where the second is not redirected', async () => {
      const first = { host: b.ipv4, port: PORT };
      const again = await appA.dial({ host: network.node.ipv4, port: 80, first });
      expect(again).toMatchObject({ error: null, firstError: null, peer: { address: network.node.ipv4, port: 80 } });
      const direct = await appA.dial({ host: b.ipv4, port: SKIPPED_OUT, first });
      expect(direct).toMatchObject({ error: null, firstError: null, peer: { address: b.ipv4, port: SKIPPED_OUT } });
      expect(await forwarded()).toEqual(expect.arrayContaining([`a outbound4 ${network.node.ipv4}:80`]));
    });
  });

  describe('dialled by hand', () => {
    test('the outbound port of the own address knows no destination and is dropped', async () => {
      const before = redirector.counters();
      const result = await appA.dial({ host: a.ipv4, port: 4140, echo: 'loop?' });
      expect(result).toMatchObject({ reply: null });
      expect(redirector.counters().outbound_accepted_unknown! - before.outbound_accepted_unknown!).toBe(1n);
      expect(await forwarded()).toEqual([]);
      expect((await podA.relay.report()).refused).toBe(1);
    });

    test('the outbound port from outside is an inbound connection like any other', async () => {
      const result = await appC.dial({ host: b.ipv4, port: 4140, echo: 'loop?' });
      expect(result.reply).toBe(null);
      const lines = await forwarded();
      expect(lines).toEqual([`b inbound4 ${b.ipv4}:4140`]);
    });
  });

  test('a link-local IPv6 destination is refused: without its interface nobody could dial it', async () => {
    const before = redirector.counters();
    const result = await appA.dial({ host: 'fe80::1', port: PORT });
    expect(result.error).toBe('ECONNREFUSED');
    expect(redirector.counters().outbound_refused_link_local! - before.outbound_refused_link_local!).toBe(1n);
  });

  test('the relay had no capability for any of this', async () => {
    expect((await podA.relay.report()).capEffective).toBe('0');
  });
});

test('after detaching, everything is as it was before', async () => {
  expect(redirector.attachedPods()).toEqual([]);
  for (const { host, local } of FORMS) {
    const result = await appA.dial({ host: host(), port: PORT });
    expect(result).toMatchObject({ error: null, peer: { address: host(), port: PORT } });
    expect(result.reply!.peer).toBe(mapped(local().replace('::ffff:', '')));
  }
});
