import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import {
  addressKey,
  Direction,
  encodePod,
  listenerKey,
  networkKey,
  OUTCOMES,
  PodFlag,
  portKeys,
  u32,
  u64,
} from '#agent/redirect/ebpf-layout.ts';
import {
  closeObject,
  ensureBpffs,
  type LoadedObject,
  loadObject,
  pinPaths,
  releaseBpffs,
} from '#agent/redirect/ebpf-object.ts';
import { testRun } from '#lib/bpf.ts';
import { isIpv4, parseCidr } from '#lib/ip-address.ts';
import { close } from '#lib/libc.ts';
import { openTcpListener, socketCookie } from '#lib/tcp-socket.ts';

// The program runs in the kernel on made-up lookups (BPF_PROG_TEST_RUN): every way through it, without packets.

const COOKIE = 77n;
const OTHER_COOKIE = 78n;
const SLOT = 5;
const TCP = 6;
const UDP = 17;
const SK_DROP = 0;
const SK_PASS = 1;
const PASS = { verdict: SK_PASS, listener: null };
const DROP = { verdict: SK_DROP, listener: null };

const INBOUND = PodFlag.inbound | PodFlag.outbound | PodFlag.hasIpv4 | PodFlag.hasIpv6;

let directory: string;
let object: LoadedObject;
const sockets = { inbound4: 0, inbound6: 0, outbound4: 0, outbound6: 0 };

beforeAll(() => {
  execFileSync('make', ['-s', 'build/bpf/heddle.bpf.o'], { stdio: ['ignore', 'ignore', 'inherit'] });
  directory = path.join(mkdtempSync(path.join(os.tmpdir(), 'heddle-inbound-')), 'bpf');
  ensureBpffs(directory);
  object = loadObject({ objectPath: 'build/bpf/heddle.bpf.o', bpffsDir: directory });
  for (const name of Object.keys(sockets) as (keyof typeof sockets)[]) {
    sockets[name] = openTcpListener({ address: name.endsWith('6') ? '::1' : '127.0.0.1', port: 0, backlog: 1 });
  }
});

afterAll(() => {
  for (const fd of Object.values(sockets)) close(fd);
  closeObject(object);
  rmSync(pinPaths(directory).root, { recursive: true });
  releaseBpffs(directory);
  rmSync(path.dirname(directory), { recursive: true });
});

beforeEach(() => {
  writePod(INBOUND);
  for (const address of ['10.0.0.5', 'fd00::5']) object.maps.addresses.update(addressKey(address), u64(COOKIE));
  for (const [index, fd] of Object.values(sockets).entries()) {
    object.maps.listeners.update(listenerKey(SLOT, index), u64(BigInt(fd)));
  }
});

function writePod(flags: number): void {
  const none = Buffer.alloc(16);
  const entry = { flags, slot: SLOT, outboundPort: 4140, redirect4: none, redirect6: none, uid: 'pod' };
  object.maps.pods.update(u64(COOKIE), encodePod(entry));
}

interface Lookup {
  from: string;
  to: string;
  port: number;
  protocol?: number;
}

/** struct bpf_sk_lookup; ports of the remote end are never looked at. */
function context({ from, to, port, protocol = TCP }: Lookup): Buffer {
  const bytes = Buffer.alloc(72);
  const remote = addressKey(from);
  const local = addressKey(to);
  const is4 = isIpv4(local);
  bytes.writeUInt32LE(is4 ? 2 : 10, 8);
  bytes.writeUInt32LE(protocol, 12);
  if (is4) remote.copy(bytes, 16, 12);
  else remote.copy(bytes, 20);
  bytes.writeUInt16BE(40_000, 36);
  if (is4) local.copy(bytes, 40, 12);
  else local.copy(bytes, 44);
  bytes.writeUInt32LE(port, 60);
  return bytes;
}

function run(lookup: Lookup): { verdict: number; listener: string | null } {
  const { returnValue, context: after } = testRun(object.programs.heddle_inbound, context(lookup));
  const cookie = after.readBigUInt64LE(0);
  const found = Object.entries(sockets).find(([, fd]) => socketCookie(fd) === cookie);
  return { verdict: returnValue, listener: found?.[0] ?? null };
}

function counted(outcome: (typeof OUTCOMES)[number]): bigint {
  const perCpu = object.maps.outcomes.lookup(u32(OUTCOMES.indexOf(outcome)))!;
  let total = 0n;
  for (let at = 0; at < perCpu.length; at += 8) total += perCpu.readBigUInt64LE(at);
  return total;
}

