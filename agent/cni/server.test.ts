// The real socket with real descriptors; the peers are raw sockets, as a plugin's or an intruder's.

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, fstatSync, mkdtempSync, openSync, readdirSync, rmSync, statSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { CNI_MESSAGE_BYTES_MAX, type CniReply, type CniRequest } from '#api/cni-message.ts';
import { close } from '#lib/libc.ts';
import { createLog } from '#lib/log.ts';
import { sendDescriptors } from '#lib/unix-descriptors.ts';
import { connectUnix } from '#lib/unix-socket.ts';
import { type CniHandler, cniDone } from './handler.ts';
import { type CniServer, startCniServer } from './server.ts';

let runDir: string;
let server: CniServer;
let lines: string[];
let namespaceHolder: ChildProcess;
let netnsFd: number;
let netnsInode: number;

interface Call {
  request: CniRequest;
  inode: number | null;
}
let calls: Call[];
let handler: CniHandler;

beforeAll(async () => {
  // Its own network namespace; it says so when it is in it.
  namespaceHolder = spawn('unshare', ['--net', 'sh', '-c', 'echo in; exec sleep 60'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await new Promise((resolve) => namespaceHolder.stdout!.once('data', resolve));
  netnsFd = openSync(`/proc/${namespaceHolder.pid}/ns/net`, 'r');
  netnsInode = fstatSync(netnsFd).ino;
});

afterAll(() => {
  closeSync(netnsFd);
  namespaceHolder.kill('SIGKILL');
});

beforeEach(() => {
  runDir = path.join(mkdtempSync(path.join(os.tmpdir(), 'heddle-cni-')), 'run');
  calls = [];
  lines = [];
  const record = async (request: CniRequest, fd: number | null): Promise<CniReply> => {
    calls.push({ request, inode: fd === null ? null : fstatSync(fd).ino });
    return cniDone('meshed');
  };
  handler = {
    add: (request, fd) => record(request, fd),
    check: (request, fd) => record(request, fd),
    del: (request) => record(request, null),
    gc: (request) => record(request, null),
    status: (request) => record(request, null),
  };
});

afterEach(async () => {
  await server.close(100);
  rmSync(path.dirname(runDir), { recursive: true });
});

async function start(options: { connectionsMax?: number } = {}): Promise<void> {
  const { log } = createLog({ level: 'debug', sink: { write: (line) => lines.push(line) } });
  server = await startCniServer({ runDir, handler, log, ...options });
}

function makeRequest(overrides: Partial<CniRequest> = {}): CniRequest {
  return {
    v: 1,
    op: 'ADD',
    containerId: 'c1',
    ifName: 'eth0',
    network: 'k8s',
    netnsPath: '/run/netns/p',
    netnsInode,
    pod: { namespace: 'shop', name: 'web-1', uid: 'u1' },
    annotations: { 'heddle.dev/meshed': 'heddle' },
    ips: ['10.1.2.3', 'fd00::3'],
    deadlineMs: 5_000,
    pluginVersion: '0.1.0',
    ...overrides,
  };
}

function frame(value: unknown): Buffer {
  const body = Buffer.isBuffer(value) ? value : Buffer.from(JSON.stringify(value));
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length, 0);
  return Buffer.concat([head, body]);
}

/** The head alone: what it announces never comes. */
function frameHead(length: number): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(length, 0);
  return head;
}

/** A peer over a raw socket; Node's own reads what comes back. */
class Peer {
  readonly fd: number;
  readonly socket: net.Socket;
  #received = Buffer.alloc(0);
  readonly closed: Promise<Buffer>;

