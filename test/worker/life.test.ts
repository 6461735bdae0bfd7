// A worker's life as the agent and the kernel see it: birth, configuration, certificate, ready, death.

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { openSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { encodeLinkFrame } from '#api/link-codec.ts';
import { LINK_VERSION } from '#api/worker-link.ts';
import { FakeAgent, Issuer } from './support/agent.ts';
import { httpApplication, request } from './support/application.ts';
import { meshConfig, plainConfig, WEB } from './support/config.ts';
import { cleanUp, FLAGS, NODE, onCleanUp, ROOT, Sockets, until, WorkerUnderTest } from './support/process.ts';
import { fromRuntime, stageWorker } from './support/staged.ts';

afterEach(cleanUp);

const MAIN = path.join(ROOT, 'proxy/main.ts');

describe('birth', () => {
  test('--check-config loads everything and says nothing', () => {
    const { status, stdout, stderr } = spawnSync(NODE, [...FLAGS, MAIN, '--check-config'], { encoding: 'utf8' });
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: '', stderr: '' });
  });

  test('loads no library that costs memory', () => {
    const list = execFileSync(NODE, [...FLAGS, '--import', hookListing(), MAIN, '--check-config'], {
      encoding: 'utf8',
    });
    const loaded = JSON.parse(list) as string[];
    expect(loaded.filter((url) => url.includes('/proxy/')).length).toBeGreaterThan(50);
    const foreign = loaded
      .filter((url) => url.includes('/node_modules/'))
      .map((url) => url.split('/node_modules/')[1]!);
    expect(foreign.filter((name) => !name.startsWith('@bufbuild/protobuf/'))).toEqual([]);
    const builtins = loaded.filter((url) => url.startsWith('node:'));
    for (const name of ['http', 'https', 'http2', 'worker_threads', 'cluster', 'child_process', 'dgram', 'inspector']) {
      expect(builtins).not.toContain(`node:${name}`);
    }
    for (const name of ['grpc-js', 'node-forge', 'prom-client', 'pino', 'zod', 'yaml', 'client-node']) {
      expect(loaded.filter((url) => url.includes(name))).toEqual([]);
    }
  });

  test('gives up the ways to gain privilege and to be looked into', async () => {
    const uid = 65_534;
    const ordinary = spawn('sleep', ['60'], { uid, gid: uid, stdio: 'ignore' });
    onCleanUp(() => ordinary.kill('SIGKILL'));
    const worker = new WorkerUnderTest(fromRuntime(await stageWorker(), uid));
    await FakeAgent.connect(worker.sockets.controlPath);
    const seen = (pid: number) => ({
      noNewPrivileges: /^NoNewPrivs:\t(\d)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1],
      // proc(5): root's where the process is not dumpable, and so closed to neighbours of the same uid.
      ownerOfMemory: statSync(`/proc/${pid}/mem`).uid,
    });
    expect(seen(ordinary.pid!)).toEqual({ noNewPrivileges: '0', ownerOfMemory: uid });
    expect(seen(worker.pid)).toEqual({ noNewPrivileges: '1', ownerOfMemory: 0 });
  });

  test.each([
    ['without a pod', { HEDDLE_POD_UID: '' }, {}, 'HEDDLE_POD_UID'],
    ['with an unknown log level', { HEDDLE_LOG_LEVEL: 'loud' }, {}, 'HEDDLE_LOG_LEVEL'],
    ['without a listener', {}, { outbound6: openSync('/dev/null', 'r') }, 'outbound6'],
  ])('%s it ends with status 1 and the reason', async (_name, environment, listeners, reason) => {
    const worker = new WorkerUnderTest({ environment, listeners });
    expect(await worker.whenGone()).toEqual({ code: 1, signal: null });
    expect(worker.lines.map(({ level }) => level)).toEqual(['error']);
    expect(worker.lines[0]!.reason).toContain(reason);
    expect(worker.noise).toEqual([]);
  });
});

/** A module hook that prints every URL loaded when the process ends. */
function hookListing(): string {
  const code = `
    import { registerHooks } from 'node:module';
    const urls = [];
    registerHooks({ load: (url, context, next) => { urls.push(url); return next(url, context); } });
    process.on('exit', () => process.stdout.write(JSON.stringify(urls)));`;
  return `data:text/javascript,${encodeURIComponent(code)}`;
}

