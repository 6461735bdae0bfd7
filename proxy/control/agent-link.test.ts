import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { connectLink, type LinkListener, type WorkerLink } from '#agent/worker/link.ts';
import { reclaimListeners } from '#agent/worker/reclaim-listeners.ts';
import { encodeLinkFrame } from '#api/link-codec.ts';
import { LINK_FRAME_BYTES_MAX, LINK_VERSION, LinkFrame, type LinkStatus, WatchKind } from '#api/worker-link.ts';
import { systemClock } from '#lib/clock.ts';
import type { HeddleError } from '#lib/errors.ts';
import { close, isOpen } from '#lib/libc.ts';
import { createLog } from '#lib/log.ts';
import { openTcpListener } from '#lib/tcp-socket.ts';
import { openUnixListener } from '#lib/unix-socket.ts';
import { AgentLink, type AgentLinkOptions, SCRAPES_MAX } from './agent-link.ts';
import type { WatchListener } from './watch.ts';

const HELLO = { linkVersion: LINK_VERSION, workerVersion: 'v1', pid: 1, podUid: 'uid', startedMs: 1 };
const STATE = { state: 'starting' as const, reason: 'no configuration', connections: 0, certificateExpires: 0 };

const cleanUps: (() => void)[] = [];
afterEach(() => {
  for (const cleanUp of cleanUps.splice(0).reverse()) cleanUp();
});

