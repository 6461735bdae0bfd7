import http2 from 'node:http2';
import { Duplex } from 'node:stream';
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import type { RequestHead, ResponseHead } from '../../http.ts';
import { HeaderList } from '../headers.ts';
import { Http2Connection } from './connection.ts';
import { ErrorCode, FrameType, PREFACE } from './constants.ts';
import type { Http2Events } from './events.ts';
import { HTTP2_DEFAULTS, type Http2Options } from './options.ts';
import type { Http2Stream } from './stream.ts';

const hex = (text: string) => Uint8Array.from(Buffer.from(text.replace(/\s/g, ''), 'hex'));

function frame(type: number, flags: number, streamId: number, payload: Uint8Array = new Uint8Array(0)): Uint8Array {
  const out = Buffer.alloc(9 + payload.length);
  out.writeUIntBE(payload.length, 0, 3);
  out[3] = type;
  out[4] = flags;
  out.writeUInt32BE(streamId, 5);
  out.set(payload, 9);
  return out;
}

function framesOf(bytes: Uint8Array): { type: number; flags: number; streamId: number; payload: Buffer }[] {
  const buffer = Buffer.from(bytes);
  const frames = [];
  for (let at = 0; at < buffer.length; ) {
    const length = buffer.readUIntBE(at, 3);
    frames.push({
      type: buffer[at + 3]!,
      flags: buffer[at + 4]!,
      streamId: buffer.readUInt32BE(at + 5),
      payload: buffer.subarray(at + 9, at + 9 + length),
    });
    at += 9 + length;
  }
  return frames;
}

const SETTINGS = frame(FrameType.SETTINGS, 0, 0);
/** :method GET, :scheme http, :path /, :authority a. */
const GET = hex('82 86 84 41 01 61');
const POST = hex('83 86 84 41 01 61');

/** A field as a literal without indexing (RFC 7541 section 6.2.2). */
const literal = (name: string, value: string) =>
  Buffer.concat([Buffer.from([0, name.length]), Buffer.from(name), Buffer.from([value.length]), Buffer.from(value)]);

interface Seen {
  requests: RequestHead[];
  data: string;
  ends: number;
  resets: { id: number; code: number; isRemote: boolean }[];
}

function server(options: Partial<Http2Options> = {}, overrides: Partial<Http2Events<null>> = {}) {
  const seen: Seen = { requests: [], data: '', ends: 0, resets: [] };
  const streams: Http2Stream<null>[] = [];
  const connection = new Http2Connection<null>(
    { ...HTTP2_DEFAULTS, role: 'server', ...options },
    {
      onRequest: (stream, head) => {
        streams.push(stream);
        seen.requests.push(head);
      },
      onInformational: () => {},
      onResponse: () => {},
      onData: (_stream, bytes, start, end) => {
        seen.data += Buffer.from(bytes.subarray(start, end)).toString();
        return true;
      },
      onEnd: () => seen.ends++,
      onReset: (stream, code, isRemote) => seen.resets.push({ id: stream.id, code, isRemote }),
      onDrain: () => {},
      onGoaway: () => {},
      onPong: () => {},
      onStreamClosed: () => {},
      ...overrides,
    },
  );
  connection.taken();
  const feed = (...parts: Uint8Array[]) => {
    const bytes = Buffer.concat(parts);
    connection.receive(bytes, 0, bytes.length, 0);
    // What was given is the reader's buffer: it is used again at once.
    bytes.fill(0xff);
    const out = framesOf(connection.output.view());
    connection.taken();
    return out;
  };
  feed(Buffer.from(PREFACE), SETTINGS);
  return { connection, seen, streams, feed };
}

/** What the connection did to the offender: a stream reset, the end of the connection, or nothing. */
function verdict(out: ReturnType<typeof framesOf>): string {
  const goaway = out.find(({ type }) => type === FrameType.GOAWAY);
  if (goaway) return `connection ${goaway.payload.readUInt32BE(4)}`;
  const reset = out.find(({ type }) => type === FrameType.RST_STREAM);
  return reset ? `stream ${reset.payload.readUInt32BE(0)}` : 'nothing';
}

