import net, { type AddressInfo } from 'node:net';
import tls from 'node:tls';

import { afterAll, describe, expect, test } from 'vitest';
import { memoryPair } from '#lib/memory-duplex.ts';
import { connectTcp } from './connect.ts';
import { openssl } from './openssl.ts';
import type { SocketDuplex } from './socket.ts';
import { TestAuthority } from './testing/certificates.ts';
import { duplexCompliance } from './testing/duplex-compliance.ts';
import { pattern, Recorder, turns, until } from './testing/recorder.ts';
import { listenLoopback, tcpPair } from './testing/tcp-pair.ts';
import { createTlsContext, type TlsConnectOptions, type TlsContext, type TlsDuplex } from './tls.ts';
import { OpenSslContext } from './tls-context.ts';
import { hasIdentity, identitiesOf } from './tls-identity.ts';
import { OpenSslTls } from './tls-openssl.ts';
import type { TlsSession } from './tls-session.ts';

const SERVER = 'web.shop.serviceaccount.identity.heddle.cluster.local';
const CLIENT = 'cart.shop.serviceaccount.identity.heddle.cluster.local';
const CLIENT_SPIFFE = 'spiffe://cluster.local/ns/shop/sa/cart';

const authority = new TestAuthority('anchor');
const otherAuthority = new TestAuthority('other anchor');
afterAll(() => {
  authority[Symbol.dispose]();
  otherAuthority[Symbol.dispose]();
});
const { anchorPem } = authority;
const serverLeaf = authority.leaf({ subjectAltName: `DNS:${SERVER}`, withIntermediate: true });
const clientLeaf = authority.leaf({ subjectAltName: `DNS:${CLIENT},URI:${CLIENT_SPIFFE}` });
const serverContext = createTlsContext({ anchorsPem: anchorPem, certificate: serverLeaf });
const clientContext = createTlsContext({ anchorsPem: anchorPem, certificate: clientLeaf });
const anonymousContext = createTlsContext({ anchorsPem: anchorPem, certificate: null });

const CONNECT: TlsConnectOptions = { serverName: SERVER, timeoutMs: 2000 };

interface Outcome {
  client: TlsDuplex | Error;
  server: TlsDuplex | Error;
}

async function handshake(
  client: TlsContext,
  server: TlsContext,
  connect: Partial<TlsConnectOptions> = {},
  alpn?: string[],
): Promise<Outcome> {
  const [left, right] = await tcpPair();
  const [connected, accepted] = await Promise.allSettled([
    client.connect(left, { ...CONNECT, ...connect }),
    server.accept(right, { timeoutMs: 2000, ...(alpn && { alpn }) }),
  ]);
  return {
    client: connected.status === 'fulfilled' ? connected.value : connected.reason,
    server: accepted.status === 'fulfilled' ? accepted.value : accepted.reason,
  };
}

async function established(...values: Parameters<typeof handshake>): Promise<[TlsDuplex, TlsDuplex]> {
  const { client, server } = await handshake(...values);
  if (client instanceof Error) throw client;
  if (server instanceof Error) throw server;
  return [client, server];
}

duplexCompliance('a TLS session', () => established(clientContext, serverContext));
duplexCompliance('a TLS session without a client certificate', () => established(anonymousContext, serverContext));