  constructor(bytes: Buffer, descriptors: number[] = []) {
    this.fd = connectUnix(path.join(runDir, 'cni.sock'));
    if (bytes.length > 0) expect(sendDescriptors(this.fd, bytes, descriptors)).toBe(bytes.length);
    this.socket = new net.Socket({ fd: this.fd, allowHalfOpen: true });
    this.socket.on('error', () => {});
    this.socket.on('data', (data: Buffer) => {
      this.#received = Buffer.concat([this.#received, data]);
    });
    this.closed = new Promise((resolve) => {
      this.socket.once('close', () => resolve(this.#received));
      this.socket.once('end', () => this.socket.destroy());
    });
  }

  /** All frames that came until the server closed. */
  async frames(): Promise<Buffer[]> {
    let rest: Buffer = await this.closed;
    const found: Buffer[] = [];
    while (rest.length >= 4) {
      const length = rest.readUInt32BE(0);
      found.push(rest.subarray(4, 4 + length));
      rest = rest.subarray(4 + length);
    }
    expect(rest).toHaveLength(0);
    return found;
  }

  async reply(): Promise<CniReply> {
    return JSON.parse((await this.frames()).at(-1)!.toString());
  }
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

test('the socket is for root alone and outlives the server', async () => {
  await start();
  expect(statSync(runDir).mode & 0o777).toBe(0o700);
  expect(statSync(server.path).mode & 0o777).toBe(0o600);
  await server.close();
  expect(statSync(server.path).isSocket()).toBe(true);
  expect(() => connectUnix(server.path)).toThrow(/ECONNREFUSED/);
});

test('a second agent takes the socket over without a gap', async () => {
  await start();
  const first = server;
  await start();
  await first.close();
  expect(await new Peer(frame(makeRequest()), [netnsFd]).reply()).toMatchObject({ code: 0 });
  expect(calls).toHaveLength(1);
});

test('ADD: accepted at once, then the reply; the descriptor is the namespace', async () => {
  await start();
  const frames = await new Peer(frame(makeRequest()), [netnsFd]).frames();
  expect(frames[0]).toHaveLength(0);
  expect(JSON.parse(frames[1]!.toString())).toEqual(cniDone('meshed'));
  expect(calls).toEqual([{ request: makeRequest(), inode: netnsInode }]);
});

test.each([
  ['CHECK', makeRequestOf({ op: 'CHECK' }), true],
  ['DEL', makeRequestOf({ op: 'DEL', netnsInode: 0, netnsPath: '' }), false],
  ['GC', makeRequestOf({ op: 'GC', containerId: '', validAttachments: [{ containerId: 'a', ifName: 'eth0' }] }), false],
  ['GC of nothing', makeRequestOf({ op: 'GC', containerId: '', validAttachments: [] }), false],
  ['STATUS', makeRequestOf({ op: 'STATUS', containerId: '' }), false],
])('%s reaches its handler', async (_name, make, hasDescriptor) => {
  await start();
  const request = make();
  expect(await new Peer(frame(request), hasDescriptor ? [netnsFd] : []).reply()).toMatchObject({ code: 0 });
  expect(calls).toEqual([{ request, inode: hasDescriptor ? netnsInode : null }]);
});

function makeRequestOf(overrides: Partial<CniRequest>): () => CniRequest {
  return () => makeRequest(overrides);
}

describe('garbage gets a clear answer and harms nobody', () => {
  const cases: [string, () => Buffer, number, string][] = [
    [
      'another protocol',
      () => Buffer.from('GET / HTTP/1.1\r\n\r\n'),
      6,
      'request of 1195725856 bytes: expected 1 to 1048576',
    ],
    ['length zero', () => Buffer.alloc(4), 6, 'request of 0 bytes'],
    ['length over the bound', () => frameHead(CNI_MESSAGE_BYTES_MAX + 1), 6, 'request of 1048577 bytes'],
    ['no JSON', () => frame(Buffer.from('}{')), 6, 'request is not JSON'],
    ['no UTF-8', () => frame(Buffer.from([0x22, 0xff, 0x22])), 6, 'request is not JSON'],
    ['no object', () => frame(null), 6, 'field "(whole)"'],
    ['another version', () => frame({ ...makeRequest(), v: 2 }), 1, 'request of version "2": expected 1'],
    ['unknown verb', () => frame({ ...makeRequest(), op: 'MOVE' }), 6, 'field "op"'],
    ['no container', () => frame({ ...makeRequest(), containerId: undefined }), 6, 'field "containerId"'],
    [
      'container with a path',
      () => frame(makeRequest({ containerId: '../x' })),
      6,
      'field "containerId": expected a CNI container ID',
    ],
    ['pod without uid', () => frame({ ...makeRequest(), pod: { namespace: 'a', name: 'b' } }), 6, 'field "pod.uid"'],
    ['address', () => frame(makeRequest({ ips: ['10.0.0.1/24'] })), 6, 'field "ips.0": expected an IP address'],
    ['annotation', () => frame({ ...makeRequest(), annotations: { a: 1 } }), 6, 'field "annotations.a"'],
    ['deadline', () => frame(makeRequest({ deadlineMs: 0 })), 6, 'field "deadlineMs"'],
    ['GC without a list', () => frame(makeRequest({ op: 'GC', containerId: '' })), 6, 'field "validAttachments"'],
    ['two requests', () => Buffer.concat([frame(makeRequest()), frame(makeRequest())]), 6, 'bytes after the request'],
  ];

  test.each(cases)('%s', async (_name, bytes, code, message) => {
    await start();
    const reply = await new Peer(bytes(), [netnsFd]).reply();
    expect(reply).toMatchObject({ v: 1, code, outcome: 'none' });
    expect(reply.message).toMatch(/^heddle: /);
    expect(reply.message).toContain(message);
    expect(calls).toEqual([]);
    expect(lines.join('')).toContain('CNI request refused');
    expect(await new Peer(frame(makeRequest()), [netnsFd]).reply()).toMatchObject({ code: 0 });
  });

  test('a peer that ends in the middle', async () => {
    await start();
    const peer = new Peer(frame(makeRequest()).subarray(0, 50), [netnsFd]);
    peer.socket.end();
    expect((await peer.reply()).message).toContain('request ends after 50 bytes');
  });

  test('a peer that says nothing is cut off', async () => {
    await start();
    const peer = new Peer(Buffer.alloc(0));
    expect((await peer.reply()).message).toBe('heddle: request incomplete after 2000 ms: got 0 bytes');
  });

  test('a peer that resets', async () => {
    await start();
    const peer = new Peer(Buffer.from([0]));
    peer.socket.destroy();
    await vi.waitFor(() => expect(server.inFlight).toBe(0));
    expect(await new Peer(frame(makeRequest()), [netnsFd]).reply()).toMatchObject({ code: 0 });
  });
});

describe('descriptors', () => {
  function openFile(): number {
    return openSync('/proc/self/status', 'r');
  }

  test.each([
    ['no descriptor', () => [], 6, 'ADD came with 0 descriptors: expected 1'],
    ['a file', () => [openFile()], 8, 'expected a network namespace'],
    ['another kind of namespace', () => [openSync('/proc/self/ns/mnt', 'r')], 8, 'expected a network namespace'],
    ["the node's own namespace", () => [openSync('/proc/self/ns/net', 'r')], 103, 'expected'],
  ] as [string, () => number[], number, string][])('ADD with %s', async (_name, make, code, message) => {
    await start();
    const descriptors = make();
    const reply = await new Peer(frame(makeRequest()), descriptors).reply();
    for (const descriptor of descriptors) closeSync(descriptor);
    expect(reply.code).toBe(code);
    expect(reply.message).toContain(message);
    expect(calls).toEqual([]);
  });

  test("the node's own namespace with its true inode", async () => {
    await start();
    const own = openSync('/proc/self/ns/net', 'r');
    const reply = await new Peer(frame(makeRequest({ netnsInode: fstatSync(own).ino })), [own]).reply();
    closeSync(own);
    expect(reply).toMatchObject({ code: 8 });
    expect(reply.message).toContain("is the node's own");
  });

  test('another namespace than the message says', async () => {
    await start();
    const reply = await new Peer(frame(makeRequest({ netnsInode: netnsInode + 1 })), [netnsFd]).reply();
    expect(reply).toMatchObject({ code: 103 });
    expect(reply.message).toContain(`has inode ${netnsInode}: expected ${netnsInode + 1}`);
  });

  test('DEL with one is refused, two are refused', async () => {
    await start();
    expect(await new Peer(frame(makeRequest({ op: 'DEL' })), [netnsFd]).reply()).toMatchObject({ code: 6 });
    expect(await new Peer(frame(makeRequest()), [netnsFd, netnsFd]).reply()).toMatchObject({ code: 6 });
    expect(calls).toEqual([]);
  });

  test('none stays open, whatever the peer does', async () => {
    await start();
    const round = async (): Promise<void> => {
      await new Peer(frame(makeRequest()), [netnsFd]).reply();
      await new Peer(frame(makeRequest({ op: 'DEL' })), [netnsFd]).reply();
      await new Peer(frame(makeRequest()), [netnsFd, netnsFd]).reply();
      await new Peer(frame(Buffer.from('}')), [netnsFd]).reply();
      await new Peer(Buffer.from('GET / HTTP'), [netnsFd]).reply();
      const ending = new Peer(frame(makeRequest()).subarray(0, 9), [netnsFd]);
      ending.socket.end();
      await ending.reply();
      await vi.waitFor(() => expect(server.inFlight).toBe(0));
    };
    await round();
    const before = openDescriptors();
    for (let i = 0; i < 20; i++) await round();
    await vi.waitFor(() => expect(openDescriptors()).toBeLessThanOrEqual(before));
  });
});

test('a request in pieces, and one larger than the socket takes at once', async () => {
  await start();
  const bytes = frame(makeRequest({ annotations: { 'linkerd.io/long': 'x'.repeat(CNI_MESSAGE_BYTES_MAX - 1024) } }));
  const peer = new Peer(bytes.subarray(0, 1), [netnsFd]);
  for (let at = 1; at < 200; at += 13) peer.socket.write(bytes.subarray(at, Math.min(at + 13, 200)));
  peer.socket.write(bytes.subarray(200));
  expect(await peer.reply()).toMatchObject({ code: 0 });
  expect(calls[0]!.inode).toBe(netnsInode);
});

test('a handler that overruns: code 104 in time, the signal says why, the descriptor stays until it is done', async () => {
  let finish = (): void => {};
  let seen: { signal: AbortSignal; fd: number } | undefined;
  handler.add = (_request, fd, signal) =>
    new Promise((resolve) => {
      seen = { signal, fd };
      finish = () => resolve(cniDone('meshed'));
    });
  await start();
  const reply = await new Peer(frame(makeRequest({ deadlineMs: 50 })), [netnsFd]).reply();
  expect(reply).toMatchObject({ code: 104, message: 'heddle: ADD took longer than the plugin waits: 50 ms' });
  expect(seen!.signal.reason).toMatchObject({ code: 'deadline' });
  expect(fstatSync(seen!.fd).ino).toBe(netnsInode);
  expect(server.inFlight).toBe(1);
  finish();
  await vi.waitFor(() => expect(server.inFlight).toBe(0));
  expect(() => fstatSync(seen!.fd)).toThrow(/EBADF/);
});

test('a plugin that goes away aborts its handler', async () => {
  let reason: unknown;
  handler.add = (_request, _fd, signal) =>
    new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => {
        reason = signal.reason;
        reject(signal.reason);
      });
      peer.socket.destroy();
    });
  await start();
  const peer = new Peer(frame(makeRequest()), [netnsFd]);
  await vi.waitFor(() => expect(reason).toMatchObject({ code: 'plugin-gone' }));
  await vi.waitFor(() => expect(server.inFlight).toBe(0));
});

