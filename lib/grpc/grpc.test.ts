import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import tls from 'node:tls';
import { afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { DestinationDefinition, type GetDestination, type Update } from '#api/gen/destination.ts';
import { CertifyResponse, IdentityDefinition } from '#api/gen/identity.ts';
import { makeAuthority, makeLeaf, type TestCertificate } from '../../test/support/certificates.ts';
import { Backoff } from '../backoff.ts';
import { FakeClock } from '../clock.ts';
import { createLog, silentLog } from '../log.ts';
import { GrpcClient, type StreamListener } from './client.ts';
import { GrpcServer, parseListenAddress } from './server.ts';
import type { CallContext, CallObserver } from './service.ts';
import { GrpcError, Status, statusName } from './status.ts';
import type { MessageStream } from './stream.ts';
import { identitiesOf } from './tls.ts';
import { watch } from './watch.ts';

// Handshakes take their time on a machine that runs other tests beside these.
vi.setConfig({ testTimeout: 30_000 });
const poll = <T>(read: () => T) => expect.poll(read, { timeout: 10_000, interval: 10 });

const SERVER = 'heddle-destination.heddle.serviceaccount.identity.heddle.cluster.local';
const { get } = DestinationDefinition.methods;
const { certify } = IdentityDefinition.methods;

let anchor: TestCertificate;
let leaf: TestCertificate;
beforeAll(() => {
  anchor = makeAuthority();
  leaf = makeLeaf(anchor, [`DNS:${SERVER}`, 'URI:spiffe://cluster.local/ns/heddle/sa/heddle-destination']);
});

const cleanup: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const run of cleanup.splice(0).reverse()) await run();
});

type OnGet = (request: GetDestination, stream: MessageStream<Update>, context: CallContext) => void;

interface Rig {
  server: GrpcServer;
  port: number;
  observed: string[];
}

async function serve(onGet: OnGet, options: { plain?: boolean; queueCapacity?: number } = {}): Promise<Rig> {
  const observed: string[] = [];
  const observer: CallObserver = {
    started: ({ method, type }) => observed.push(`started ${type} ${method}`),
    received: () => observed.push('received'),
    sent: () => observed.push('sent'),
    handled: (_labels, status) => observed.push(`handled ${statusName(status)}`),
  };
  const server = new GrpcServer({
    log: silentLog,
    tls: options.plain ? null : leaf,
    observer,
    ...(options.queueCapacity === undefined ? {} : { queueCapacity: options.queueCapacity }),
  });
  server.add(DestinationDefinition, { get: onGet, getProfile: (_request, stream) => stream.end() });
  server.add(IdentityDefinition, {
    certify: ({ identity }, context) => {
      if (identity === 'refuse') throw new GrpcError(Status.failedPrecondition, 'not you');
      if (identity === 'crash') throw new Error('a secret of the server');
      const leafCertificate = Buffer.from(`${identity} ${context.metadata('heddle-pod-uid') ?? 'none'}`);
      return { leafCertificate, intermediateCertificates: [], validUntil: { seconds: 1n, nanos: 0 } };
    },
  });
  const { port } = await server.listen({ host: '127.0.0.1', port: 0 });
  cleanup.push(() => server.close(0));
  return { server, port, observed };
}

function connect(
  port: number,
  options: { identity?: string; anchors?: () => string; plain?: boolean } = {},
): GrpcClient {
  const client = new GrpcClient({
    address: `127.0.0.1:${port}`,
    tls: options.plain
      ? null
      : {
          serverIdentity: options.identity ?? SERVER,
          trustAnchorsPem: options.anchors ?? (() => anchor.certificatePem),
        },
  });
  cleanup.push(() => client.close());
  return client;
}

const request = (identity: string) => ({
  identity,
  token: Buffer.alloc(0),
  certificateSigningRequest: Buffer.alloc(0),
});
const remove = (port: number): Update => ({
  update: { $case: 'remove', value: { addrs: [{ ip: undefined, port }] } },
});
const destination: GetDestination = { scheme: '', path: 'web:80', contextToken: '' };