describe('a handshake', () => {
  test('tells both ends who is there', async () => {
    const [client, server] = await established(clientContext, serverContext);
    expect(client.peerIdentities).toEqual([SERVER]);
    expect(server.peerIdentities).toEqual([CLIENT, CLIENT_SPIFFE]);
    expect(server.serverName).toBe(SERVER);
    expect(client.alpn).toBeNull();
    expect(server.alpn).toBeNull();
    client.reset();
    server.reset();
  });

  test('works without a client certificate', async () => {
    const [client, server] = await established(anonymousContext, serverContext);
    expect(server.peerIdentities).toEqual([]);
    client.reset();
    server.reset();
  });

  test.each([
    { offered: ['transport.l5d.io/v1'], accepted: ['transport.l5d.io/v1'], alpn: 'transport.l5d.io/v1' },
    { offered: ['h2', 'transport.l5d.io/v1'], accepted: ['transport.l5d.io/v1'], alpn: 'transport.l5d.io/v1' },
    { offered: ['h2'], accepted: ['transport.l5d.io/v1'], alpn: null },
    { offered: [], accepted: ['transport.l5d.io/v1'], alpn: null },
    { offered: ['transport.l5d.io/v1'], accepted: [], alpn: null },
  ])('with ALPN $offered and $accepted selects $alpn', async ({ offered, accepted, alpn }) => {
    const [client, server] = await established(clientContext, serverContext, { alpn: offered }, accepted);
    expect([client.alpn, server.alpn]).toEqual([alpn, alpn]);
    client.reset();
    server.reset();
  });

  test('starts from bytes that were read for detection', async () => {
    const [left, right] = await tcpPair();
    const peeked = new Recorder(right);
    const connecting = clientContext.connect(left, CONNECT);
    right.resume();
    await until(() => peeked.bytes > 100);
    right.pause();
    const server = await serverContext.accept(right, { received: peeked.received, timeoutMs: 2000 });
    const client = await connecting;
    expect(server.peerIdentities[0]).toBe(CLIENT);
    const recorder = new Recorder(server);
    server.resume();
    client.write(Buffer.from('after'));
    await until(() => recorder.bytes === 5);
    client.reset();
    server.reset();
  });

  test('waits for the rest of a ClientHello', async () => {
    const [left, right] = await tcpPair();
    const peeked = new Recorder(right);
    const connecting = clientContext.connect(left, CONNECT);
    right.resume();
    await until(() => peeked.bytes > 100);
    right.pause();
    const hello = peeked.received;
    const [front, back] = await tcpPair();
    const accepting = serverContext.accept(back, { received: hello.subarray(0, 3), timeoutMs: 2000 });
    const answers = new Recorder(front);
    front.resume();
    front.write(hello.subarray(3, 200));
    await turns(5);
    expect(answers.bytes).toBe(0);
    front.write(hello.subarray(200));
    await until(() => answers.bytes > 0);
    front.reset();
    await expect(accepting).rejects.toMatchObject({ code: 'tls-handshake-failed' });
    left.reset();
    await connecting.catch(() => {});
  });

  test('delivers what the client sent behind its Finished, once the stream is resumed', async () => {
    const [left, right] = await tcpPair();
    const accepting = serverContext.accept(right, { timeoutMs: 2000 });
    const client = await clientContext.connect(left, CONNECT);
    client.write(Buffer.from('first words'));
    const server = await accepting;
    await turns(5);
    const recorder = new Recorder(server);
    server.resume();
    await until(() => recorder.bytes === 11);
    expect(recorder.received.toString()).toBe('first words');
    client.reset();
    server.reset();
  });
});