test('a handler that rejects or throws: code 999 with the cause', async () => {
  handler.add = async () => {
    throw new Error('map is full', { cause: new Error('ENOSPC') });
  };
  handler.del = () => {
    throw new Error('at once');
  };
  await start();
  expect(await new Peer(frame(makeRequest()), [netnsFd]).reply()).toMatchObject({
    code: 999,
    message: 'heddle: ADD failed: map is full: ENOSPC',
  });
  expect(await new Peer(frame(makeRequest({ op: 'DEL' }))).reply()).toMatchObject({ code: 999 });
});

test('more connections than the bound: an undecided answer at once, then service again', async () => {
  const waiting: (() => void)[] = [];
  handler.add = () => new Promise((resolve) => waiting.push(() => resolve(cniDone('meshed'))));
  await start({ connectionsMax: 2 });
  const held = [new Peer(frame(makeRequest()), [netnsFd]), new Peer(frame(makeRequest()), [netnsFd])];
  await vi.waitFor(() => expect(waiting).toHaveLength(2));
  const refused = await new Peer(frame(makeRequest()), [netnsFd]).reply();
  expect(refused).toMatchObject({ code: 104, outcome: 'none' });
  expect(refused.message).toContain('busy with 2 requests');
  for (const finish of waiting.splice(0)) finish();
  for (const peer of held) expect(await peer.reply()).toMatchObject({ code: 0 });
  await vi.waitFor(() => expect(server.inFlight).toBe(0));
  const again = new Peer(frame(makeRequest()), [netnsFd]);
  await vi.waitFor(() => expect(waiting).toHaveLength(1));
  waiting[0]!();
  expect(await again.reply()).toMatchObject({ code: 0 });
});