/** Resolves as soon as `test` holds; checked whenever the event loop turns. */
async function until(test: () => boolean): Promise<void> {
  for (const endMs = performance.now() + 5_000; !test(); ) {
    if (performance.now() > endMs) throw new Error(`not within 5 s: ${test}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** A worker's link on a real Unix socket, with whatever the test wants to observe. */
function startLink(options: Partial<AgentLinkOptions> = {}) {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'heddle-link-'));
  cleanUps.push(() => rmSync(directory, { recursive: true, force: true }));
  const socketPath = path.join(directory, 'control.sock');
  const lines: string[] = [];
  const { log } = createLog({ level: 'debug', sink: { write: (line) => void lines.push(line) } });
  const seen = { configs: [] as unknown[], drains: [] as unknown[], connected: 0, errors: 0 };
  const link = new AgentLink({
    hello: HELLO,
    state: () => STATE,
    onConfig: (json) => void seen.configs.push(json),
    onDrain: (drain) => void seen.drains.push(drain),
    onCanary: (_token, answer) => answer(),
    scrape: () => ['one\n', 'two\n'][Symbol.iterator](),
    listeners: () => ({ names: [], descriptors: [] }),
    onConnected: () => void seen.connected++,
    onLinkError: () => void seen.errors++,
    clock: systemClock,
    log,
    ...options,
  });
  link.listen(openUnixListener(socketPath));
  cleanUps.push(() => link.close());
  return { link, socketPath, seen, lines };
}

/** The agent's own class at the other end. */
class Agent {
  readonly heard: [name: string, ...unknown[]][] = [];
  readonly link: WorkerLink;
  closed: HeddleError | null | undefined;

  constructor(socketPath: string) {
    const listener: LinkListener = {
      onHello: (hello) => void this.heard.push(['hello', hello]),
      onState: (state) => void this.heard.push(['state', state]),
      onCertify: (stream, payload) => void this.heard.push(['certify', stream, payload.toString()]),
      onWatchOpen: (stream, kind, request) => void this.heard.push(['watchOpen', stream, kind, request.toString()]),
      onWatchClose: (stream) => void this.heard.push(['watchClose', stream]),
      onClose: (error) => {
        this.closed = error;
      },
    };
    this.link = connectLink(socketPath, listener, systemClock);
    cleanUps.push(() => this.link.close());
  }

  /** Waits for the next thing of that name, and takes it. */
  async take(name: string): Promise<unknown[]> {
    await until(() => this.heard.some(([heard]) => heard === name));
    const index = this.heard.findIndex(([heard]) => heard === name);
    return this.heard.splice(index, 1)[0]!.slice(1);
  }
}

/** A connection that says what no agent would. */
async function rawConnection(socketPath: string): Promise<{ socket: net.Socket; isClosed: () => boolean }> {
  const socket = net.connect(socketPath);
  let isClosed = false;
  socket.on('close', () => {
    isClosed = true;
  });
  socket.on('error', () => {});
  socket.resume();
  cleanUps.push(() => socket.destroy());
  await new Promise<void>((resolve) => socket.once('connect', resolve));
  return { socket, isClosed: () => isClosed };
}

class Recorded implements WatchListener {
  readonly updates: string[] = [];
  readonly staleness: LinkStatus[] = [];
  ended: LinkStatus | null = null;

  update(payload: Uint8Array): void {
    this.updates.push(Buffer.from(payload).toString());
  }

  stale(status: LinkStatus): void {
    this.staleness.push(status);
  }

  end(status: LinkStatus): void {
    this.ended = status;
  }
}

describe('an agent that connects', () => {
  test('hears hello and state, and is obeyed', async () => {
    const { socketPath, seen } = startLink();
    const agent = new Agent(socketPath);
    expect(await agent.take('hello')).toEqual([HELLO]);
    expect(await agent.take('state')).toEqual([STATE]);
    agent.link.configure({ logLevel: 'info' } as never);
    agent.link.drain({ graceMs: 5, reason: 'shutdown' });
    await agent.link.ping(5_000);
    expect(seen).toEqual({
      configs: [{ logLevel: 'info' }],
      drains: [{ graceMs: 5, reason: 'shutdown' }],
      connected: 1,
      errors: 0,
    });
  });

  test('replaces the one before', async () => {
    const { link, socketPath } = startLink();
    const first = new Agent(socketPath);
    await first.take('hello');
    const second = new Agent(socketPath);
    await second.take('hello');
    await until(() => first.closed !== undefined);
    await second.link.ping(5_000);
    expect(link.isConnected).toBe(true);
  });

  test('gets metrics in pieces, several scrapes one after another', async () => {
    const { socketPath } = startLink();
    const agent = new Agent(socketPath);
    const texts = ['', ''];
    await Promise.all(texts.map((_, index) => agent.link.scrape((chunk) => (texts[index] += chunk.toString()), 5_000)));
    expect(texts).toEqual(['one\ntwo\n', 'one\ntwo\n']);
  });

  test('that reads slowly gets all of a large exposition', async () => {
    const piece = `${'x'.repeat(32 * 1024)}\n`;
    const pieces = 200;
    let made = 0;
    const { socketPath } = startLink({
      scrape: () =>
        (function* () {
          for (; made < pieces; made++) yield piece;
        })(),
    });
    const socket = net.connect(socketPath);
    cleanUps.push(() => socket.destroy());
    socket.write(encodeLinkFrame(LinkFrame.metricsRequest, 2));
    socket.pause();
    await until(() => made > 1);
    for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
    // Backpressure: what does not fit the socket is not made.
    expect(made).toBeLessThan(pieces);
    let bytes = 0;
    socket.on('data', (chunk) => {
      bytes += chunk.length;
    });
    socket.resume();
    await until(() => bytes > pieces * piece.length);
    expect(made).toBe(pieces);
  });
});

describe('watches', () => {
  test('carry requests, updates, staleness and the end', async () => {
    const { link, socketPath } = startLink();
    const agent = new Agent(socketPath);
    await agent.take('hello');
    const recorded = new Recorded();
    link.open(WatchKind.profile, Buffer.from('who'), recorded);
    const [stream, kind, request] = (await agent.take('watchOpen')) as [number, number, string];
    expect([stream % 2, kind, request]).toEqual([1, WatchKind.profile, 'who']);
    agent.link.update(stream, Buffer.from('first'));
    agent.link.stale(stream, { code: 14, message: 'upstream is gone' });
    agent.link.update(stream, Buffer.from('second'));
    agent.link.watchEnd(stream, { code: 5, message: 'no such thing' });
    agent.link.update(stream, Buffer.from('too late'));
    await agent.link.ping(5_000);
    expect(recorded).toEqual({
      updates: ['first', 'second'],
      staleness: [{ code: 14, message: 'upstream is gone' }],
      ended: { code: 5, message: 'no such thing' },
    });
  });

  test('that are closed hear nothing more, and the agent knows', async () => {
    const { link, socketPath } = startLink();
    const agent = new Agent(socketPath);
    await agent.take('hello');
    const recorded = new Recorded();
    const watch = link.open(WatchKind.profile, Buffer.from('who'), recorded);
    const [stream] = (await agent.take('watchOpen')) as [number];
    watch.close();
    watch.close();
    expect(await agent.take('watchClose')).toEqual([stream]);
    agent.link.update(stream, Buffer.from('x'));
    await agent.link.ping(5_000);
    expect([recorded.updates, recorded.ended]).toEqual([[], null]);
    expect(agent.heard.filter(([name]) => name === 'watchClose')).toEqual([]);
  });

  test('without an agent end with Unavailable, later than open returns', async () => {
    const { link } = startLink();
    const recorded = new Recorded();
    link.open(WatchKind.profile, Buffer.from('who'), recorded);
    expect(recorded.ended).toBeNull();
    await until(() => recorded.ended !== null);
    expect(recorded.ended?.code).toBe(14);
  });

  test('end when the agent goes, and may be opened again when one is up', async () => {
    const { link, socketPath, seen } = startLink();
    let ups = 0;
    link.onUp(() => ups++);
    const agent = new Agent(socketPath);
    await agent.take('hello');
    const recorded = new Recorded();
    link.open(WatchKind.profile, Buffer.from('who'), recorded);
    await agent.take('watchOpen');
    agent.link.close();
    await until(() => recorded.ended !== null);
    expect([recorded.ended?.code, link.isConnected, seen.errors]).toEqual([14, false, 0]);
    await until(() => link.disconnectedSeconds > 0);
    const next = new Agent(socketPath);
    await next.take('hello');
    link.open(WatchKind.profile, Buffer.from('again'), new Recorded());
    expect((await next.take('watchOpen'))[2]).toBe('again');
    expect([ups, link.disconnectedSeconds]).toEqual([2, 0]);
  });
});

describe('certificates', () => {
  test('are asked for and answered on one stream', async () => {
    const { link, socketPath } = startLink();
    const agent = new Agent(socketPath);
    await agent.take('hello');
    const good = link.certify(Buffer.from('csr'), 5_000);
    const [stream, payload] = (await agent.take('certify')) as [number, string];
    expect(payload).toBe('csr');
    agent.link.certificate(stream, Buffer.from('cert'));
    expect(Buffer.from(await good).toString()).toBe('cert');
    const bad = link.certify(Buffer.from('csr'), 5_000);
    const [second] = (await agent.take('certify')) as [number];
    expect(second).not.toBe(stream);
    agent.link.certifyFailed(second, { code: 9, message: 'not yours' });
    await expect(bad).rejects.toThrow(/refused with 9, "not yours"/);
  });

  test.each<[string, (agent: Agent) => void, RegExp]>([
    ['the agent goes', (agent) => agent.link.close(), /agent disconnected/],
    ['nothing comes', () => {}, /expected an answer within 50 ms/],
  ])('fail when %s', async (_name, act, reason) => {
    const { link, socketPath } = startLink();
    const agent = new Agent(socketPath);
    await agent.take('hello');
    const asked = link.certify(Buffer.from('csr'), 50);
    const failed = expect(asked).rejects.toThrow(reason);
    await agent.take('certify');
    act(agent);
    await failed;
  });

  test('fail at once without an agent', async () => {
    await expect(startLink().link.certify(Buffer.from('csr'), 5_000)).rejects.toThrow(/agent is not connected/);
  });
});

describe('listeners', () => {
  test('are handed to an agent that asks, and stay open here', async () => {
    const names = ['inbound4', 'inbound6', 'outbound4', 'outbound6'];
    const descriptors = names.map((name) =>
      openTcpListener({ address: name.endsWith('4') ? '127.0.0.1' : '::1', port: 0, backlog: 1 }),
    );
    cleanUps.push(() => descriptors.forEach(close));
    const { socketPath } = startLink({ listeners: () => ({ names, descriptors }) });
    const { hello, listeners } = await reclaimListeners(socketPath, 5_000);
    const received = Object.values(listeners);
    cleanUps.push(() => received.forEach(close));
    expect([hello, Object.keys(listeners)]).toEqual([HELLO, names]);
    expect(new Set([...received, ...descriptors]).size).toBe(8);
    expect(descriptors.every(isOpen)).toBe(true);
    const agent = new Agent(socketPath);
    await agent.link.ping(5_000);
  });

  test('come behind what was sent before, and before what is sent after', async () => {
    const descriptor = openTcpListener({ address: '127.0.0.1', port: 0, backlog: 1 });
    cleanUps.push(() => close(descriptor));
    const { socketPath } = startLink({ listeners: () => ({ names: ['inbound4'], descriptors: [descriptor] }) });
    const { socket } = await rawConnection(socketPath);
    const types: number[] = [];
    const { LinkDecoder } = await import('#api/link-codec.ts');
    const decoder = new LinkDecoder();
    socket.on('data', (chunk) => decoder.push(chunk as Buffer, (type) => types.push(type)));
    socket.write(
      Buffer.concat([
        encodeLinkFrame(LinkFrame.ping, 2),
        encodeLinkFrame(LinkFrame.listenersRequest, 4),
        encodeLinkFrame(LinkFrame.metricsRequest, 6),
        encodeLinkFrame(LinkFrame.ping, 8),
      ]),
    );
    await until(() => types.filter((type) => type === LinkFrame.pong).length === 2);
    expect(types.filter((type) => type !== LinkFrame.hello && type !== LinkFrame.state)).toEqual([
      LinkFrame.pong,
      LinkFrame.listeners,
      LinkFrame.metricsChunk,
      LinkFrame.metricsChunk,
      LinkFrame.metricsChunk,
      LinkFrame.pong,
    ]);
  });
});

describe('what breaks the contract', () => {
  test.each<[string, Buffer]>([
    ['an HTTP request', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')],
    ['a frame above the limit', Buffer.from([0x7f, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0])],
    ['a configuration that is no JSON', encodeLinkFrame(LinkFrame.config, 0, Buffer.from('{"pod":'))],
    ['a drain that is no object', encodeLinkFrame(LinkFrame.drain, 0, Buffer.from('"now"'))],
  ])('%s: the connection is closed, the error told, the next agent served', async (_name, bytes) => {
    const { socketPath, seen, lines } = startLink();
    const { socket, isClosed } = await rawConnection(socketPath);
    socket.write(bytes);
    await until(isClosed);
    await until(() => seen.errors === 1);
    expect(lines.filter((line) => line.includes('"level":"error"'))).toHaveLength(1);
    const agent = new Agent(socketPath);
    await agent.link.ping(5_000);
    expect(seen.configs).toEqual([]);
  });

  test.each<[string, number, Buffer]>([
    ['an unknown frame', 0xee, Buffer.from('whatever')],
    ['an update for nobody', LinkFrame.update, Buffer.from('x')],
    ['a certificate for nobody', LinkFrame.certificate, Buffer.from('x')],
  ])('%s is ignored', async (_name, type, payload) => {
    const { socketPath, seen } = startLink();
    const agent = new Agent(socketPath);
    await agent.take('hello');
    const { socket } = await rawConnection(socketPath);
    socket.write(encodeLinkFrame(type, 77, payload));
    let pongs = 0;
    socket.on('data', () => pongs++);
    socket.write(encodeLinkFrame(LinkFrame.ping, 2));
    await until(() => pongs > 0);
    expect(seen.errors).toBe(0);
  });

  test('a configuration that is refused costs only itself', async () => {
    const { HeddleError } = await import('#lib/errors.ts');
    const { socketPath, lines } = startLink({
      onConfig: () => {
        throw new HeddleError('invalid-config', 'read the configuration: field "pod" with 1: expected an object');
      },
    });
    const agent = new Agent(socketPath);
    agent.link.configure({} as never);
    await agent.link.ping(5_000);
    expect(lines.some((line) => line.includes('"level":"error"') && line.includes('field \\"pod\\"'))).toBe(true);
  });

  test('a drain with nonsense is refused by field', async () => {
    const { socketPath, seen, lines } = startLink();
    const agent = new Agent(socketPath);
    agent.link.drain({ graceMs: -1, reason: 'shutdown' });
    agent.link.drain({ graceMs: 1, reason: 'boredom' as never });
    await agent.link.ping(5_000);
    expect([seen.drains, lines.filter((line) => line.includes('expected graceMs'))]).toMatchObject([[], { length: 2 }]);
  });

  test('more scrapes at a time than the bound end the connection', async () => {
    const { socketPath, seen } = startLink({
      scrape: () => ({ next: () => ({ value: 'x'.repeat(LINK_FRAME_BYTES_MAX / 2), done: false }) }),
    });
    const { socket, isClosed } = await rawConnection(socketPath);
    socket.pause();
    for (let index = 0; index <= SCRAPES_MAX; index++)
      socket.write(encodeLinkFrame(LinkFrame.metricsRequest, 2 * index));
    await until(() => seen.errors === 1);
    socket.resume();
    await until(isClosed);
  });
});
