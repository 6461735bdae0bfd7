import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { EbpfRedirector } from '#agent/redirect/ebpf.ts';
import { Ground, MeshedPod, WORKER_UID } from './support/mesh.ts';
import { Network, type Place } from './support/network.ts';
import { Peer } from './support/peer.ts';

// Who connects directly: the worker, by its cgroup or by its process, and nobody else, whatever it tries.

let ground: Ground;
let network: Network;
let redirector: EbpfRedirector;
let a: Place;
let b: Place;
let server: Peer;

beforeAll(async () => {
  ground = new Ground('hdredx');
  network = new Network('hdredx');
  a = network.addPod('a');
  b = network.addPod('b');
  server = await Peer.start(b);
  await server.serve('b', 8080);
  redirector = ground.redirector();
});

afterAll(async () => {
  await server?.stop();
  network?.close();
  ground?.close();
});

describe('a worker', () => {
  let client: Peer;

  beforeEach(async () => {
    client = await Peer.start(a);
  });

  afterEach(async () => {
    await client.stop();
  });

  const dial = () => client.dial({ host: b.ipv4, port: 8080, echo: 'x' });

  test('without an exemption is redirected to itself, again and again', async () => {
    const pod = await MeshedPod.start(redirector, a, { isExempt: false, relay: { connectionsMax: 200 } });
    const result = await dial();
    expect(result.reply).toBe(null);
    expect((await pod.relay.report()).connections.outbound4).toBe(200);
    await pod.stop();
  });

  test('is exempt by its process', async () => {
    const pod = await MeshedPod.start(redirector, a);
    expect(await dial()).toMatchObject({ error: null, echo: 'x' });
    expect((await pod.relay.report()).connections.outbound4).toBe(1);
    redirector.unexempt({ podUid: 'any', pid: pod.relay.pid, cgroupPath: null });
    await pod.stop();
  });

  test('is exempt by its cgroup', async () => {
    const pod = await MeshedPod.start(redirector, a, { relay: { cgroup: ground.cgroup('worker') } });
    expect(await dial()).toMatchObject({ error: null, echo: 'x' });
    expect((await pod.relay.report()).connections.outbound4).toBe(1);
    await pod.stop();
  });

  test('is exempt by a cgroup above its own, and no more when that is taken back', async () => {
    const parent = ground.cgroup('above');
    const cgroup = ground.cgroup('below', parent);
    const pod = await MeshedPod.start(redirector, a, { isExempt: false, relay: { cgroup, connectionsMax: 50 } });
    redirector.exempt({ podUid: 'any', pid: pod.relay.pid, cgroupPath: parent });
    expect(await dial()).toMatchObject({ error: null, echo: 'x' });
    expect((await pod.relay.report()).connections.outbound4).toBe(1);
    redirector.unexempt({ podUid: 'any', pid: pod.relay.pid, cgroupPath: parent });
    expect((await dial()).reply).toBe(null);
    expect((await pod.relay.report()).connections.outbound4).toBe(50);
    await pod.stop();
  });

  test('that is not there cannot be exempt, and neither can everybody', () => {
    expect(() => redirector.exempt({ podUid: 'any', pid: 0x3fffff, cgroupPath: null })).toThrow(
      'exempt process "4194303"',
    );
    expect(() => redirector.exempt({ podUid: 'any', pid: 1, cgroupPath: ground.cgroupRoot })).toThrow('not the root');
    expect(() => redirector.exempt({ podUid: 'any', pid: 1, cgroupPath: '/proc' })).toThrow('use cgroup "/proc"');
  });
});

describe('exemptions of the dead', () => {
  test('are dropped at the next start, those of the living kept', async () => {
    const living = await Peer.start(a);
    const dead = await Peer.start(a);
    redirector.exempt({ podUid: 'any', pid: living.pid, cgroupPath: null });
    redirector.exempt({ podUid: 'any', pid: dead.pid, cgroupPath: null });
    const cgroup = ground.cgroup('stays');
    redirector.exempt({ podUid: 'any', pid: living.pid, cgroupPath: cgroup });
    await dead.stop();
    const gone = ground.cgroup('goes');
    redirector.exempt({ podUid: 'any', pid: living.pid, cgroupPath: gone });
    ground.removeCgroup(gone);
    const before = exempt();
    expect(before.tgids).toEqual(expect.arrayContaining([living.pid, dead.pid]));
    redirector.close();
    redirector = ground.redirector();
    expect(exempt().tgids).toContain(living.pid);
    expect(exempt().tgids).not.toContain(dead.pid);
    // The cgroups of the tests before are still there, only one is not.
    expect(exempt().cgroups).toBe(before.cgroups - 1);
    redirector.unexempt({ podUid: 'any', pid: living.pid, cgroupPath: cgroup });
    redirector.unexempt({ podUid: 'any', pid: living.pid, cgroupPath: null });
    await living.stop();
  });

  function exempt(): { tgids: number[]; cgroups: number } {
    const dump = (map: string): { key: number[] | string[] }[] => {
      const pin = path.join(ground.bpffsDir, 'v1/maps', map);
      return JSON.parse(execFileSync('bpftool', ['-j', 'map', 'dump', 'pinned', pin], { encoding: 'utf8' }));
    };
    const tgids = dump('exempt_tgids').map(({ key }) => Buffer.from(key.map(Number)).readUInt32LE(0));
    return { tgids, cgroups: dump('exempt_cgroups').length };
  }
});