test('a peer that does not read its reply does not keep the connection', async () => {
  handler.del = async () => cniDone('removed', ['x'.repeat(900_000)]);
  await start();
  const fd = connectUnix(server.path);
  const bytes = frame(makeRequest({ op: 'DEL' }));
  expect(sendDescriptors(fd, bytes, [])).toBe(bytes.length);
  await vi.waitFor(() => expect(server.inFlight).toBe(1));
  await vi.waitFor(() => expect(server.inFlight).toBe(0), { timeout: 4_000 });
  close(fd);
});

test('closing waits for requests in flight, but not for ever', async () => {
  handler.add = () => new Promise(() => {});
  await start();
  const peer = new Peer(frame(makeRequest()), [netnsFd]);
  await vi.waitFor(() => expect(server.inFlight).toBe(1));
  await server.close(50);
  await peer.closed;
  expect(lines.join('')).toContain('still in the hands of their handler');
});

test('a run directory that cannot be used', async () => {
  await start();
  const { log } = createLog();
  await expect(startCniServer({ runDir: server.path, handler, log })).rejects.toThrow(/EEXIST|ENOTDIR/);
  const long = path.join(runDir, 'x'.repeat(120));
  await expect(startCniServer({ runDir: long, handler, log })).rejects.toThrow(/expected a path of at most/);
});
