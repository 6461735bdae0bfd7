import { readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { inNetns } from '#agent/netns.ts';
import { identifyProcess } from '#agent/worker/process-table.ts';
import { Annotation } from '#api/names.ts';
import { PodStatusWriter } from '#kube/status.ts';
import { openTcpListener, openTcpSocket } from '#lib/tcp-socket.ts';
import { AgentNode } from './support/agent-node.ts';
import { ControlPlaneProcesses } from './support/control-plane.ts';
import type { Place } from './support/network.ts';

const POLL = { timeout: 20_000, interval: 50 };
const BODY = 'x'.repeat(2_000);
const identityOf = (name: string) => `${name}.shop.serviceaccount.identity.heddle.cluster.local`;

/** A whole GET over a connection of its own, from inside the pod. */
async function get(
  from: Place,
  host: string,
  port: number,
  authority = `${host}:${port}`,
): Promise<{ status: number; body: string }> {
  const socket = new net.Socket({ fd: inNetns(from.netnsFd, () => openTcpSocket(4)), readable: true, writable: true });
  socket.connect({ host, port });
  return await new Promise((resolve, reject) => {
    let text = '';
    socket.setTimeout(15_000, () => socket.destroy(new Error('no answer within 15 s')));
    socket.on('error', reject);
    socket.on('data', (bytes) => {
      text += bytes.toString('latin1');
    });
    socket.on('end', () => {
      const [head, body = ''] = text.split('\r\n\r\n');
      resolve({ status: Number(head?.split(' ')[1]), body });
      socket.destroy();
    });
    socket.write(`GET / HTTP/1.1\r\nhost: ${authority}\r\nconnection: close\r\n\r\n`);
  });
}

/** Requests from four clients at once, each on a new connection, until stopped; every one must be whole. */
function load(from: Place, host: string, port: number) {
  const failures: unknown[] = [];
  let requests = 0;
  let isOver = false;
  const clients = Array.from({ length: 4 }, async () => {
    while (!isOver) {
      try {
        const { status, body } = await get(from, host, port, 'web.shop.svc.cluster.local');
        if (status !== 200 || body !== BODY) failures.push({ status, bytes: body.length });
      } catch (error) {
        failures.push(String(error));
      }
      requests++;
    }
  });
  return {
    stop: async () => {
      isOver = true;
      await Promise.all(clients);
      return { requests, failures };
    },
  };
}

describe('a node of the mesh', () => {
  let node: AgentNode;
  let controlPlane: ControlPlaneProcesses;
  let client: Place;
  let server: Place;
  const servers: http.Server[] = [];
  const CLUSTER_IP = '10.96.0.10';

  beforeAll(async () => {
    node = new AgentNode('hdlmsh', { hasRealWorkers: true });
    controlPlane = new ControlPlaneProcesses(path.join(node.directory, 'control-plane'), node.manifests);
    const status = new PodStatusWriter(node.manifests);
    node.applyNamespace('shop', { [Annotation.inject]: 'enabled' });
    for (const name of ['client', 'server']) {
      const place = node.network.addPod(name);
      if (name === 'client') client = place;
      else server = place;
      node.applyPod('shop', name);
      await status.write(
        { namespace: 'shop', name },
        {
          uid: `uid-${name}`,
          nodeName: 'n1',
          status: {
            phase: 'Running',
            podIP: place.ipv4,
            podIPs: [{ ip: place.ipv4 }, { ip: place.ipv6 }],
            conditions: [{ type: 'Ready', status: 'True' }],
          },
        },
      );
    }
    node.apply('service', {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { namespace: 'shop', name: 'web' },
      spec: { clusterIP: CLUSTER_IP, selector: { app: 'server' }, ports: [{ port: 80, targetPort: 8080 }] },
    });
    await controlPlane.start();
    node.addArguments(...controlPlane.agentArguments);
    await node.spawn();
    const application = http.createServer((_request, response) => response.end(BODY));
    servers.push(application);
    const fd = inNetns(server.netnsFd, () => openTcpListener({ address: '0.0.0.0', port: 8080, backlog: 256 }));
    await new Promise<void>((resolve) => application.listen({ fd }, resolve));
  });

  afterAll(async () => {
    for (const application of servers) application.close();
    await node?.close();
    await controlPlane?.stop();
  });

  /** Values of the series of a family that have all these labels. */
  async function series(family: string, labels: Record<string, string>): Promise<number[]> {
    const { text } = await node.get('/proxies/metrics');
    return text
      .split('\n')
      .filter((line) => line.startsWith(`${family}{`))
      .filter((line) => Object.entries(labels).every(([name, value]) => line.includes(`${name}="${value}"`)))
      .map((line) => Number(line.slice(line.lastIndexOf(' ') + 1)));
  }

  test('ADD returns when the worker has its certificate and redirects', async () => {
    for (const [name, place] of [
      ['server', server],
      ['client', client],
    ] as const) {
      const added = await node.cni('ADD', place, { namespace: 'shop', name });
      expect(added, node.child!.output).toMatchObject({ status: 0 });
    }
    const pods = await node.pods();
    expect(pods.map(({ name, state }) => [name, state]).sort()).toEqual([
      ['client', 'meshed'],
      ['server', 'meshed'],
    ]);
    for (const { worker } of pods) expect(worker!.certificateExpires).toBeGreaterThan(Date.now() / 1000 + 3600);
    expect((await node.get('/metrics')).text).toMatch(/^heddle_identity_requests_total\{status="OK"\} 2$/m);
  });

  test('traffic goes through both workers with mutual TLS, and both say so', async () => {
    for (const [host, port] of [
      [CLUSTER_IP, 80],
      [server.ipv4, 8080],
    ] as const) {
      const answer = await get(client, host, port, 'web.shop.svc.cluster.local');
      expect(answer, node.child!.output).toEqual({ status: 200, body: BODY });
    }
    await expect
      .poll(
        () =>
          series('response_total', {
            pod: 'client',
            direction: 'outbound',
            tls: 'true',
            server_id: identityOf('server'),
          }),
        POLL,
      )
      .not.toEqual([]);
    expect(await series('response_total', { pod: 'client', direction: 'outbound', tls: 'disabled' })).toEqual([]);
    const inbound = await series('response_total', {
      pod: 'server',
      direction: 'inbound',
      tls: 'true',
      client_id: identityOf('client'),
    });
    expect(inbound.reduce((sum, value) => sum + value, 0)).toBe(2);
  });

  test('the agent is killed under load: no request fails, and the next one has the same workers', async () => {
    const before = (await node.pods()).map(({ worker }) => worker!.pid).sort();
    const traffic = load(client, CLUSTER_IP, 80);
    for (let round = 0; round < 3; round++) {
      await node.child!.end('SIGKILL');
      await node.spawn();
      await expect.poll(async () => (await node.pods()).map(({ state }) => state), POLL).toEqual(['meshed', 'meshed']);
    }
    const { requests, failures } = await traffic.stop();
    expect(failures).toEqual([]);
    expect(requests).toBeGreaterThan(200);
    expect((await node.pods()).map(({ worker }) => worker!.pid).sort()).toEqual(before);
  });

  test('the control plane is away: traffic goes on with what is known, also after the agent restarts', async () => {
    const traffic = load(client, CLUSTER_IP, 80);
    await controlPlane.stop();
    await expect
      .poll(
        async () =>
          /^heddle_relay_targets\{kind="destination",state="stale"\} [1-9]/m.test((await node.get('/metrics')).text),
        POLL,
      )
      .toBe(true);
    await node.child!.end();
    await node.spawn();
    await controlPlane.start();
    await expect
      .poll(
        async () =>
          /^heddle_relay_targets\{kind="destination",state="stale"\} 0/m.test((await node.get('/metrics')).text),
        POLL,
      )
      .toBe(true);
    const { requests, failures } = await traffic.stop();
    expect(failures).toEqual([]);
    expect(requests).toBeGreaterThan(100);
  });

  test('a worker is killed under load: its successor serves the rest', async () => {
    const { pid } = (await node.pods()).find(({ name }) => name === 'server')!.worker!;
    const traffic = load(client, CLUSTER_IP, 80);
    await expect
      .poll(async () => (await series('response_total', { pod: 'server', direction: 'inbound' })).length)
      .toBeGreaterThan(0);
    process.kill(pid!, 'SIGKILL');
    await expect
      .poll(async () => (await node.pods()).find(({ name }) => name === 'server')!.worker!.state, POLL)
      .toBe('ready');
    await expect.poll(() => get(client, CLUSTER_IP, 80), POLL).toEqual({ status: 200, body: BODY });
    const { failures } = await traffic.stop();
    // What was on its way through the killed process is lost: at most what four clients had open.
    expect(failures.length).toBeLessThanOrEqual(4);
    expect(identifyProcess(pid!)).toBeNull();
  });

  test('new trust anchors reach the workers without a restart', async () => {
    const before = (await node.pods()).map(({ worker }) => worker!.pid).sort();
    const other = readFileSync(node.anchors, 'utf8');
    writeFileSync(controlPlane.anchors, `${readFileSync(controlPlane.anchors, 'utf8')}\n${other}`);
    await expect.poll(() => node.child!.output.includes('trust anchors changed'), POLL).toBe(true);
    expect(await get(client, CLUSTER_IP, 80)).toEqual({ status: 200, body: BODY });
    expect((await node.pods()).map(({ worker }) => worker!.pid).sort()).toEqual(before);
  });

  test('with agent and workers dead nothing passes, in clear or otherwise', async () => {
    const pods = await node.pods();
    await node.child!.end('SIGKILL');
    for (const { worker } of pods) process.kill(worker!.pid!, 'SIGKILL');
    await expect.poll(() => pods.map(({ worker }) => identifyProcess(worker!.pid!)), POLL).toEqual([null, null]);
    // The last thread of a killed process may hold its sockets a moment longer than the process is to be seen.
    const outcomes: string[] = [];
    await expect
      .poll(async () => {
        const { outcome } = await get(client, server.ipv4, 8080).then(
          () => ({ outcome: 'answered' }),
          (error: NodeJS.ErrnoException) => ({ outcome: error.code ?? error.message }),
        );
        outcomes.push(outcome);
        return outcome;
      }, POLL)
      .toBe('ECONNREFUSED');
    expect(outcomes).not.toContain('answered');
    await node.spawn();
    await expect.poll(() => get(client, CLUSTER_IP, 80).catch(String), POLL).toEqual({ status: 200, body: BODY });
  });
});
