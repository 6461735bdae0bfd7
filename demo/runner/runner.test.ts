import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PassThrough } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Container, Pod } from '#kube/resources.ts';
import { isStale } from '../machine/hierarchies.ts';
import { ContainerCgroup } from './cgroup.ts';
import { networkList, podEnvironment } from './cni.ts';
import { runCommand } from './command.ts';
import { type ContainerEnvironment, commandLine, RunningContainer } from './container.ts';
import { OutputTail } from './output-tail.ts';
import { attempt, ReadinessProbe, targetOf } from './probe.ts';

function mkPod(containers: Container[], annotations?: Record<string, string>): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web-1', namespace: 'shop', uid: 'u1', ...(annotations ? { annotations } : {}) },
    spec: { containers },
  };
}

describe('the pod network', () => {
  test('is a list of reference plugins with ours last', () => {
    const list = networkList({
      stateDir: '/s',
      subnet: '10.42.0.0/24',
      gateway: '10.42.0.1',
      heddle: { runDir: '/r', controlPlaneNamespace: 'heddle' },
    }) as { plugins: { type: string }[] };
    expect(list.plugins.map(({ type }) => type)).toEqual(['bridge', 'portmap', 'heddle-cni']);
    expect(list.plugins[0]).toMatchObject({ ipam: { type: 'host-local', dataDir: '/s/ipam' } });
    expect(list.plugins[2]).toMatchObject({ runDir: '/r', controlPlaneNamespace: 'heddle' });
  });

  test('is told of the pod as a runtime tells it', () => {
    const pod = mkPod([{ name: 'c', ports: [{ containerPort: 80, hostPort: 8080 }, { containerPort: 81 }] }], {
      a: 'b',
    });
    const { CNI_ARGS, CAP_ARGS } = podEnvironment(pod);
    expect(CNI_ARGS).toBe('IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=u1');
    expect(JSON.parse(CAP_ARGS)).toEqual({
      portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }],
      'io.kubernetes.cri.pod-annotations': { 'kubernetes.io/config.source': 'file', a: 'b' },
    });
  });
});

const environment: ContainerEnvironment = {
  netns: '/ns',
  hostname: 'web-1',
  resolvConf: '/resolv',
  hosts: '/hosts',
  programs: '/programs',
  path: '/bin',
  env: {},
};

describe('a container', () => {
  test('enters the namespace of its pod and has mounts of its own', () => {
    const line = commandLine({ name: 'c', command: ['nginx'], args: ['-c', 'x'] }, environment, '/procs');
    expect(line.slice(0, 3)).toEqual(['nsenter', '--net=/ns', 'unshare']);
    expect(line.slice(-9)).toEqual(['/procs', 'web-1', '/resolv', '/hosts', '/programs', '/srv', 'nginx', '-c', 'x']);
  });

  test('on the network of the node enters none', () => {
    const line = commandLine({ name: 'c', command: ['true'] }, { ...environment, netns: null }, '/procs');
    expect(line[0]).toBe('unshare');
  });

  test('runs as the user and with the capabilities that its manifest says', () => {
    const securityContext = { runAsUser: 1000, capabilities: { drop: ['ALL'], add: ['NET_BIND_SERVICE'] } };
    const line = commandLine({ name: 'c', command: ['true'], securityContext }, environment, '/procs').join(' ');
    expect(line).toContain('setpriv --reuid=1000 --regid=1000 --clear-groups');
    expect(line).toContain('--bounding-set=-all,+net_bind_service --inh-caps=-all,+net_bind_service -- true');
  });

  test('without a command is refused', () => {
    expect(() => commandLine({ name: 'c', image: 'nginx' }, environment, '/procs')).toThrow(/images are not run/);
  });
});

describe('a running container', () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'heddle-runner-'));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  /** Without namespaces: what is tested is the order of things. */
  function makeContainer(script: string): RunningContainer {
    const cgroup = new ContainerCgroup(path.join(directory, 'cgroup'));
    const container = { name: 'c', command: ['sh', '-c', script] };
    const start = (): string[] => ['sh', '-c', script];
    return new RunningContainer({ container, environment, cgroup, commandLine: start });
  }

  test('is started again as long as it should be', async () => {
    let starts = 0;
    const container = makeContainer('exit 3');
    const status = await container.run((code) => code === 3 && ++starts < 3);
    expect({ status, starts }).toEqual({ status: 3, starts: 3 });
  });

  test('ends when stopped, running or about to be started again', async () => {
    const running = makeContainer('exec sleep 60');
    const ended = running.run(() => true);
    await vi.waitFor(() => expect(running.isRunning).toBe(true));
    await running.stop(1000);
    expect(await ended).toBe(128);

    const waiting = makeContainer('exit 1');
    const over = waiting.run(() => true);
    await vi.waitFor(() => expect(waiting.isRunning).toBe(false));
    await waiting.stop(1000);
    expect(await over).toBe(1);
  });
});