describe('configuration', () => {
  test('is asked for by hello and state, and a pod without identity is ready at once', async () => {
    const worker = new WorkerUnderTest();
    const agent = await FakeAgent.connect(worker.sockets.controlPath);
    expect(agent.hello).toMatchObject({
      linkVersion: LINK_VERSION,
      workerVersion: 'test',
      pid: worker.pid,
      podUid: 'pod-uid',
    });
    expect(Math.abs(agent.hello!.startedMs - Date.now())).toBeLessThan(60_000);
    expect(await agent.whenState('starting')).toEqual({
      state: 'starting',
      reason: 'no configuration yet',
      connections: 0,
      certificateExpires: 0,
    });
    agent.configure(plainConfig(worker.sockets));
    await agent.whenState('ready');
    const application = await httpApplication();
    expect(await request(worker.sockets, application.port)).toMatchObject({ status: 200, body: 'GET / ' });
  });

  test('that is wrong is refused by field, and the one before stands', async () => {
    const worker = new WorkerUnderTest();
    const agent = await FakeAgent.connect(worker.sockets.controlPath);
    const config = plainConfig(worker.sockets);
    agent.configure({ ...config, inbound: { ...config.inbound, proxyPort: 0 } });
    const line = await worker.whenLogged(/inbound.proxyPort/);
    expect(line.level).toBe('error');
    await agent.ping();
    expect(agent.state?.state).toBe('starting');
    agent.configure(config);
    await agent.whenState('ready');
    agent.configure({ ...config, logLevel: 'loud' as never });
    await worker.whenLogged(/logLevel/);
    const application = await httpApplication();
    expect((await request(worker.sockets, application.port)).status).toBe(200);
  });

  test('changes apply live: log level, labels, default policy', async () => {
    const worker = new WorkerUnderTest({ environment: { HEDDLE_LOG_LEVEL: 'error' } });
    const agent = await FakeAgent.connect(worker.sockets.controlPath);
    const config = plainConfig(worker.sockets);
    agent.configure({ ...config, logLevel: 'error' });
    await agent.whenState('ready');
    const application = await httpApplication();
    expect((await request(worker.sockets, application.port)).status).toBe(200);
    expect(await agent.metric('request_total', 'pod="web-1"')).toBe(1);
    expect(worker.lines).toEqual([]);
    agent.configure({
      ...config,
      metricLabels: { pod: 'other' },
      inbound: { ...config.inbound, defaultPolicy: 'deny' },
      logLevel: 'debug',
    });
    await worker.whenLogged('configuration changed');
    expect((await request(worker.sockets, application.port)).status).toBe(403);
    expect(await agent.metric('request_total', 'pod="other"')).toBe(1);
  });
});

describe('the first certificate', () => {
  test('is waited for: what comes before waits in the backlog and is served then', async () => {
    const issuer = new Issuer();
    issuer.isSilent = true;
    const worker = new WorkerUnderTest();
    const agent = await FakeAgent.connect(worker.sockets.controlPath, issuer);
    agent.configure(meshConfig(worker.sockets, issuer.anchorsPem));
    await worker.whenLogged('configured');
    await agent.ping();
    const application = await httpApplication();
    let answered = false;
    const early = request(worker.sockets, application.port).finally(() => {
      answered = true;
    });
    await agent.ping();
    expect([answered, agent.state?.state, application.seen.length]).toEqual([false, 'starting', 0]);
    // The request before stays unanswered; the next connection of an agent brings a new one.
    issuer.isSilent = false;
    const next = await FakeAgent.connect(worker.sockets.controlPath, issuer);
    const { certificateExpires } = await next.whenState('ready');
    expect(certificateExpires * 1000).toBeGreaterThan(Date.now() + 23 * 3_600_000);
    expect((await early).status).toBe(200);
    expect(issuer.requests).toEqual([WEB]);
    expect(await next.metric('control_identity_cert_refreshes_total', 'result="ok"')).toBe(1);
    expect(await next.metric('control_identity_cert_expiration_timestamp_seconds')).toBe(certificateExpires);
  });

  test('of another authority is refused, with the reason in the state', async () => {
    const [issuer, other] = [new Issuer(), new Issuer()];
    const worker = new WorkerUnderTest();
    const agent = await FakeAgent.connect(worker.sockets.controlPath, issuer);
    agent.configure(meshConfig(worker.sockets, other.anchorsPem));
    await worker.whenLogged(/chains to none of 1 trust anchors/);
    await agent.ping();
    expect(agent.states.some(({ state }) => state === 'ready')).toBe(false);
    expect(await agent.metric('control_identity_cert_refreshes_total', 'result="error"')).toBeGreaterThan(0);
  });
});