describe('a new connection', () => {
  test.each([
    { from: '10.0.0.9', to: '10.0.0.5', port: 80, listener: 'inbound4' },
    { from: '10.0.0.9', to: '10.0.0.5', port: 4143, listener: 'inbound4' },
    { from: '10.0.0.9', to: '10.0.0.5', port: 4140, listener: 'inbound4' },
    { from: 'fd00::9', to: 'fd00::5', port: 80, listener: 'inbound6' },
    { from: '10.0.0.5', to: '10.0.0.5', port: 4140, listener: 'outbound4' },
    { from: 'fd00::5', to: 'fd00::5', port: 4140, listener: 'outbound6' },
    { from: '127.0.0.1', to: '10.0.0.5', port: 4140, listener: 'outbound4' },
  ])('from $from to $to:$port goes to $listener', ({ listener, ...lookup }) => {
    expect(run(lookup)).toEqual({ verdict: SK_PASS, listener });
  });

  test.each([
    { why: 'to an address that is nobody’s', from: '10.0.0.9', to: '10.0.0.6', port: 80 },
    { why: 'to loopback', from: '127.0.0.1', to: '127.0.0.1', port: 4140 },
    { why: 'to loopback', from: '::1', to: '::1', port: 80 },
    { why: 'within the pod', from: '10.0.0.5', to: '10.0.0.5', port: 80 },
    { why: 'within the pod', from: 'fd00::5', to: 'fd00::5', port: 80 },
    { why: 'over UDP', from: '10.0.0.9', to: '10.0.0.5', port: 80, protocol: UDP },
  ])('$why is left alone: $from to $to:$port', ({ why, ...lookup }) => {
    expect(run(lookup)).toEqual(PASS);
  });

  test('to an address of another pod is not the business of this one', () => {
    object.maps.addresses.update(addressKey('10.0.0.7'), u64(OTHER_COOKIE));
    expect(run({ from: '10.0.0.9', to: '10.0.0.7', port: 80 })).toEqual(PASS);
    // Seen from this pod, the other one is outside.
    expect(run({ from: '10.0.0.7', to: '10.0.0.5', port: 80 })).toEqual({ verdict: SK_PASS, listener: 'inbound4' });
  });

  test('to an address that several pods have is left alone', () => {
    object.maps.addresses.update(addressKey('10.0.0.5'), u64(0n));
    const before = counted('inbound_skipped_unknown_address');
    expect(run({ from: '10.0.0.9', to: '10.0.0.5', port: 80 })).toEqual(PASS);
    expect(counted('inbound_skipped_unknown_address') - before).toBe(1n);
  });
});

describe('skips', () => {
  test('a port range, and neither of its neighbours', () => {
    const keys = portKeys(COOKIE, Direction.inbound, { from: 8064, to: 8130 });
    for (const key of keys) object.maps.skip_ports.update(key, u32(1));
    const at = (port: number) => run({ from: 'fd00::9', to: 'fd00::5', port }).listener;
    expect([8063, 8064, 8100, 8130, 8131].map(at)).toEqual(['inbound6', null, null, null, 'inbound6']);
    for (const key of keys) object.maps.skip_ports.delete(key);
  });

  test.each([
    { network: '10.1.0.0/16', inside: '10.1.255.9', outside: '10.2.0.1', to: '10.0.0.5', listener: 'inbound4' },
    { network: 'fd01::/32', inside: 'fd01:0:9::1', outside: 'fd02::1', to: 'fd00::5', listener: 'inbound6' },
  ])('sources in $network', ({ network, inside, outside, to, listener }) => {
    const key = networkKey(COOKIE, Direction.inbound, parseCidr(network)!);
    object.maps.skip_networks.update(key, u32(1));
    expect(run({ from: inside, to, port: 80 })).toEqual(PASS);
    expect(run({ from: outside, to, port: 80 })).toEqual({ verdict: SK_PASS, listener });
    object.maps.skip_networks.delete(key);
  });

  test('what another pod or the other direction skips does not count', () => {
    const keys = [
      ...portKeys(OTHER_COOKIE, Direction.inbound, { from: 80, to: 80 }),
      ...portKeys(COOKIE, Direction.outbound, { from: 80, to: 80 }),
    ];
    for (const key of keys) object.maps.skip_ports.update(key, u32(1));
    expect(run({ from: '10.0.0.9', to: '10.0.0.5', port: 80 }).listener).toBe('inbound4');
    for (const key of keys) object.maps.skip_ports.delete(key);
  });
});

describe('without a listener', () => {
  beforeEach(() => {
    for (const index of [0, 1, 2, 3]) object.maps.listeners.delete(listenerKey(SLOT, index));
  });

  test('connections are refused', () => {
    const before = [counted('inbound_refused_no_listener'), counted('outbound_refused_no_listener')];
    expect(run({ from: '10.0.0.9', to: '10.0.0.5', port: 80 })).toEqual(DROP);
    expect(run({ from: 'fd00::5', to: 'fd00::5', port: 4140 })).toEqual(DROP);
    const after = [counted('inbound_refused_no_listener'), counted('outbound_refused_no_listener')];
    expect(after).toEqual(before.map((count) => count + 1n));
  });

  test('a pod that fails open gets its inbound ones, and still refuses what was redirected already', () => {
    writePod(INBOUND | PodFlag.failOpen);
    expect(run({ from: '10.0.0.9', to: '10.0.0.5', port: 80 })).toEqual(PASS);
    expect(run({ from: '10.0.0.5', to: '10.0.0.5', port: 4140 })).toEqual(DROP);
  });
});

describe('flags', () => {
  test('a pod that is not redirected inbound keeps its connections, and its outbound port works', () => {
    writePod(INBOUND & ~PodFlag.inbound);
    expect(run({ from: '10.0.0.9', to: '10.0.0.5', port: 80 })).toEqual(PASS);
    expect(run({ from: '10.0.0.5', to: '10.0.0.5', port: 4140 }).listener).toBe('outbound4');
  });

  test('a pod that is not redirected outbound may use the port itself', () => {
    writePod(INBOUND & ~PodFlag.outbound);
    expect(run({ from: '10.0.0.5', to: '10.0.0.5', port: 4140 })).toEqual(PASS);
    expect(run({ from: '10.0.0.9', to: '10.0.0.5', port: 80 }).listener).toBe('inbound4');
  });

  test('a pod that is gone from the map is left alone', () => {
    object.maps.pods.delete(u64(COOKIE));
    expect(run({ from: '10.0.0.9', to: '10.0.0.5', port: 80 })).toEqual(PASS);
  });
});
