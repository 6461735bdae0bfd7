import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { NEEDED_CAPABILITIES } from '#agent/privileges.ts';
import { Annotation } from '#api/names.ts';
import { CANARY } from '#api/worker-link.ts';
import { PodStatusWriter } from '#kube/status.ts';
import { AgentNode, exchange } from './support/agent-node.ts';
import { ControlPlaneProcesses } from './support/control-plane.ts';
import type { Place } from './support/network.ts';

const NEEDED = Object.values(NEEDED_CAPABILITIES).reduce((mask, number) => mask | (1n << BigInt(number)), 0n);
const root = path.resolve(import.meta.dirname, '../..');

function statusOf(pid: number, thread: string): Record<string, string> {
  const lines = readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8').trim().split('\n');
  return Object.fromEntries(lines.map((line) => line.split(':\t') as [string, string]));
}

/** Sockets and directories below `directory`, with their modes. */
function modes(directory: string): { file: string; mode: string; isSocket: boolean; uid: number }[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' }).map((file) => {
    const stat = statSync(path.join(directory, file));
    return { file, mode: (stat.mode & 0o777).toString(8), isSocket: stat.isSocket(), uid: stat.uid };
  });
}

describe('what the agent may do, and who may talk to it', () => {
  let node: AgentNode;
  let controlPlane: ControlPlaneProcesses;
  let a: Place;

  beforeAll(async () => {
    // The whole of it, so that what the agent may do is seen to be enough.
    node = new AgentNode('hdlhyg', { hasRealWorkers: true });
    controlPlane = new ControlPlaneProcesses(path.join(node.directory, 'control-plane'), node.manifests);
    a = node.network.addPod('a');
    node.applyNamespace('shop', { [Annotation.inject]: 'enabled' });
    node.applyPod('shop', 'a');
    const podIPs = [{ ip: a.ipv4 }, { ip: a.ipv6 }];
    const status = {
      phase: 'Running' as const,
      podIP: a.ipv4,
      podIPs,
      conditions: [{ type: 'Ready', status: 'True' as const }],
    };
    await new PodStatusWriter(node.manifests).write(
      { namespace: 'shop', name: 'a' },
      { uid: 'uid-a', nodeName: 'n1', status },
    );
    await controlPlane.start();
    node.addArguments(...controlPlane.agentArguments);
    await node.spawn();
    const added = await node.cni('ADD', a, { namespace: 'shop', name: 'a' });
    expect(added, node.child!.output).toMatchObject({ status: 0 });
  });

  afterAll(async () => {
    await node?.close();
    await controlPlane?.stop();
  });

  test('every thread of the agent has the capabilities it needs and no others', () => {
    const pid = node.child!.child.pid!;
    const threads = readdirSync(`/proc/${pid}/task`);
    expect(threads.length).toBeGreaterThan(4);
    for (const thread of threads) {
      const status = statusOf(pid, thread);
      for (const set of ['CapEff', 'CapPrm', 'CapBnd']) expect(BigInt(`0x${status[set]}`), set).toBe(NEEDED);
      expect(BigInt(`0x${status.CapInh}`)).toBe(0n);
      expect(status.NoNewPrivs).toBe('1');
    }
  });

  test('canaries reach a real worker; a program of the pod that dials their address is reset', async () => {
    const metrics = async () => (await node.get('/metrics')).text;
    await expect.poll(metrics, { timeout: 20_000 }).toMatch(/^heddle_pod_canaries_total\{result="ok"\} [2-9]/m);
    expect(await metrics()).not.toContain('result="failed"');
    const before = Date.now();
    await expect(exchange(a, { host: CANARY.ipv4, port: CANARY.port })).rejects.toThrow('ECONNRESET');
    expect(Date.now() - before).toBeLessThan(5_000);
    const { text } = await node.get('/proxies/metrics');
    expect(text).toContain('heddle_worker_state');
    expect(text).not.toContain(CANARY.ipv4);
    expect(text).not.toMatch(/^tcp_open_total\{.*direction="outbound"/m);
  }, 30_000);

  test('its limits: descriptors, core dumps, heap', () => {
    const pid = node.child!.child.pid!;
    const limits = readFileSync(`/proc/${pid}/limits`, 'utf8');
    expect(Number(/^Max open files\s+(\d+)/m.exec(limits)![1])).toBeLessThanOrEqual(65_536);
    expect(limits).toMatch(/^Max core file size\s+0\s+0/m);
    expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toContain('--max-old-space-size=512');
    expect(readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0')).toContain(`HEDDLE_AGENT_CONFINED=${pid}`);
  });

  test('an agent without a capability says which', () => {
    const { status, stderr } = spawnSync(
      'setpriv',
      ['--bounding-set=-net_admin,-kill', 'node', 'agent/main.ts', ...node.arguments],
      { cwd: root, encoding: 'utf8', timeout: 20_000 },
    );
    expect(status).toBe(1);
    expect(stderr).toContain('start the agent without "CAP_KILL, CAP_NET_ADMIN": expected CAP_CHOWN, ');
  });

  test('sockets are for root alone, in directories for root alone', () => {
    const found = modes(node.runDir);
    const sockets = found.filter(({ isSocket }) => isSocket);
    expect(sockets.map(({ file }) => file).sort()).toEqual(['admin.sock', 'cni.sock', 'workers/uid-a/control.sock']);
    expect(sockets.filter(({ mode, uid }) => mode !== '600' || uid !== 0)).toEqual([]);
    expect((statSync(node.runDir).mode & 0o777).toString(8)).toBe('700');
    expect(found.filter(({ file, mode }) => file.startsWith('workers') && !['600', '700'].includes(mode))).toEqual([]);
  });

  test('somebody else on the node is refused by each of them', () => {
    for (const file of ['admin.sock', 'cni.sock', 'workers/uid-a/control.sock']) {
      const socket = path.join(node.runDir, file);
      const program = `require('node:net').connect(process.argv[1]).on('error', (e) => { console.log(e.code); })
        .on('connect', () => { console.log('connected'); process.exit(); })`;
      const as = (uid: string) =>
        execFileSync('setpriv', ['--reuid', uid, '--clear-groups', process.execPath, '-e', program, socket], {
          encoding: 'utf8',
          timeout: 10_000,
        }).trim();
      expect(as('65534'), file).toBe('EACCES');
    }
  });
});