describe('a server judges frames (RFC 9113)', () => {
  const open = frame(FrameType.HEADERS, 4, 1, POST);
  const whole = frame(FrameType.HEADERS, 5, 1, GET);
  const rst = frame(FrameType.RST_STREAM, 0, 1, hex('00000008'));
  test.each<[section: string, name: string, parts: Uint8Array[], expected: string]>([
    [
      '4.2',
      'a frame above the maximum',
      [frame(FrameType.DATA, 0, 1, new Uint8Array(16_385))],
      `connection ${ErrorCode.FRAME_SIZE_ERROR}`,
    ],
    [
      '4.3',
      'a broken header block',
      [frame(FrameType.HEADERS, 5, 1, hex('80'))],
      `connection ${ErrorCode.COMPRESSION_ERROR}`,
    ],
    [
      '4.3',
      'PING inside a header block',
      [frame(FrameType.HEADERS, 1, 1, GET), frame(FrameType.PING, 0, 0, new Uint8Array(8))],
      `connection ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    ['5.1', 'DATA on an idle stream', [frame(FrameType.DATA, 1, 1)], `connection ${ErrorCode.PROTOCOL_ERROR}`],
    ['5.1', 'RST_STREAM on an idle stream', [rst], `connection ${ErrorCode.PROTOCOL_ERROR}`],
    [
      '5.1',
      'WINDOW_UPDATE on an idle stream',
      [frame(FrameType.WINDOW_UPDATE, 0, 1, hex('00000001'))],
      `connection ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    [
      '5.1',
      'CONTINUATION without HEADERS',
      [frame(FrameType.CONTINUATION, 4, 1, GET)],
      `connection ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    ['5.1', 'DATA behind END_STREAM', [whole, frame(FrameType.DATA, 1, 1)], `stream ${ErrorCode.STREAM_CLOSED}`],
    [
      '5.1',
      'HEADERS behind END_STREAM',
      [whole, frame(FrameType.HEADERS, 5, 1, GET)],
      `stream ${ErrorCode.STREAM_CLOSED}`,
    ],
    [
      '5.1',
      'DATA behind RST_STREAM',
      [open, rst, frame(FrameType.DATA, 1, 1)],
      `connection ${ErrorCode.STREAM_CLOSED}`,
    ],
    [
      '5.1',
      'HEADERS behind RST_STREAM',
      [open, rst, frame(FrameType.HEADERS, 5, 1, GET)],
      `connection ${ErrorCode.STREAM_CLOSED}`,
    ],
    ['5.1.1', 'an even stream', [frame(FrameType.HEADERS, 5, 2, GET)], `connection ${ErrorCode.PROTOCOL_ERROR}`],
    [
      '5.1.1',
      'a smaller number',
      [frame(FrameType.HEADERS, 5, 5, GET), frame(FrameType.HEADERS, 5, 3, GET)],
      `connection ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    [
      '5.3.1',
      'a stream that depends on itself',
      [frame(FrameType.HEADERS, 0x25, 1, Buffer.concat([hex('00000001 10'), GET]))],
      `stream ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    [
      '5.3.1',
      'PRIORITY on itself',
      [frame(FrameType.PRIORITY, 0, 1, hex('00000001 10'))],
      `stream ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    ['6.1', 'DATA on stream 0', [frame(FrameType.DATA, 0, 0)], `connection ${ErrorCode.PROTOCOL_ERROR}`],
    [
      '6.1',
      'padding as long as the frame',
      [open, frame(FrameType.DATA, 9, 1, hex('02 00'))],
      `connection ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    [
      '6.4',
      'RST_STREAM of 3 bytes',
      [open, frame(FrameType.RST_STREAM, 0, 1, hex('000000'))],
      `connection ${ErrorCode.FRAME_SIZE_ERROR}`,
    ],
    [
      '6.5',
      'SETTINGS acknowledgement with payload',
      [frame(FrameType.SETTINGS, 1, 0, hex('000000000000'))],
      `connection ${ErrorCode.FRAME_SIZE_ERROR}`,
    ],
    ['6.5', 'SETTINGS on a stream', [frame(FrameType.SETTINGS, 0, 1)], `connection ${ErrorCode.PROTOCOL_ERROR}`],
    [
      '6.5.2',
      'ENABLE_PUSH of 2',
      [frame(FrameType.SETTINGS, 0, 0, hex('0002 00000002'))],
      `connection ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    [
      '6.5.2',
      'INITIAL_WINDOW_SIZE of 2^31',
      [frame(FrameType.SETTINGS, 0, 0, hex('0004 80000000'))],
      `connection ${ErrorCode.FLOW_CONTROL_ERROR}`,
    ],
    [
      '6.5.2',
      'MAX_FRAME_SIZE below 16,384',
      [frame(FrameType.SETTINGS, 0, 0, hex('0005 00003fff'))],
      `connection ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    [
      '6.6',
      'PUSH_PROMISE',
      [frame(FrameType.PUSH_PROMISE, 4, 1, hex('00000002'))],
      `connection ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    [
      '6.7',
      'PING of 7 bytes',
      [frame(FrameType.PING, 0, 0, new Uint8Array(7))],
      `connection ${ErrorCode.FRAME_SIZE_ERROR}`,
    ],
    [
      '6.8',
      'GOAWAY on a stream',
      [frame(FrameType.GOAWAY, 0, 1, new Uint8Array(8))],
      `connection ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    [
      '6.9',
      'WINDOW_UPDATE of 0 on the connection',
      [frame(FrameType.WINDOW_UPDATE, 0, 0, hex('00000000'))],
      `connection ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    [
      '6.9',
      'WINDOW_UPDATE of 0 on a stream',
      [open, frame(FrameType.WINDOW_UPDATE, 0, 1, hex('00000000'))],
      `stream ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    [
      '6.9.1',
      'a connection window above 2^31-1',
      [frame(FrameType.WINDOW_UPDATE, 0, 0, hex('7fffffff'))],
      `connection ${ErrorCode.FLOW_CONTROL_ERROR}`,
    ],
    [
      '6.9.1',
      'a stream window above 2^31-1',
      [open, frame(FrameType.WINDOW_UPDATE, 0, 1, hex('7fffffff'))],
      `stream ${ErrorCode.FLOW_CONTROL_ERROR}`,
    ],
    [
      '8.1',
      'a second head without END_STREAM',
      [open, frame(FrameType.HEADERS, 4, 1, hex('00 01 61 01 62'))],
      `stream ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    [
      '8.2.1',
      'an upper-case name',
      [frame(FrameType.HEADERS, 5, 1, Buffer.concat([GET, hex('00 01 41 01 62')]))],
      `stream ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    [
      '8.2.2',
      'a Connection field',
      [
        frame(
          FrameType.HEADERS,
          5,
          1,
          Buffer.concat([GET, hex('00 0a'), Buffer.from('connection'), hex('05'), Buffer.from('close')]),
        ),
      ],
      `stream ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    [
      '8.3',
      'a pseudo-header behind a field',
      [frame(FrameType.HEADERS, 5, 1, hex('86 84 41 01 61 00 01 61 01 62 82'))],
      `stream ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    [
      '8.3',
      'a pseudo-header twice',
      [frame(FrameType.HEADERS, 5, 1, Buffer.concat([GET, hex('82')]))],
      `stream ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    ['8.3.1', 'no :path', [frame(FrameType.HEADERS, 5, 1, hex('82 86'))], `stream ${ErrorCode.PROTOCOL_ERROR}`],
    [
      '8.1.1',
      'content-length above the body',
      [
        frame(FrameType.HEADERS, 4, 1, Buffer.concat([POST, hex('0f0d 01 35')])),
        frame(FrameType.DATA, 1, 1, hex('61')),
      ],
      `stream ${ErrorCode.PROTOCOL_ERROR}`,
    ],
    ['5.5', 'an unknown frame', [frame(0x16, 0, 0, new Uint8Array(8))], 'nothing'],
    ['8.1', 'an honest request', [whole], 'nothing'],
  ])('%s: %s', (_section, _name, parts, expected) => {
    expect(verdict(server().feed(...parts))).toBe(expected);
  });

  test.each([
    ['two content-lengths', POST, literal('content-length', '4'), literal('content-length', '0')],
    ['two hosts', GET, literal('host', 'a'), literal('host', 'b')],
    ['a method with a blank', literal(':method', 'GET /admin HTTP/1.1'), hex('86 84 41 01 61')],
    ['a path with a blank', literal(':path', '/a HTTP/1.1'), hex('82 86 41 01 61')],
    ['a path with a control character', literal(':path', '/a\x0b'), hex('82 86 41 01 61')],
    ['an authority with a path', literal(':authority', 'a/b'), hex('82 86 84')],
    ['an authority with a user', literal(':authority', 'user@a'), hex('82 86 84')],
  ] as [string, ...Uint8Array[]][])('8.3.1: what HTTP/1 would read differently is malformed: %s', (_name, ...block) => {
    const { seen, feed } = server();
    const out = feed(frame(FrameType.HEADERS, 4, 1, Buffer.concat(block)));
    expect(seen.requests).toEqual([]);
    const [reset] = out.filter(({ type }) => type === FrameType.RST_STREAM);
    expect(reset?.payload.readUInt32BE()).toBe(ErrorCode.PROTOCOL_ERROR);
  });

  test('3.4: a wrong preface ends the connection', () => {
    const { connection } = server();
    const fresh = new Http2Connection<null>({ ...HTTP2_DEFAULTS, role: 'server' }, {} as Http2Events<null>);
    fresh.receive(Buffer.from('GET / HTTP/1.1\r\n\r\n'), 0, 18, 0);
    expect(fresh.fault?.code).toBe(ErrorCode.PROTOCOL_ERROR);
    expect(connection.fault).toBeNull();
  });

  test('the same bytes read alike whole and one at a time', () => {
    const parts = [
      frame(FrameType.HEADERS, 0, 1, POST.subarray(0, 2)),
      frame(FrameType.CONTINUATION, 4, 1, POST.subarray(2)),
      frame(FrameType.DATA, 9, 1, Buffer.concat([hex('03'), Buffer.from('hello'), new Uint8Array(3)])),
    ];
    const bytes = Buffer.concat(parts);
    const whole = server();
    whole.feed(bytes);
    const split = server();
    for (const byte of bytes) split.feed(Uint8Array.of(byte));
    for (const { seen } of [whole, split]) {
      expect({ method: seen.requests[0]?.method, data: seen.data, ends: seen.ends }).toEqual({
        method: 'POST',
        data: 'hello',
        ends: 1,
      });
    }
  });
});

describe('floods end with ENHANCE_YOUR_CALM', () => {
  const flood = (count: number, part: (index: number) => Uint8Array[]) =>
    Array.from({ length: count }, (_, index) => part(index)).flat();
  test.each<[string, Uint8Array[]]>([
    [
      'rapid reset (CVE-2023-44487)',
      flood(1100, (i) => [
        frame(FrameType.HEADERS, 5, 2 * i + 1, GET),
        frame(FrameType.RST_STREAM, 0, 2 * i + 1, hex('00000008')),
      ]),
    ],
    [
      'made-you-reset (CVE-2025-8671)',
      flood(1100, (i) => [
        frame(FrameType.HEADERS, 5, 2 * i + 1, GET),
        frame(FrameType.WINDOW_UPDATE, 0, 2 * i + 1, hex('00000000')),
      ]),
    ],
    ['pings', flood(1100, () => [frame(FrameType.PING, 0, 0, new Uint8Array(8))])],
    ['settings', flood(1100, () => [SETTINGS])],
    ['priorities', flood(1100, () => [frame(FrameType.PRIORITY, 0, 1, hex('00000003 10'))])],
    ['empty data', [frame(FrameType.HEADERS, 4, 1, POST), ...flood(1100, () => [frame(FrameType.DATA, 0, 1)])]],
    ['continuations', [frame(FrameType.HEADERS, 0, 1, GET), ...flood(20, () => [frame(FrameType.CONTINUATION, 0, 1)])]],
  ])('%s', (_name, parts) => {
    const { connection, feed } = server();
    for (const part of parts) feed(part);
    expect(connection.fault?.code).toBe(ErrorCode.ENHANCE_YOUR_CALM);
  });

  test('a header list above the limit is answered 431, the table stays in step', () => {
    const { connection, feed, seen } = server({ headerListBytesMax: 400 });
    const long = Buffer.concat([GET, hex('40 01 78 7f 49'), Buffer.alloc(200, 'a'), hex('be be be')]);
    const out = feed(frame(FrameType.HEADERS, 5, 1, long));
    expect(out.map(({ type }) => type)).toEqual([FrameType.HEADERS, FrameType.RST_STREAM]);
    feed(frame(FrameType.HEADERS, 5, 3, Buffer.concat([GET, hex('bf')])));
    expect(connection.fault).toBeNull();
    expect(seen.requests[0]?.headers.get('x')).toBe('a'.repeat(200));
  });
});

/** Joins one of our connections with a stream that Node's http2 drives. */
function pipe(connection: Http2Connection<unknown>, nowMs = 0): Duplex {
  const flush = () => {
    const bytes = Buffer.from(connection.output.view());
    connection.taken();
    if (bytes.length > 0) stream.push(bytes);
    if (connection.output.length > 0) flush();
  };
  const stream = new Duplex({
    read: () => flush(),
    write: (chunk: Buffer, _encoding, done) => {
      connection.receive(chunk, 0, chunk.length, nowMs);
      flush();
      done();
    },
  });
  return Object.assign(stream, { flush });
}

describe('against Node as the other side', () => {
  const cleanups: (() => void)[] = [];
  afterEach(() => {
    for (const cleanup of cleanups.splice(0)) cleanup();
  });

  test('our server echoes bodies of any size to Node as the client', async () => {
    const waiting = new Map<Http2Stream<null>, Buffer[]>();
    let flush = () => {};
    const { connection } = ((): { connection: Http2Connection<null> } => {
      const made: Http2Connection<null> = new Http2Connection<null>(
        { ...HTTP2_DEFAULTS, role: 'server' },
        {
          onRequest: (stream) => {
            waiting.set(stream, []);
            const headers = new HeaderList();
            headers.add('x-served', 'yes');
            made.sendResponse(
              stream,
              { status: 200, reason: '', version: 'HTTP/2', headers, bodyBytes: 'unknown' },
              false,
            );
          },
          onData: (stream, bytes, start, end) => made.sendData(stream, bytes.subarray(start, end)),
          onEnd: (stream) => made.end(stream, null),
          onDrain: (stream) => made.resumeStream(stream),
          onInformational: () => {},
          onResponse: () => {},
          onReset: () => {},
          onGoaway: () => {},
          onPong: () => {},
          onStreamClosed: () => {},
        },
      );
      return { connection: made };
    })();
    const transport = pipe(connection as Http2Connection<unknown>) as Duplex & { flush: () => void };
    flush = transport.flush;
    const session = http2.connect('http://a', { createConnection: () => transport });
    cleanups.push(() => session.destroy());
    const bodies = [0, 1, 16_384, 70_000, 3_000_000].map((size) => Buffer.alloc(size, `size ${size} `));
    const echoed = await Promise.all(
      bodies.map(
        (body) =>
          new Promise<Buffer>((resolve, reject) => {
            const request = session.request({ ':method': 'POST', ':path': '/echo' });
            const parts: Buffer[] = [];
            request.on('data', (part: Buffer) => parts.push(part));
            request.on('end', () => resolve(Buffer.concat(parts)));
            request.on('error', reject);
            request.end(body);
            flush();
          }),
      ),
    );
    for (const [index, body] of echoed.entries()) expect(body.equals(bodies[index]!)).toBe(true);
    expect(connection.fault).toBeNull();
    expect(connection.openStreams).toBe(0);
  });

  test('our client fetches from Node as the server, with trailers', async () => {
    const done = Promise.withResolvers<{ head: ResponseHead; body: string; trailer: string | undefined }>();
    let head: ResponseHead | null = null;
    let isSent = false;
    let body = '';
    const client: Http2Connection<null> = new Http2Connection<null>(
      { ...HTTP2_DEFAULTS, role: 'client' },
      {
        onRequest: () => {},
        onInformational: () => {},
        onResponse: (_stream, response) => {
          head = response;
        },
        onData: (_stream, bytes, start, end) => {
          body += Buffer.from(bytes.subarray(start, end)).toString();
          return true;
        },
        onEnd: (_stream, trailers) => done.resolve({ head: head!, body, trailer: trailers?.get('x-sum') }),
        onReset: (_stream, code) => done.reject(new Error(`reset ${code}`)),
        onDrain: () => {},
        onGoaway: () => {},
        onPong: () => {},
        onStreamClosed: () => {
          if (isSent || !client.canOpen) return;
          isSent = true;
          const headers = new HeaderList();
          headers.add('x-a', 'b');
          const stream = client.openStream(
            {
              method: 'POST',
              scheme: 'http',
              authority: 'a',
              path: '/x',
              version: 'HTTP/2',
              headers,
              bodyBytes: 'unknown',
              upgrade: null,
            },
            false,
            null,
          );
          client.sendData(stream, Buffer.from('hello '));
          client.sendData(stream, Buffer.from('world'));
          client.end(stream, null);
        },
      },
    );
    const sessions: http2.Http2Session[] = [];
    const nodeServer = http2.createServer((request, response) => {
      response.setHeader('x-path', request.url);
      request.pipe(response, { end: false });
      request.on('end', () => {
        response.addTrailers({ 'x-sum': 'ok' });
        response.end();
      });
    });
    nodeServer.on('session', (session) => sessions.push(session));
    const transport = pipe(client as Http2Connection<unknown>) as Duplex & { flush: () => void };
    cleanups.push(() => {
      for (const session of sessions) session.destroy();
    });
    nodeServer.emit('connection', transport);
    transport.flush();
    const result = await done.promise;
    expect({
      status: result.head.status,
      path: result.head.headers.get('x-path'),
      body: result.body,
      trailer: result.trailer,
    }).toEqual({
      status: 200,
      path: '/x',
      body: 'hello world',
      trailer: 'ok',
    });
  });
});

describe('properties', () => {
  test('a window bounds what leaves, and everything leaves once it opens', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 200_000 }),
        fc.array(fc.integer({ min: 1, max: 50_000 }), { maxLength: 20 }),
        (size, updates) => {
          const { connection, streams, feed } = server();
          feed(frame(FrameType.SETTINGS, 0, 0, hex('0004 00000064')));
          feed(frame(FrameType.HEADERS, 5, 1, GET));
          const stream = streams[0]!;
          const count = (out: ReturnType<typeof framesOf>) =>
            out
              .filter(({ type }) => type === FrameType.DATA)
              .reduce((sum, { payload }) => sum + payload.toString().replaceAll(/[^b]/g, '').length, 0);
          connection.sendResponse(
            stream,
            { status: 200, reason: '', version: 'HTTP/2', headers: new HeaderList(), bodyBytes: 'unknown' },
            false,
          );
          const body = Buffer.alloc(size, 'b');
          connection.sendData(stream, body);
          body.fill(0xff);
          connection.end(stream, null);
          let allowed = 100;
          let sent = count(feed());
          expect(sent).toBe(Math.min(size, allowed));
          const windowUpdate = (id: number, bytes: number) => {
            const payload = Buffer.alloc(4);
            payload.writeUInt32BE(bytes);
            return frame(FrameType.WINDOW_UPDATE, 0, id, payload);
          };
          feed(windowUpdate(0, 10_000_000));
          for (const update of updates) {
            if (connection.openStreams === 0) break;
            allowed += update;
            sent += count(feed(windowUpdate(1, update)));
            expect(sent).toBe(Math.min(size, allowed));
          }
          if (connection.openStreams > 0) sent += count(feed(windowUpdate(1, 1_000_000)));
          expect(sent).toBe(size);
          expect(connection.openStreams).toBe(0);
        },
      ),
      { numRuns: 200 },
    );
  });

  test('arbitrary frames never crash a connection', () => {
    const anyFrame = fc
      .tuple(
        fc.integer({ min: 0, max: 11 }),
        fc.integer({ min: 0, max: 255 }),
        fc.integer({ min: 0, max: 9 }),
        fc.uint8Array({ maxLength: 40 }),
      )
      .map(([type, flags, id, payload]) => frame(type, flags, id, payload));
    fc.assert(
      fc.property(fc.array(anyFrame, { maxLength: 30 }), (frames) => {
        const { feed } = server();
        for (const part of frames) feed(part);
      }),
      { numRuns: 1000 },
    );
  });
});