describe('an application cannot leave the mesh', () => {
  let pod: MeshedPod;
  let worker: string;
  let relayed = 0;

  beforeAll(async () => {
    worker = ground.cgroup('meshed');
    pod = await MeshedPod.start(redirector, a, { relay: { cgroup: worker } });
  });

  afterAll(async () => {
    await pod.stop();
  });

  /** Dials in every family and expects the relay in between. */
  async function expectMeshed(app: Peer, options: { mark?: number; device?: string } = {}): Promise<void> {
    for (const host of [b.ipv4, b.ipv6, `::ffff:${b.ipv4}`]) {
      expect(await app.dial({ host, port: 8080, echo: 'x', ...options })).toMatchObject({ error: null, echo: 'x' });
      const { connections } = await pod.relay.report();
      expect(connections.outbound4 + connections.outbound6).toBe(++relayed);
    }
  }

  test('as anybody', async () => {
    const app = await Peer.start(a, { uid: 1234 });
    await expectMeshed(app);
    await app.stop();
  });

  test("as the worker's user", async () => {
    const app = await Peer.start(a, { uid: WORKER_UID });
    await expectMeshed(app);
    await app.stop();
  });

  test("as linkerd's user or root, with a mark or bound to the interface", async () => {
    for (const uid of [2102, 0]) {
      const app = await Peer.start(a, { uid });
      await expectMeshed(app);
      if (uid === 0) {
        for (const mark of [1, 0x539, 0x1d01, 1337]) await expectMeshed(app, { mark });
        await expectMeshed(app, { device: 'eth0' });
      }
      await app.stop();
    }
  });

  test('with CAP_NET_ADMIN, after flushing every rule of its namespace', async () => {
    execFileSync('ip', ['netns', 'exec', a.name, 'nft', 'flush', 'ruleset']);
    execFileSync('ip', ['-n', a.name, 'rule', 'add', 'pref', '10', 'lookup', 'main']);
    const app = await Peer.start(a);
    await expectMeshed(app);
    await app.stop();
  });

  test('in a cgroup beside or above that of the worker', async () => {
    for (const cgroup of [ground.cgroup('beside'), path.dirname(worker)]) {
      const app = await Peer.start(a, { cgroup });
      await expectMeshed(app);
      await app.stop();
    }
  });

  test('with the process number of a worker, as another user', async () => {
    const app = await Peer.start(a);
    redirector.exempt({ podUid: 'any', pid: app.pid, cgroupPath: null });
    const direct = await app.dial({ host: b.ipv4, port: 8080 });
    expect(direct.reply!.peer).toBe(`::ffff:${a.ipv4}`);
    const { connections } = await pod.relay.report();
    expect(connections.outbound4 + connections.outbound6).toBe(relayed);
    await app.setUid(1234);
    await expectMeshed(app);
    redirector.unexempt({ podUid: 'any', pid: app.pid, cgroupPath: null });
    await app.stop();
  });

  test('the control: in the cgroup of the worker it would', async () => {
    const app = await Peer.start(a, { cgroup: worker });
    const direct = await app.dial({ host: b.ipv4, port: 8080 });
    expect(direct.error).toBe(null);
    const { connections } = await pod.relay.report();
    expect(connections.outbound4 + connections.outbound6).toBe(relayed);
    await app.stop();
  });
});

test('processes without a cgroup2 of their own are covered as well', async () => {
  // What a cgroup v1 runtime does: all pods in the root of the unified hierarchy.
  const pod = await MeshedPod.start(redirector, a);
  const deep = path.join(ground.cgroup('deep'), 'er');
  mkdirSync(deep);
  const app = await Peer.start(a, { cgroup: deep });
  const nested = await app.dial({ host: b.ipv4, port: 8080 });
  expect(nested.error).toBe(null);
  writeFileSync(path.join(ground.cgroupRoot, 'cgroup.procs'), String(app.pid));
  const root = await app.dial({ host: b.ipv4, port: 8080 });
  expect(root.error).toBe(null);
  expect((await pod.relay.report()).connections.outbound4).toBe(2);
  await app.stop();
  await pod.stop();
  execFileSync('rmdir', [deep]);
});