describe('a handshake is refused', () => {
  const code = (outcome: TlsDuplex | Error): unknown => (outcome as { code?: unknown }).code;

  test('for a server of another anchor', async () => {
    const certificate = otherAuthority.leaf({ subjectAltName: `DNS:${SERVER}` });
    const impostor = createTlsContext({ anchorsPem: anchorPem, certificate });
    const { client } = await handshake(clientContext, impostor);
    expect(code(client)).toBe('tls-peer-unverified');
  });

  test('for a server whose certificate has expired', async () => {
    const certificate = authority.leaf({ subjectAltName: `DNS:${SERVER}`, days: -1 });
    const { client } = await handshake(clientContext, createTlsContext({ anchorsPem: anchorPem, certificate }));
    expect(code(client)).toBe('tls-peer-unverified');
  });

  test('for a server that is somebody else', async () => {
    const { client } = await handshake(clientContext, serverContext, { identity: 'other.shop.example' });
    expect(code(client)).toBe('tls-identity-mismatch');
    const { client: client2 } = await handshake(clientContext, serverContext, { identity: `*.${SERVER}` });
    expect(code(client2)).toBe('tls-identity-mismatch');
  });

  test('for a server certificate that is for clients only', async () => {
    const certificate = authority.leaf({ subjectAltName: `DNS:${SERVER}`, extendedKeyUsage: 'clientAuth' });
    const { client } = await handshake(clientContext, createTlsContext({ anchorsPem: anchorPem, certificate }));
    expect(code(client)).toBe('tls-peer-unverified');
  });

  test('for a client of another anchor', async () => {
    const certificate = otherAuthority.leaf({ subjectAltName: `DNS:${CLIENT}` });
    const { server } = await handshake(createTlsContext({ anchorsPem: anchorPem, certificate }), serverContext);
    expect(code(server)).toBe('tls-peer-unverified');
  });

  test('for a client whose certificate has expired', async () => {
    const certificate = authority.leaf({ subjectAltName: `DNS:${CLIENT}`, days: -1 });
    const { server } = await handshake(createTlsContext({ anchorsPem: anchorPem, certificate }), serverContext);
    expect(code(server)).toBe('tls-peer-unverified');
  });

  test('when the server has no certificate yet', async () => {
    const { server, client } = await handshake(clientContext, anonymousContext);
    expect(code(server)).toBe('tls-not-ready');
    expect(client).toBeInstanceOf(Error);
  });

  test('for TLS 1.2', async () => {
    const accepted = Promise.withResolvers<SocketDuplex>();
    const { listener, port } = listenLoopback(accepted.resolve);
    const old = tls.connect({ port, host: '127.0.0.1', maxVersion: 'TLSv1.2', rejectUnauthorized: false });
    const accepting = accepted.promise.then((stream) => serverContext.accept(stream, { timeoutMs: 2000 }));
    const failed = Promise.withResolvers<string>();
    old.on('error', (error: NodeJS.ErrnoException) => failed.resolve(error.code ?? ''));
    await expect(accepting).rejects.toMatchObject({ code: 'tls-handshake-failed' });
    expect(await failed.promise).toMatch(/ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION|ECONNRESET/);
    old.destroy();
    listener.close();
  });

  test('for what is no TLS', async () => {
    const [left, right] = await tcpPair();
    const accepting = serverContext.accept(right, { timeoutMs: 2000 });
    left.write(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
    await expect(accepting).rejects.toMatchObject({ code: 'tls-handshake-failed', source: 'downstream' });
    left.reset();
  });

  test('after its deadline, whoever stalls', async () => {
    const [left, right] = await tcpPair();
    await expect(serverContext.accept(right, { timeoutMs: 30 })).rejects.toMatchObject({ code: 'tls-timeout' });
    left.reset();
    const [left2, right2] = await tcpPair();
    const connecting = clientContext.connect(left2, { ...CONNECT, timeoutMs: 30 });
    await expect(connecting).rejects.toMatchObject({ code: 'tls-timeout', source: 'upstream', retry: 'yes' });
    right2.reset();
  });

  test('but not when the peer was in time and this process was not', async () => {
    const [left, right] = await tcpPair();
    const peeked = new Recorder(right);
    const connecting = clientContext.connect(left, { ...CONNECT, timeoutMs: 100 });
    right.resume();
    await until(() => peeked.bytes > 100);
    right.pause();
    const accepting = serverContext.accept(right, { received: peeked.received, timeoutMs: 2000 });
    // What a busy machine does to a process: nothing of it runs for longer than the deadline.
    const untilMs = performance.now() + 200;
    while (performance.now() < untilMs);
    const client = await connecting;
    const server = await accepting;
    client.reset();
    server.reset();
  });

  test('when nobody wants it any more', async () => {
    const [left, right] = await tcpPair();
    const controller = new AbortController();
    const connecting = clientContext.connect(left, CONNECT, controller.signal);
    const accepting = serverContext.accept(right, { timeoutMs: 2000 }, controller.signal);
    controller.abort();
    await expect(connecting).rejects.toMatchObject({ code: 'tls-aborted' });
    await expect(accepting).rejects.toMatchObject({ code: 'tls-aborted' });
  });
});

describe('a context', () => {
  test('swaps certificate and anchors for new handshakes, and old sessions live on', async () => {
    const context = createTlsContext({ anchorsPem: anchorPem, certificate: serverLeaf });
    const [oldClient, oldServer] = await established(clientContext, context);
    const renamed = otherAuthority.leaf({ subjectAltName: 'DNS:new.example' });
    context.update({ anchorsPem: anchorPem + otherAuthority.anchorPem, certificate: renamed });
    const { client: refused } = await handshake(clientContext, context);
    expect((refused as { code?: string }).code).toBe('tls-peer-unverified');
    const wide = createTlsContext({ anchorsPem: anchorPem + otherAuthority.anchorPem, certificate: clientLeaf });
    const [newClient, newServer] = await established(wide, context, { serverName: 'new.example' });
    expect(newClient.peerIdentities).toEqual(['new.example']);
    const recorder = new Recorder(oldServer);
    oldServer.resume();
    oldClient.write(Buffer.from('still here'));
    await until(() => recorder.bytes === 10);
    for (const stream of [oldClient, oldServer, newClient, newServer]) stream.reset();
  });

  test('refuses material that does not fit together and keeps the old', async () => {
    const context = createTlsContext({ anchorsPem: anchorPem, certificate: serverLeaf });
    const mixed = { keyPem: clientLeaf.keyPem, chainPem: serverLeaf.chainPem };
    expect(() => context.update({ anchorsPem: anchorPem, certificate: mixed })).toThrow(
      expect.objectContaining({ code: 'tls-material-invalid' }),
    );
    expect(() => createTlsContext({ anchorsPem: 'no PEM', certificate: null })).toThrow(
      expect.objectContaining({ code: 'tls-material-invalid' }),
    );
    const [client, server] = await established(clientContext, context);
    client.reset();
    server.reset();
  });
});

describe('a long session', () => {
  test('renews its keys, both ways, and the peer follows', async () => {
    const material = { anchorsPem: anchorPem, certificate: serverLeaf };
    const eager = new OpenSslTls(material, { keyUpdateRecords: 5 });
    const [client, server] = await established(eager, eager, { serverName: SERVER });
    const [left, right] = [new Recorder(client), new Recorder(server)];
    client.resume();
    server.resume();
    for (let index = 0; index < 100; index++) {
      client.write(Buffer.from(`to server ${index};`));
      server.write(pattern(20_000, index));
      if (index % 10 === 0) await turns(1);
    }
    await until(() => left.bytes === 2_000_000 && right.received.toString().endsWith('to server 99;'));
    expect((client as TlsSession).keyUpdates).toBeGreaterThan(10);
    expect((server as TlsSession).keyUpdates).toBeGreaterThan(20);
    expect(left.received.subarray(-20_000).equals(pattern(20_000, 99))).toBe(true);
    client.reset();
    server.reset();
  });
});

describe('with node:tls as the peer', () => {
  const names = { ca: anchorPem, checkServerIdentity: () => undefined };

  test('serves a client', async () => {
    const accepted = Promise.withResolvers<SocketDuplex>();
    const { listener, port } = listenLoopback(accepted.resolve);
    const client = tls.connect({
      ...names,
      port,
      host: '127.0.0.1',
      servername: SERVER,
      key: clientLeaf.keyPem,
      cert: clientLeaf.chainPem,
      ALPNProtocols: ['transport.l5d.io/v1'],
    });
    const server = await serverContext.accept(await accepted.promise, {
      timeoutMs: 2000,
      alpn: ['transport.l5d.io/v1'],
    });
    const recorder = new Recorder(server);
    server.resume();
    const bytes = pattern(1_000_000);
    client.end(bytes);
    await until(() => recorder.isEnded);
    expect(recorder.received.equals(bytes)).toBe(true);
    expect(server.peerIdentities).toEqual([CLIENT, CLIENT_SPIFFE]);
    expect(server.alpn).toBe('transport.l5d.io/v1');
    expect(client.alpnProtocol).toBe('transport.l5d.io/v1');
    expect(client.authorized).toBe(true);
    const answer: Buffer[] = [];
    const ended = Promise.withResolvers<void>();
    client.on('data', (chunk: Buffer) => answer.push(chunk));
    client.on('end', ended.resolve);
    server.write(bytes);
    server.end();
    await ended.promise;
    expect(Buffer.concat(answer).equals(bytes)).toBe(true);
    await until(() => recorder.closedWith !== undefined);
    expect(recorder.closedWith).toBeNull();
    listener.close();
  });

  test('is a client, and is told when it is refused', async () => {
    const server = tls.createServer({
      key: serverLeaf.keyPem,
      cert: serverLeaf.chainPem,
      ca: anchorPem,
      requestCert: true,
      minVersion: 'TLSv1.3',
    });
    server.on('secureConnection', (socket) => socket.pipe(socket));
    server.on('tlsClientError', () => {});
    const listening = Promise.withResolvers<void>();
    server.listen(0, '127.0.0.1', listening.resolve);
    await listening.promise;
    const { port } = server.address() as AddressInfo;
    const connect = async (context: TlsContext): Promise<Recorder> => {
      const stream = await connectTcp({ address: '127.0.0.1', port, timeoutMs: 2000 });
      const recorder = new Recorder(await context.connect(stream, CONNECT));
      recorder.stream.resume();
      return recorder;
    };
    const good = await connect(clientContext);
    good.stream.write(pattern(500_000));
    good.stream.end();
    await until(() => good.isEnded);
    expect(good.received.equals(pattern(500_000))).toBe(true);
    const refused = await connect(anonymousContext);
    await until(() => refused.closedWith !== undefined);
    expect(refused.closedWith).toMatchObject({ code: 'tls-failed' });
    expect(refused.closedWith!.message).toMatch(/certificate required/);
    server.close();
  });

  test('takes an end without close_notify for what it may be: a truncation', async () => {
    const accepted = Promise.withResolvers<SocketDuplex>();
    const { listener, port } = listenLoopback(accepted.resolve);
    const socket = net.connect(port, '127.0.0.1');
    const client = tls.connect({ ...names, socket, servername: SERVER });
    const server = await serverContext.accept(await accepted.promise, { timeoutMs: 2000 });
    const recorder = new Recorder(server);
    server.resume();
    client.write('half a mess');
    await until(() => recorder.bytes === 11);
    socket.destroy();
    await until(() => recorder.closedWith !== undefined);
    expect(recorder.isEnded).toBe(false);
    expect(recorder.closedWith).toMatchObject({ code: 'tls-truncated' });
    listener.close();
  });
});

test('an error that one session left with OpenSSL breaks no other', async () => {
  const [left, right] = memoryPair({ readBytesMax: 1000 });
  const [client, server] = await Promise.all([
    clientContext.connect(left, CONNECT),
    serverContext.accept(right, { timeoutMs: 2000 }),
  ]);
  const recorder = new Recorder(server);
  server.resume();
  const { SSL_new, SSL_free, SSL_set_connect_state, SSL_shutdown } = openssl();
  const context = new OpenSslContext({ anchorsPem: anchorPem, certificate: null });
  const unfinished = SSL_new(context.pointer);
  SSL_set_connect_state(unfinished);
  expect(SSL_shutdown(unfinished)).toBe(-1);
  // Records that come in parts: OpenSSL is asked what became of each read.
  client.write(pattern(10_000));
  await until(() => recorder.bytes === 10_000 || recorder.closedWith !== undefined);
  expect(recorder.closedWith).toBeUndefined();
  SSL_free(unfinished);
  context.free();
  client.reset();
  server.reset();
});

describe('on the wire', () => {
  /** Connects with ours, captures the ClientHello as openssl sees it. */
  test('the ClientHello offers the hybrid group first and only TLS 1.3 suites', async () => {
    const [left, right] = await tcpPair();
    const peeked = new Recorder(right);
    const connecting = clientContext.connect(left, CONNECT);
    right.resume();
    await until(() => peeked.bytes > 100);
    const extensions = readExtensions(peeked.received);
    const groups = extensions.get(10)!;
    expect(groups.subarray(0, 4).toString('hex')).toBe('000811ec');
    expect(groups.toString('hex')).toBe('000811ec001d00170018');
    expect(extensions.get(43)!.toString('hex')).toBe('020304');
    expect(extensions.get(0)!.includes(SERVER)).toBe(true);
    expect(extensions.has(16)).toBe(false);
    right.reset();
    await connecting.catch(() => {});
  });
});

function readExtensions(hello: Buffer): Map<number, Buffer> {
  let at = 5 + 4 + 2 + 32;
  at += 1 + hello[at]!;
  at += 2 + hello.readUInt16BE(at);
  at += 1 + hello[at]!;
  const end = at + 2 + hello.readUInt16BE(at);
  const extensions = new Map<number, Buffer>();
  for (at += 2; at < end; at += 4 + hello.readUInt16BE(at + 2)) {
    extensions.set(hello.readUInt16BE(at), hello.subarray(at + 4, at + 4 + hello.readUInt16BE(at + 2)));
  }
  return extensions;
}

describe('identitiesOf', () => {
  test.each([
    ['DNS:A.example', ['a.example']],
    ['DNS:a.example, URI:spiffe://td/ns/x/sa/Y', ['a.example', 'spiffe://td/ns/x/sa/Y']],
    ['IP Address:10.0.0.1, DNS:b', ['b']],
    ['URI:"spiffe://td/x, DNS:evil"', ['spiffe://td/x, DNS:evil']],
    ['email:"a, DNS:evil", DNS:good', ['good']],
    [undefined, []],
  ])('%s', (text, expected) => {
    expect(identitiesOf(text)).toEqual(expected);
  });

  test('DNS names compare without case, URIs exactly', () => {
    expect(hasIdentity(['a.example'], 'A.Example')).toBe(true);
    expect(hasIdentity(['spiffe://td/ns/x'], 'spiffe://td/ns/X')).toBe(false);
    expect(hasIdentity(['spiffe://td/ns/x'], 'spiffe://td/ns/x')).toBe(true);
    expect(hasIdentity([], '')).toBe(false);
  });
});
