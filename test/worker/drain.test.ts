// The end of a worker and the beginning of the next: listeners handed over, connections finished, nothing lost.

import { once } from 'node:events';
import http from 'node:http';
import { afterEach, describe, expect, test } from 'vitest';
import { reclaimListeners } from '#agent/worker/reclaim-listeners.ts';
import { LISTENER_NAMES } from '#api/worker-link.ts';
import { close } from '#lib/libc.ts';
import { FakeAgent } from './support/agent.ts';
import { echo, httpApplication, request, TcpClient, tcpApplication } from './support/application.ts';
import { plainConfig } from './support/config.ts';
import { cleanUp, inboundAddress, Sockets, until, WorkerUnderTest } from './support/process.ts';

afterEach(cleanUp);

async function ready(sockets = new Sockets()) {
  const worker = new WorkerUnderTest({ sockets });
  const agent = await FakeAgent.connect(sockets.controlPath);
  agent.configure(plainConfig(sockets));
  await agent.whenState('ready');
  return { worker, agent, sockets };
}

describe('a drain for a successor', () => {
  test('under load loses no request: the successor takes the same listeners', async () => {
    const application = await httpApplication();
    const first = await ready();
    const { sockets } = first;
    const outcomes = { ok: 0, failed: [] as string[] };
    let isOver = false;
    // Half of the load on new connections, half on kept ones; no client tries again.
    const load = async (agent?: http.Agent): Promise<void> => {
      while (!isOver) {
        try {
          const { status, body } = await request(sockets, application.port, { ...(agent && { agent }), path: '/load' });
          if (status === 200 && body === 'GET /load ') outcomes.ok++;
          else outcomes.failed.push(`${status} ${body}`);
        } catch (error) {
          outcomes.failed.push(String(error));
        }
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    const kept = Array.from({ length: 4 }, () => new http.Agent({ keepAlive: true, maxSockets: 1 }));
    const loads = [...kept.map((agent) => load(agent)), ...kept.map(() => load())];
    await until('load flows', () => outcomes.ok > 100);
    for (let round = 0, old = first; round < 3; round++) {
      const next = await ready(sockets);
      old.agent.drain({ graceMs: 10_000, reason: 'successor' });
      await old.agent.whenState('draining');
      expect(await old.worker.whenGone()).toEqual({ code: 0, signal: null });
      const soFar = outcomes.ok;
      await until('load flows on', () => outcomes.ok > soFar + 100);
      old = next;
    }
    isOver = true;
    await Promise.all(loads);
    for (const agent of kept) agent.destroy();
    expect(outcomes.failed).toEqual([]);
    expect(outcomes.ok).toBeGreaterThan(400);
  });

  test('lets an exchange finish, tells the client, and takes no new connection', async () => {
    const { worker, agent, sockets } = await ready();
    let finish: (() => void) | null = null;
    const application = await httpApplication((_request, response) => {
      finish = () => response.end('late');
    });
    const connection = new http.Agent({ keepAlive: true });
    const late = request(sockets, application.port, { agent: connection });
    await until('the request is with the application', () => finish);
    agent.drain({ graceMs: 10_000, reason: 'successor' });
    await agent.whenState('draining');
    expect(agent.state).toMatchObject({ state: 'draining', connections: 1 });
    const waiting = TcpClient.connect(sockets, application.port);
    waiting.socket.write('GET /next HTTP/1.1\r\nhost: a\r\n\r\n');
    await agent.ping();
    finish!();
    const answer = await late;
    expect([answer.status, answer.body, answer.headers.connection]).toEqual([200, 'late', 'close']);
    expect(await worker.whenGone()).toEqual({ code: 0, signal: null });
    connection.destroy();
    // It waited in the backlog of a listener that is nobody's now, and is served by whoever takes that.
    expect([waiting.received, waiting.closed]).toEqual(['', null]);
    await ready(sockets);
    await until('the application has it', () => application.seen.some(({ url }) => url === '/next'));
  });

  test('cuts what is open when the grace is over', async () => {
    const { worker, agent, sockets } = await ready();
    const application = await tcpApplication(echo);
    const client = TcpClient.connect(sockets, application.port);
    client.socket.write('\0 an opaque connection');
    await until('the echo', () => client.received !== '');
    const startedMs = performance.now();
    agent.drain({ graceMs: 400, reason: 'successor' });
    await agent.whenState('draining');
    client.socket.write('still served');
    await until('the echo', () => client.received.endsWith('still served'));
    expect(await worker.whenGone()).toEqual({ code: 0, signal: null });
    expect(performance.now() - startedMs).toBeGreaterThanOrEqual(390);
    await until('the connection is cut', () => client.closed !== null);
  });

  test('answers the next request of a kept connection and closes it then; one that stays silent soon', async () => {
    const { worker, agent, sockets } = await ready();
    const application = await httpApplication();
    const [busy, silent] = [new http.Agent({ keepAlive: true }), new http.Agent({ keepAlive: true })];
    for (const kept of [busy, silent]) await request(sockets, application.port, { agent: kept });
    agent.drain({ graceMs: 60_000, reason: 'shutdown' });
    await agent.whenState('draining');
    const answer = await request(sockets, application.port, { agent: busy });
    expect([answer.status, answer.headers.connection]).toEqual([200, 'close']);
    expect(worker.status).toBeNull();
    expect(await worker.whenGone()).toEqual({ code: 0, signal: null });
    for (const kept of [busy, silent]) kept.destroy();
  });

  test('with nonsense in it changes nothing', async () => {
    const { worker, agent, sockets } = await ready();
    agent.drain({ graceMs: -5, reason: 'successor' });
    await worker.whenLogged(/expected graceMs/);
    const application = await httpApplication();
    expect((await request(sockets, application.port)).status).toBe(200);
  });
});

describe('signals', () => {
  test('the first SIGTERM waits, the second does not', async () => {
    const { worker, sockets } = await ready();
    const application = await tcpApplication(echo);
    const client = TcpClient.connect(sockets, application.port);
    client.socket.write('\0 an opaque connection');
    await until('the echo', () => client.received !== '');
    worker.child.kill('SIGTERM');
    await worker.whenLogged('draining');
    client.socket.write('still served');
    await until('the echo', () => client.received.endsWith('still served'));
    worker.child.kill('SIGTERM');
    expect(await worker.whenGone()).toEqual({ code: 0, signal: null });
  });
});

describe('listeners', () => {
  test('go to an agent that asks, and a worker born with them serves the same pod', async () => {
    const sockets = new Sockets();
    const { worker, agent } = await ready(sockets);
    const { hello, listeners } = await reclaimListeners(sockets.controlPath, 5_000);
    expect([hello.pid, Object.keys(listeners)]).toEqual([worker.pid, [...LISTENER_NAMES]]);
    await until('the agent before is let go', () => agent.isClosed);
    worker.child.kill('SIGKILL');
    await worker.whenGone();
    const reborn = new WorkerUnderTest({ sockets, listeners });
    for (const fd of Object.values(listeners)) close(fd);
    const next = await FakeAgent.connect(sockets.controlPath);
    next.configure(plainConfig(sockets));
    await next.whenState('ready');
    const application = await httpApplication();
    expect((await request(sockets, application.port)).status).toBe(200);
    expect(reborn.status).toBeNull();
  });

  test('that a draining worker let go of are not handed out', async () => {
    const { agent, sockets } = await ready();
    const application = await tcpApplication(echo);
    const client = TcpClient.connect(sockets, application.port);
    client.socket.write('\0 an opaque connection');
    await until('the echo', () => client.received !== '');
    agent.drain({ graceMs: 10_000, reason: 'successor' });
    await agent.whenState('draining');
    await expect(reclaimListeners(sockets.controlPath, 5_000)).rejects.toMatchObject({
      cause: { message: expect.stringContaining('expected a listening socket') },
    });
  });
});

test('a worker that is killed costs its own connections only', async () => {
  const { worker, sockets } = await ready();
  const application = await httpApplication();
  worker.child.kill('SIGSTOP');
  const waiting = TcpClient.connect(sockets, application.port);
  await once(waiting.socket, 'connect');
  waiting.socket.write('GET /kept HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n');
  worker.child.kill('SIGKILL');
  await worker.whenGone();
  await ready(sockets);
  await until('the answer', () => waiting.received.startsWith('HTTP/1.1 200'));
  expect(inboundAddress(0x1234)).toBe('127.77.18.52');
});
