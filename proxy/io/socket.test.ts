import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { close } from '#lib/libc.ts';
import { memoryPair } from '#lib/memory-duplex.ts';
import { localAddress, openTcpListener } from '#lib/tcp-socket.ts';
import { connectTcp } from './connect.ts';
import { queuedBytesTotal } from './socket.ts';
import { canUseHandles, selfTestHandles, useHandles } from './stream-handle.ts';
import { duplexCompliance } from './testing/duplex-compliance.ts';
import { Recorder, turns, until } from './testing/recorder.ts';
import { listenLoopback, tcpPair } from './testing/tcp-pair.ts';

duplexCompliance('a memory pair', async () => memoryPair());
duplexCompliance('a TCP socket', tcpPair);

describe('without handles', () => {
  beforeAll(() => useHandles(false));
  afterAll(() => useHandles(true));

  duplexCompliance('a TCP socket by the public interface', tcpPair);
});

describe('handles', () => {
  test('pass their self-test on the pinned Node', async () => {
    expect(await selfTestHandles()).toBe(true);
    expect(canUseHandles()).toBe(true);
  });
});

describe('a TCP socket', () => {
  test('reads what the peer said before it closed, though writing to it fails', async () => {
    const [client, server] = await tcpPair();
    const left = new Recorder(client);
    const right = new Recorder(server);
    left.stream.resume();
    // Unread bytes make the kernel answer with RST as soon as the peer closes.
    client.write(Buffer.alloc(100_000));
    await turns(3);
    server.write(Buffer.from('early answer'));
    server.abandon();
    await until(() => right.closedWith !== undefined);
    while (left.closedWith === undefined) {
      client.write(Buffer.alloc(1000));
      await turns(1);
    }
    expect(left.received.toString()).toBe('early answer');
  });

  test('counts what waits in all queues', async () => {
    const before = queuedBytesTotal();
    const [client, server] = await tcpPair();
    new Recorder(client);
    new Recorder(server);
    while (client.write(Buffer.alloc(65_536)));
    expect(queuedBytesTotal() - before).toBe(client.bytesQueued);
    client.reset();
    await turns(3);
    expect(queuedBytesTotal()).toBe(before);
    server.reset();
  });

  test('shows its descriptor while it is open', async () => {
    const [client, server] = await tcpPair();
    const recorder = new Recorder(client);
    expect(client.fd).toBeGreaterThan(2);
    expect(server.fd).not.toBe(client.fd);
    client.reset();
    server.reset();
    await until(() => recorder.closedWith !== undefined);
    expect(client.fd).toBe(-1);
  });
});

describe('listenFd', () => {
  test('accepts what waits in the backlog, counts, and stops', async () => {
    const accepted: Recorder[] = [];
    const { listener, port } = listenLoopback((connection) => accepted.push(new Recorder(connection)));
    const clients = await Promise.all([1, 2, 3].map(() => connectTcp({ address: '127.0.0.1', port, timeoutMs: 2000 })));
    await until(() => accepted.length === 3);
    expect(listener.connections).toBe(3);
    listener.close();
    listener.close();
    clients[0]!.reset();
    accepted[0]!.stream.reset();
    await until(() => listener.connections === 2);
    await expect(connectTcp({ address: '127.0.0.1', port, timeoutMs: 2000 })).rejects.toMatchObject({
      code: 'connect-refused',
    });
    for (const recorder of accepted) recorder.stream.reset();
    for (const client of clients) client.reset();
  });

  test('closes connections above the bound at once', async () => {
    const accepted: Recorder[] = [];
    const { listener, port } = listenLoopback((connection) => accepted.push(new Recorder(connection)), {
      connectionsMax: 1,
    });
    const first = new Recorder(await connectTcp({ address: '127.0.0.1', port, timeoutMs: 2000 }));
    const second = new Recorder(await connectTcp({ address: '127.0.0.1', port, timeoutMs: 2000 }));
    for (const client of [first, second]) client.stream.resume();
    await until(() => [first, second].some((client) => client.isEnded || client.closedWith !== undefined));
    expect(accepted.length).toBe(1);
    expect(listener.refused).toBe(1);
    listener.close();
    for (const recorder of [...accepted, first, second]) recorder.stream.reset();
  });

  test('reports a descriptor that is no listener', async () => {
    const failed = Promise.withResolvers<string>();
    const { listenFd } = await import('./listen.ts');
    listenFd(9999, () => {}, { onError: (error) => failed.resolve(error.code) });
    expect(await failed.promise).toBe('listen-failed');
  });
});

describe('connectTcp', () => {
  test('that stands by the time it is looked at did not time out, however late that is', async () => {
    const { listener, port } = listenLoopback(() => {});
    const connecting = connectTcp({ address: '127.0.0.1', port, timeoutMs: 20 });
    // What a busy machine does to a process: nothing of it runs for longer than the deadline.
    const untilMs = performance.now() + 100;
    while (performance.now() < untilMs);
    const stream = await connecting;
    stream.reset();
    listener.close();
  });

  test('tells refusal, abort, timeout and bad addresses apart', async () => {
    const { listener, port } = listenLoopback(() => {});
    listener.close();
    await turns(2);
    const refused = connectTcp({ address: '127.0.0.1', port, timeoutMs: 2000 });
    await expect(refused).rejects.toMatchObject({ code: 'connect-refused', source: 'upstream', retry: 'yes' });
    await expect(connectTcp({ address: 'localhost', port, timeoutMs: 2000 })).rejects.toMatchObject({
      code: 'connect-failed',
    });
    await expect(
      connectTcp({ address: '127.0.0.1', port, timeoutMs: 2000 }, AbortSignal.abort()),
    ).rejects.toMatchObject({ code: 'connect-aborted', retry: 'no' });
    const controller = new AbortController();
    // A documentation address (RFC 5737): nobody answers, or the network says so.
    const aborted = connectTcp({ address: '192.0.2.1', port: 9, timeoutMs: 2000 }, controller.signal);
    controller.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'connect-aborted' });
  });

  test('gives up at its deadline', async () => {
    // Nobody accepts here, and once the backlog is full the kernel does not answer any more.
    const fd = openTcpListener({ address: '127.0.0.1', port: 0, backlog: 0 });
    const { port } = localAddress(fd)!;
    const attempts = await Promise.allSettled(
      [1, 2, 3, 4].map(() => connectTcp({ address: '127.0.0.1', port, timeoutMs: 100 })),
    );
    close(fd);
    for (const attempt of attempts) if (attempt.status === 'fulfilled') attempt.value.reset();
    const failed = attempts.filter((attempt) => attempt.status === 'rejected');
    expect(failed.length).toBeGreaterThan(0);
    for (const { reason } of failed) expect(reason).toMatchObject({ code: 'connect-timeout', retry: 'yes' });
  });

  test('speaks IPv6', async () => {
    const accepted = Promise.withResolvers<Recorder>();
    const { listener, port } = listenLoopback((connection) => accepted.resolve(new Recorder(connection)), {
      address: '::1',
    });
    const client = await connectTcp({ address: '::1', port, timeoutMs: 2000, keepAliveMs: 5000 });
    expect(client.remoteAddress).toBe('::1');
    const server = await accepted.promise;
    server.stream.resume();
    client.write(Buffer.from('six'));
    await until(() => server.bytes === 3);
    listener.close();
    client.reset();
    server.stream.reset();
  });
});