/** Collects what a stream says; `next()` waits for one more event. */
function listener() {
  const events: (Update | string)[] = [];
  let wake: () => void = () => {};
  const push = (event: Update | string) => {
    events.push(event);
    wake();
  };
  const listen: StreamListener<Update> = {
    message: push,
    end: (status, details) => push(`${statusName(status)} ${details}`.trim()),
  };
  const until = async (count: number): Promise<void> => {
    while (events.length < count) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  return { events, listen, until };
}

describe('unary calls over mesh TLS', () => {
  test('carry messages and metadata', async () => {
    const { port, observed } = await serve(() => {});
    const client = connect(port);
    const response = await client.call(IdentityDefinition, certify, request('web'), {
      metadata: { 'heddle-pod-uid': 'uid-1' },
    });
    expect(Buffer.from(response.leafCertificate).toString()).toBe('web uid-1');
    expect(response.validUntil).toEqual({ seconds: 1n, nanos: 0 });
    expect(observed).toEqual(['started unary Certify', 'received', 'sent', 'handled OK']);
  });

  test('end with the status of the handler, and keep other errors to the log', async () => {
    const { port, observed } = await serve(() => {});
    const client = connect(port);
    const failure = (identity: string) =>
      client.call(IdentityDefinition, certify, request(identity)).catch((error: GrpcError) => error);
    expect(await failure('refuse')).toMatchObject({ status: Status.failedPrecondition, message: 'not you' });
    expect(await failure('crash')).toMatchObject({ status: Status.internal, message: 'Certify failed' });
    expect(observed.filter((line) => line.startsWith('handled'))).toEqual([
      'handled FailedPrecondition',
      'handled Internal',
    ]);
  });

  test('refuse a server with another identity and one below another anchor', async () => {
    const { port } = await serve(() => {});
    const failure = (client: GrpcClient) =>
      client.call(IdentityDefinition, certify, request('web'), { timeoutMs: 5000 }).catch((error: GrpcError) => error);
    const otherName = await failure(connect(port, { identity: 'identity.other' }));
    expect(otherName).toMatchObject({ status: Status.unavailable });
    expect((otherName as GrpcError).message).toContain('expected the identity "identity.other"');
    const other = makeAuthority('other anchor');
    const otherAnchor = await failure(connect(port, { anchors: () => other.certificatePem }));
    expect(otherAnchor).toMatchObject({ status: Status.unavailable });
    expect((otherAnchor as GrpcError).message).toMatch(/unable to|self-signed|issuer/);
  });

  test('accept the SPIFFE name of the server', async () => {
    const { port } = await serve(() => {});
    const client = connect(port, { identity: 'spiffe://cluster.local/ns/heddle/sa/heddle-destination' });
    expect(await client.call(IdentityDefinition, certify, request('web'))).toHaveProperty('leafCertificate');
  });

  test('are cancelled by their signal', async () => {
    const { port } = await serve(() => {});
    const client = connect(port);
    const aborted = AbortSignal.abort();
    await expect(client.call(IdentityDefinition, certify, request('web'), { signal: aborted })).rejects.toMatchObject({
      status: Status.cancelled,
    });
  });
});

describe('certificates', () => {
  test('are swapped while a stream lives, and new connections get the new one', async () => {
    const opened: MessageStream<Update>[] = [];
    const { server, port } = await serve((_request, stream) => {
      opened.push(stream);
      stream.send(remove(1));
    });
    const { events, listen, until } = listener();
    connect(port).open(DestinationDefinition, get, destination, listen);
    await until(1);

    const nextAnchor = makeAuthority('next anchor');
    server.setTls(makeLeaf(nextAnchor, [`DNS:${SERVER}`]));
    opened[0]!.send(remove(2));
    await until(2);
    expect(events).toEqual([remove(1), remove(2)]);

    const anchors = { pem: anchor.certificatePem };
    const late = connect(port, { anchors: () => anchors.pem });
    const failed = await late
      .call(IdentityDefinition, certify, request('web'), { timeoutMs: 5000 })
      .catch((error: GrpcError) => error);
    expect(failed).toMatchObject({ status: Status.unavailable });
    // The same channel connects once its anchors hold the new one.
    anchors.pem += nextAnchor.certificatePem;
    await expect
      .poll(
        async () =>
          await late.call(IdentityDefinition, certify, request('web')).then(
            () => 'ok',
            () => 'no',
          ),
        {
          timeout: 10_000,
        },
      )
      .toBe('ok');
  });

  test('their names are read in order, with quotes intact', () => {
    const odd = makeLeaf(anchor, ['DNS:a.example', "URI:spiffe://td/x\\'y", 'IP:127.0.0.1', 'DNS:b.example']);
    const der = Buffer.from(odd.certificatePem.replace(/-----[^-]+-----|\s/g, ''), 'base64');
    expect(identitiesOf(der)).toEqual(['a.example', "spiffe://td/x'y", 'b.example']);
  });
});

describe('a client as linkerd2-proxy is', () => {
  test('TLS 1.3 with X25519MLKEM768, no ALPN, no client certificate', async () => {
    const { port } = await serve((_request, stream) => stream.send(remove(7)));
    const socket = tls.connect({
      port,
      host: '127.0.0.1',
      ca: anchor.certificatePem,
      servername: SERVER,
      minVersion: 'TLSv1.3',
      ecdhCurve: 'X25519MLKEM768',
    });
    await once(socket, 'secureConnect');
    cleanup.push(() => void socket.destroy());
    expect(socket.alpnProtocol).toBe(false);
    expect(socket.getProtocol()).toBe('TLSv1.3');
    const session = http2.connect(`https://${SERVER}`, { createConnection: () => socket as unknown as net.Socket });
    cleanup.push(() => session.destroy());
    const call = session.request({
      ':method': 'POST',
      ':path': '/io.linkerd.proxy.identity.Identity/Certify',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    call.end(Buffer.from([0, 0, 0, 0, 3, 0x0a, 1, 0x69]));
    const chunks: Buffer[] = [];
    call.on('data', (chunk: Buffer) => chunks.push(chunk));
    const [trailers] = (await once(call, 'trailers')) as [Record<string, string>];
    expect(trailers['grpc-status']).toBe('0');
    const frame = Buffer.concat(chunks);
    expect(frame.readUInt32BE(1)).toBe(frame.length - 5);
    expect(Buffer.from(CertifyResponse.decode(frame.subarray(5)).leafCertificate).toString()).toBe('i none');
  });

  test('TLS 1.2 is refused', async () => {
    const { port } = await serve(() => {});
    const socket = tls.connect({ port, host: '127.0.0.1', ca: anchor.certificatePem, maxVersion: 'TLSv1.2' });
    const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
    expect(error.code).toMatch(/PROTOCOL_VERSION/);
  });

  test('garbage instead of a handshake ends that connection only', async () => {
    const { port } = await serve(() => {});
    const socket = net.connect(port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write('GET / HTTP/1.1\r\n\r\n');
    socket.resume();
    await once(socket, 'close');
    expect(await connect(port).call(IdentityDefinition, certify, request('web'))).toHaveProperty('leafCertificate');
  });
});

describe('streams', () => {
  test('end with OK, with a status, or when the client leaves', async () => {
    const left: string[] = [];
    const { port, observed } = await serve(({ path }, stream, context) => {
      if (path === 'ok') stream.end();
      if (path === 'missing') throw new GrpcError(Status.notFound, 'no such service');
      context.signal.addEventListener('abort', () => left.push(path));
    });
    const client = connect(port);
    const ends: string[] = [];
    for (const path of ['ok', 'missing']) {
      const { events, listen, until } = listener();
      client.open(DestinationDefinition, get, { ...destination, path }, listen);
      await until(1);
      ends.push(events[0] as string);
    }
    expect(ends).toEqual(['OK OK', 'NotFound no such service']);

    const { events, listen } = listener();
    const open = client.open(DestinationDefinition, get, { ...destination, path: 'stay' }, listen);
    await poll(() => observed.filter((line) => line.startsWith('started')).length).toBe(3);
    open.close();
    await poll(() => left).toContain('stay');
    expect(events).toEqual([]);
    expect(observed.at(-1)).toBe('handled Cancelled');
  });

  test('a slow client has its stream closed, bounded, without error', async () => {
    const large: Update = {
      update: { $case: 'add', value: { addrs: [], metricLabels: { filler: 'x'.repeat(64 * 1024) } } },
    };
    let sent = 0;
    let queuedMax = 0;
    const { port, observed } = await serve(
      (_request, stream) => {
        while (stream.send(large)) {
          sent++;
          queuedMax = Math.max(queuedMax, stream.queued);
          if (sent > 10_000) throw new Error('the stream never filled up');
        }
      },
      { queueCapacity: 5, plain: true },
    );
    const session = http2.connect(`http://127.0.0.1:${port}`);
    cleanup.push(() => session.destroy());
    const call = session.request({
      ':method': 'POST',
      ':path': '/io.linkerd.proxy.destination.Destination/Get',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    call.end(Buffer.from([0, 0, 0, 0, 0]));
    await poll(() => observed.at(-1)).toBe('handled OK');
    expect(queuedMax).toBe(5);
    call.resume();
    const [trailers] = (await once(call, 'trailers')) as [Record<string, string>];
    expect(trailers['grpc-status']).toBe('0');
  });

  test('beyond the budget of the server are refused, and there is room again when one ends', async () => {
    const server = new GrpcServer({ log: silentLog, tls: null, streamsMax: 1 });
    server.add(DestinationDefinition, {
      get: (_request, stream) => void stream.send(remove(1)),
      getProfile: (_request, stream) => stream.end(),
    });
    const { port } = await server.listen({ host: '127.0.0.1', port: 0 });
    cleanup.push(() => server.close(0));
    const client = connect(port, { plain: true });
    const first = listener();
    const open = client.open(DestinationDefinition, get, destination, first.listen);
    await first.until(1);
    const outcome = async () => {
      const next = listener();
      const stream = client.open(DestinationDefinition, get, destination, next.listen);
      await next.until(1);
      stream.close();
      return next.events[0];
    };
    expect(await outcome()).toBe('ResourceExhausted too many streams: try another server');
    open.close();
    await poll(outcome).toEqual(remove(1));
  });

  test('pass bytes on unread', async () => {
    const { port } = await serve((_request, stream) => stream.send(remove(9)), { plain: true });
    const got = await new Promise<Buffer>((resolve) => {
      connect(port, { plain: true }).openBytes('/io.linkerd.proxy.destination.Destination/Get', Buffer.alloc(0), {
        message: resolve,
        end: () => {},
      });
    });
    expect(got.toString('hex')).toBe('12040a021009');
  });

  test('a server that goes away says so, and the next one on its address is found', async () => {
    const first = await serve((_request, stream) => stream.send(remove(1)));
    const client = connect(first.port);
    const one = listener();
    client.open(DestinationDefinition, get, destination, one.listen);
    await one.until(1);
    // Long before the grace is over: streams are ended, not waited for.
    await first.server.close(60_000);
    await one.until(2);
    expect(one.events[1]).toBe('Unavailable the server is shutting down');

    const second = new GrpcServer({ log: silentLog, tls: leaf });
    second.add(DestinationDefinition, {
      get: (_request, stream) => void stream.send(remove(2)),
      getProfile: (_request, stream) => stream.end(),
    });
    await second.listen({ host: '127.0.0.1', port: first.port });
    cleanup.push(() => second.close(0));
    await expect
      .poll(
        async () => {
          const two = listener();
          client.open(DestinationDefinition, get, destination, two.listen);
          await two.until(1);
          return two.events[0];
        },
        { timeout: 15_000 },
      )
      .toEqual(remove(2));
  }, 20_000);
});

describe('watch', () => {
  test('opens again with growing delays, starts anew after a message, stops when refused', () => {
    const clock = new FakeClock();
    const opened: StreamListener<string>[] = [];
    const seen: string[] = [];
    watch<string>({
      open: (listen) => {
        opened.push(listen);
        return { close: () => seen.push('closed') };
      },
      onMessage: (message) => seen.push(message),
      onEnd: (status, _details, willRetry) => seen.push(`${statusName(status)} ${willRetry}`),
      clock,
      backoff: new Backoff({ minMs: 100, maxMs: 400, jitter: 0 }),
    });
    opened[0]!.end(Status.unavailable, '');
    clock.advance(99);
    expect(opened).toHaveLength(1);
    clock.advance(1);
    opened[1]!.end(Status.ok, '');
    clock.advance(199);
    expect(opened).toHaveLength(2);
    clock.advance(1);
    opened[2]!.message('hello');
    opened[2]!.end(Status.notFound, '');
    clock.advance(100);
    opened[3]!.end(Status.invalidArgument, 'bad');
    clock.advance(10_000);
    expect(opened).toHaveLength(4);
    expect(seen).toEqual(['Unavailable true', 'OK true', 'hello', 'NotFound true', 'InvalidArgument false']);
  });

  test('closing stops the stream and the timer', () => {
    const clock = new FakeClock();
    let opened = 0;
    let listen: StreamListener<string> | null = null;
    const watching = watch<string>({
      open: (next) => {
        opened++;
        listen = next;
        return { close: () => {} };
      },
      onMessage: () => {},
      onEnd: () => {},
      clock,
      backoff: new Backoff({ minMs: 100, maxMs: 400, jitter: 0 }),
    });
    listen!.end(Status.unavailable, '');
    watching.close();
    clock.advance(1000);
    expect(opened).toBe(1);
  });
});

test('errors of handlers are logged once, with their cause', async () => {
  const lines: string[] = [];
  const { log } = createLog({ sink: { write: (line) => lines.push(line) } });
  const server = new GrpcServer({ log, tls: null });
  server.add(IdentityDefinition, {
    certify: () => {
      throw new Error('outer', { cause: new Error('inner') });
    },
  });
  const { port } = await server.listen({ host: '127.0.0.1', port: 0 });
  cleanup.push(() => server.close(0));
  await expect(connect(port, { plain: true }).call(IdentityDefinition, certify, request('web'))).rejects.toMatchObject({
    status: Status.internal,
  });
  expect(lines.filter((line) => line.includes('outer: inner'))).toHaveLength(1);
});

test.each([
  ['127.0.0.1:80', { host: '127.0.0.1', port: 80 }],
  [':8086', { host: '0.0.0.0', port: 8086 }],
  ['[::1]:0', { host: '::1', port: 0 }],
])('address %s', (text, expected) => expect(parseListenAddress(text)).toEqual(expected));

test.each(['8086', 'host', '::1:80', '127.0.0.1:65536', '127.0.0.1:'])('address %s is refused', (text) =>
  expect(() => parseListenAddress(text)).toThrow('expected host:port'),
);
