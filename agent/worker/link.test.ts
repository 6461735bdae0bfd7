import net from 'node:net';
import { describe, expect, test } from 'vitest';
import { encodeLinkFrame, encodeLinkJson } from '#api/link-codec.ts';
import { LinkFrame, type LinkHello, type LinkState } from '#api/worker-link.ts';
import { systemClock } from '#lib/clock.ts';
import type { HeddleError } from '#lib/errors.ts';
import { LINK_REQUESTS_MAX, readHello, readState, WorkerLink } from './link.ts';

/** A link over a real socket pair, and the worker's end of it. */
async function setUp() {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const accepted = new Promise<net.Socket>((resolve) => server.once('connection', resolve));
  const socket = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1');
  const heard: unknown[] = [];
  const closed = Promise.withResolvers<HeddleError | null>();
  const link = new WorkerLink(
    socket,
    {
      onHello: (hello) => heard.push(hello),
      onState: (state) => heard.push(state),
      onCertify: (stream, payload) => heard.push(['certify', stream, payload.toString()]),
      onWatchOpen: (stream, kind, request) => heard.push(['watch', stream, kind, request.toString()]),
      onWatchClose: (stream) => heard.push(['close', stream]),
      onClose: closed.resolve,
    },
    systemClock,
  );
  const worker = await accepted;
  server.close();
  worker.on('error', () => {});
  return { link, worker, heard, closed: closed.promise };
}

describe('link to a worker', () => {
  test('tells what the worker says and asks; frames of a newer version are ignored', async () => {
    const { link, worker, heard } = await setUp();
    const hello: LinkHello = { linkVersion: 1, workerVersion: 'v', pid: 7, podUid: 'u', startedMs: 5 };
    const state: LinkState = { state: 'ready', reason: '', connections: 2, certificateExpires: 9 };
    worker.write(encodeLinkJson(LinkFrame.hello, 0, { ...hello, later: true }));
    worker.write(encodeLinkJson(LinkFrame.state, 0, state));
    worker.write(encodeLinkFrame(0x70, 3, Buffer.from('new')));
    worker.write(encodeLinkFrame(LinkFrame.certify, 5, Buffer.from('csr')));
    worker.write(encodeLinkFrame(LinkFrame.watchOpen, 7, Buffer.from('\x02path')));
    worker.write(encodeLinkFrame(LinkFrame.watchClose, 7));
    await expect
      .poll(() => heard)
      .toEqual([hello, state, ['certify', 5, 'csr'], ['watch', 7, 2, 'path'], ['close', 7]]);
    link.close();
  });

  test('a scrape gathers pieces until the empty one; the end of the link ends it', async () => {
    const { link, worker, closed } = await setUp();
    const pieces: string[] = [];
    const scrape = link.scrape((chunk) => pieces.push(chunk.toString()), 5_000);
    const stuck = link.scrape(() => {}, 5_000);
    for (const [stream, text] of [
      [2, 'a'],
      [4, 'x'],
      [2, 'b'],
      [2, ''],
    ] as const) {
      worker.write(encodeLinkFrame(LinkFrame.metricsChunk, stream, Buffer.from(text)));
    }
    await scrape;
    expect(pieces).toEqual(['a', 'b']);
    worker.end();
    await expect(stuck).rejects.toThrow('the link ended');
    expect(await closed).toBeNull();
    await expect(link.ping(1_000)).rejects.toThrow('expected an open link');
  });

  test('bounds what is asked at once, and how long is waited', async () => {
    const { link } = await setUp();
    const pings = Array.from({ length: LINK_REQUESTS_MAX }, () => link.ping(20));
    await expect(link.ping(20)).rejects.toThrow(`at most ${LINK_REQUESTS_MAX}`);
    const results = await Promise.allSettled(pings);
    expect(new Set(results.map(({ status }) => status))).toEqual(new Set(['rejected']));
    link.close();
  });

  test.each([
    ['no frame', Buffer.alloc(64, 0xff)],
    ['a hello that is no JSON', encodeLinkFrame(LinkFrame.hello, 0, Buffer.from('{'))],
    ['a state that is a list', encodeLinkFrame(LinkFrame.state, 0, Buffer.from('[]'))],
  ])('%s ends the link with an error', async (_, bytes) => {
    const { worker, closed, heard } = await setUp();
    worker.write(bytes);
    expect((await closed)?.message).toContain('expected frames of the link');
    expect(heard).toEqual([]);
  });

  test('a worker that does not read is given up', async () => {
    const { link, worker, closed } = await setUp();
    worker.pause();
    const update = Buffer.alloc(1024 * 1024);
    for (let frame = 0; frame < 40 && link.isOpen; frame++) link.update(2, update);
    expect((await closed)?.code).toBe('link-overflow');
    worker.destroy();
  });

  test('fields of the wrong type do not get further', () => {
    const state = { state: 'root', reason: { toString: 1 }, connections: '5', certificateExpires: Number.NaN };
    expect(readState(state)).toEqual({ state: 'starting', reason: '', connections: 0, certificateExpires: 0 });
    const hello = readHello({ workerVersion: 'v'.repeat(10_000), pid: null });
    expect(hello).toMatchObject({ pid: 0, podUid: '' });
    expect(hello.workerVersion).toHaveLength(500);
  });
});