describe('the link', () => {
  test('unknown frames are ignored, garbage costs the connection and nothing else', async () => {
    const worker = new WorkerUnderTest();
    const agent = await FakeAgent.connect(worker.sockets.controlPath);
    agent.configure(plainConfig(worker.sockets));
    await agent.whenState('ready');
    agent.send(encodeLinkFrame(0xee, 3, Buffer.from('from the future')));
    await agent.ping();
    const application = await httpApplication();
    agent.send(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
    await until('the connection is closed', () => agent.isClosed);
    expect((await worker.whenLogged('connection of the agent was closed')).level).toBe('error');
    expect((await request(worker.sockets, application.port)).status).toBe(200);
    const next = await FakeAgent.connect(worker.sockets.controlPath);
    expect(next.state?.state ?? (await next.whenState('ready')).state).toBe('ready');
    expect(await next.metric('heddle_worker_link_errors_total')).toBe(1);
  });

  test('an agent that goes is not missed by traffic, and its absence is a metric', async () => {
    const worker = new WorkerUnderTest();
    const agent = await FakeAgent.connect(worker.sockets.controlPath);
    agent.configure(plainConfig(worker.sockets, { defaultPolicy: 'deny' }));
    await agent.whenState('ready');
    const application = await httpApplication();
    agent.setPolicy(application.port, allowAll());
    await until('the policy applies', async () => (await request(worker.sockets, application.port)).status === 200);
    agent.close();
    await worker.whenLogged('agent is gone: serving on with what is known');
    for (let count = 0; count < 20; count++) expect((await request(worker.sockets, application.port)).status).toBe(200);
    const sinceMs = performance.now();
    await until('a second has passed', () => performance.now() - sinceMs > 300);
    // What is told is the time until now: the next agent's own connection ends it.
    const next = await FakeAgent.connect(worker.sockets.controlPath);
    expect(await next.metric('heddle_worker_agent_disconnected_seconds')).toBe(0);
    expect(await next.metric('heddle_worker_state', 'worker_state="ready"')).toBe(1);
    next.setPolicy(application.port, allowAll());
    await until('watches are open again', () => next.watches.size > 0);
  });
});

function allowAll() {
  const anywhere = { net: { ip: { ip: { $case: 'ipv4' as const, value: 0 } }, prefixLen: 0 }, except: [] };
  return {
    protocol: {
      kind: {
        $case: 'detect' as const,
        value: { timeout: undefined, httpRoutes: [], httpLocalRateLimit: undefined },
      },
    },
    serverIps: [],
    authorizations: [
      {
        networks: [anywhere],
        authentication: { permit: { $case: 'unauthenticated' as const, value: {} } },
        labels: {},
        metadata: { kind: { $case: 'default' as const, value: 'everybody' } },
      },
    ],
    labels: { group: 'policy.linkerd.io', kind: 'server', name: 'web' },
  };
}

test('the backlog of the listeners stays as large as the agent made it', async () => {
  const worker = new WorkerUnderTest();
  const agent = await FakeAgent.connect(worker.sockets.controlPath);
  const somaxconn = Number(readFileSync('/proc/sys/net/core/somaxconn', 'utf8'));
  const backlog = (name: 'inbound4' | 'outbound6') => backlogOf(worker.sockets.ports[name]);
  expect(backlog('inbound4')).toBe(Math.min(4_096, somaxconn));
  agent.configure(plainConfig(worker.sockets));
  await agent.whenState('ready');
  expect([backlog('inbound4'), backlog('outbound6')]).toEqual(Array(2).fill(Math.min(4_096, somaxconn)));
});

/** Of the listening socket on `port`, as the kernel says (Send-Q of ss(8)). */
function backlogOf(port: number): number {
  const text = execFileSync('ss', ['--listening', '--numeric', '--tcp', '--no-header', `sport = :${port}`], {
    encoding: 'utf8',
  });
  return Number(text.trim().split(/\s+/)[2]);
}

describe('the end', () => {
  test('by SIGTERM comes at once without connections, with status 0', async () => {
    const worker = new WorkerUnderTest();
    const agent = await FakeAgent.connect(worker.sockets.controlPath);
    agent.configure(plainConfig(worker.sockets));
    await agent.whenState('ready');
    worker.child.kill('SIGTERM');
    expect(await worker.whenGone()).toEqual({ code: 0, signal: null });
  });

  test('leaves nothing on the descriptors of others', async () => {
    const sockets = new Sockets();
    const worker = new WorkerUnderTest({ sockets });
    const agent = await FakeAgent.connect(sockets.controlPath);
    agent.configure(plainConfig(sockets));
    await agent.whenState('ready');
    worker.child.kill('SIGKILL');
    await worker.whenGone();
    const application = await httpApplication();
    const waiting = request(sockets, application.port);
    const next = new WorkerUnderTest({ sockets });
    const agent2 = await FakeAgent.connect(sockets.controlPath);
    agent2.configure(plainConfig(sockets));
    await agent2.whenState('ready');
    expect((await waiting).status).toBe(200);
    expect(next.status).toBeNull();
  });
});