describe('output', () => {
  test('is kept by lines, the last ones only, long ones cut', () => {
    const seen: string[] = [];
    const tail = new OutputTail((line) => seen.push(line));
    const stream = new PassThrough();
    tail.follow(stream);
    stream.write('one\ntw');
    stream.write(`o\n${'x'.repeat(10_000)}\n`);
    for (let index = 0; index < 300; index++) stream.write(`line ${index}\n`);
    stream.end('rest');
    return vi.waitFor(() => {
      expect(seen.slice(0, 2)).toEqual(['one', 'two']);
      expect(seen[2]).toHaveLength(4096);
      expect(tail.last(2)).toEqual(['line 299', 'rest']);
      expect(tail.last(1000)).toHaveLength(200);
    });
  });
});

describe('a command', () => {
  test('resolves with what it wrote', async () => {
    expect(await runCommand(['sh', '-c', 'echo $GREETING'], { timeoutMs: 5000, env: { GREETING: 'hello' } })).toBe(
      'hello\n',
    );
  });

  test.each([
    ['fails', 'echo bad >&2; exit 3', 'bad'],
    ['fails silently', 'exit 3', 'ended with status 3'],
    ['hangs', 'exec sleep 60', 'ended by SIGKILL'],
  ])('that %s is an error', async (_what, script, message) => {
    await expect(runCommand(['sh', '-c', script], { timeoutMs: 300 })).rejects.toThrow(message);
  });

  test('that does not exist is an error', async () => {
    await expect(runCommand(['/none'], { timeoutMs: 300 })).rejects.toMatchObject({ code: 'command-failed' });
  });
});

describe('a probe', () => {
  let status = 200;
  const server = createServer((_request, response) => response.writeHead(status).end());
  let port: number;
  beforeAll(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    port = (server.address() as AddressInfo).port;
  });
  afterAll(() => server.close());

  test('finds its port by name', () => {
    const container: Container = { name: 'c', ports: [{ name: 'http', containerPort: 81 }] };
    expect(targetOf({ httpGet: { port: 'http' } }, container)).toEqual({ kind: 'http', port: 81, path: '/' });
    expect(targetOf({ tcpSocket: { port: 6379 } }, container)).toEqual({ kind: 'tcp', port: 6379 });
    expect(targetOf({ exec: { command: ['true'] } }, container)).toBeNull();
  });

  test.each([
    [200, true],
    [302, true],
    [404, false],
    [503, false],
  ])('takes status %d for %s', async (code, isGood) => {
    status = code;
    expect(await attempt('127.0.0.1', { kind: 'http', port, path: '/' })).toBe(isGood);
  });

  test('of a connection is good when it opens', async () => {
    expect(await attempt('127.0.0.1', { kind: 'tcp', port })).toBe(true);
    expect(await attempt('127.0.0.1', { kind: 'tcp', port: 1 })).toBe(false);
  });

  test('needs one success to be ready and three failures not to be', async () => {
    status = 503;
    const changes: boolean[] = [];
    const probe = new ReadinessProbe({
      host: '127.0.0.1',
      probe: { periodSeconds: 0.02 },
      target: { kind: 'http', port, path: '/' },
      onChange: (isReady) => changes.push(isReady),
    });
    status = 200;
    await vi.waitFor(() => expect(changes).toEqual([true]));
    status = 503;
    await vi.waitFor(() => expect(changes).toEqual([true, false]));
    probe.close();
  });
});

describe('names of demos', () => {
  test('are stale when their process is gone', () => {
    expect(isStale(`heddle-demo-${process.pid}`)).toBe(false);
    expect(isStale(`heddle-demo-${process.pid}-abc`)).toBe(false);
    expect(isStale('heddle-demo-4194305-abc')).toBe(true);
    expect(isStale('heddle-demo-x')).toBe(false);
    expect(isStale('other-4194305')).toBe(false);
  });
});
