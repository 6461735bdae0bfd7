// `make demo` as a person runs it: the document of one run, and that nothing is left behind however it ends.

import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { findHierarchies } from '#agent/worker/cgroup.ts';
import type { DemoDocument } from '../../demo/report/document.ts';

const root = path.resolve(import.meta.dirname, '../..');
const node = path.join(root, 'node_modules/.bin/node');
const ARGS = ['--disable-warning=ExperimentalWarning', path.join(root, 'demo/main.ts')];
const EXPECTED = JSON.parse(readFileSync(path.join(root, 'demo/edges.json'), 'utf8')) as {
  client: string;
  server: string;
}[];

let running: ChildProcess | null = null;
afterEach(() => {
  running?.kill('SIGKILL');
  running = null;
});

interface Run {
  child: ChildProcess;
  stdout: () => string;
  stderr: () => string;
  /** Resolves once standard error or output has said it. */
  says: (text: string | RegExp) => Promise<void>;
  status: Promise<number | null>;
}

function demo(...args: string[]): Run {
  const child = spawn(node, [...ARGS, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  running = child;
  let stdout = '';
  let stderr = '';
  const waiting: (() => void)[] = [];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    for (const check of waiting) check();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    for (const check of waiting) check();
  });
  const status = once(child, 'close').then(([code]) => code as number | null);
  return {
    child,
    stdout: () => stdout,
    stderr: () => stderr,
    says: (text) =>
      new Promise((resolve, reject) => {
        const check = (): void => {
          if (typeof text === 'string' ? stderr.includes(text) : text.test(stdout)) resolve();
        };
        waiting.push(check);
        check();
        void status.then(() => reject(new Error(`ended before it said "${text}": ${stderr}`)));
      }),
    status,
  };
}

/** What a demo of process `pid` could leave on the machine. */
function leftovers(pid: number): string[] {
  const name = `heddle-demo-${pid}`;
  const cgroups = findHierarchies().map(({ mountPoint }) => path.join(mountPoint, name));
  const directories = readdirSync(tmpdir()).filter((entry) => entry.startsWith(`${name}-`));
  const processes = readdirSync('/proc').filter(
    (entry) => /^\d+$/.test(entry) && commandOf(entry).includes(`${name}-`),
  );
  return [
    ...cgroups.filter((directory) => existsSync(directory)),
    ...directories,
    ...processes.map((entry) => `process ${entry} ${commandOf(entry)}`),
    ...readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((line) => line.includes(name)),
  ];
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    // It has ended meanwhile.
    return '';
  }
}

/** What of the demo's network is to be seen on the machine itself: links, routes, names of namespaces, nftables. */
function network(): string[] {
  return ['ip -br link', 'ip route', 'ip netns', 'nft list ruleset']
    .flatMap((command) => execFileSync('sh', ['-c', command], { encoding: 'utf8' }).split('\n'))
    .filter((line) => /cni0|cni_hostport|10\.42\.0\.|heddle-demo/.test(line));
}

describe('the demo', () => {
  test('meshes real programs: every expected edge is there, secured and successful at both ends', async () => {
    const run = demo('--once');
    expect({ status: await run.status, said: run.stderr() }).toMatchObject({ status: 0 });
    const document = JSON.parse(run.stdout()) as DemoDocument;
    expect(document.failures).toEqual([]);
    for (const expected of EXPECTED) {
      const edge = document.edges.find(
        ({ client, server }) => client === expected.client && server === expected.server,
      );
      expect(edge).toMatchObject({ secured: true, successRate: 1 });
      expect(edge!.requests).toBeGreaterThan(10);
      expect(edge!.clientId).toContain('.shop.serviceaccount.identity.heddle.cluster.local');
      expect(edge!.serverId).toContain('.shop.serviceaccount.identity.heddle.cluster.local');
    }
    // The control: an unmeshed client is seen, and not taken for a secured one.
    expect(document.edges.find(({ clientId }) => clientId === '')).toMatchObject({ secured: false });
    for (const pod of document.pods) {
      expect(pod.meshed).toBe(pod.name.startsWith('shop/'));
      if (pod.meshed) expect(pod.workerPssKiB).toBeGreaterThan(5000);
      else expect(pod).toMatchObject({ redirect: null, workerPssKiB: null });
    }
    expect(document.agentRssKiB).toBeGreaterThan(10_000);
    expect(leftovers(run.child.pid!)).toEqual([]);
    expect(network()).toEqual([]);
  }, 150_000);

  test('shows a live table, and ended by Ctrl-C leaves nothing behind', async () => {
    const run = demo();
    await run.says(/shop\/front +1\/1 +100\.00% +[\d.]+rps +[\d.]+ms +[\d.]+ms +[\d.]+ms +\d+/);
    await run.says(/shop\/customers +shop\/front +http +yes +100\.00% +\d+ +customers\.shop +front\.shop/);
    await run.says(/shop\/web +shop\/redis +tcp +yes +100\.00%/);
    await run.says(/\(unmeshed\) +shop\/front +http +NO/);
    expect(leftovers(run.child.pid!)).not.toEqual([]);
    run.child.kill('SIGINT');
    await run.status;
    expect(leftovers(run.child.pid!)).toEqual([]);
    expect(network()).toEqual([]);
  }, 90_000);

  test('killed leaves no process, and the next one sweeps up its directories', async () => {
    const first = demo('--once');
    await first.says('pods ready');
    first.child.kill('SIGKILL');
    await first.status;
    const next = demo('--once');
    await next.says('pods ready');
    expect(leftovers(first.child.pid!)).toEqual([]);
    next.child.kill('SIGINT');
    await next.status;
    expect(leftovers(next.child.pid!)).toEqual([]);
  }, 150_000);

  test('on a machine that cannot run it ends with status 2 and the reason', () => {
    const noTools = spawnSync(node, [...ARGS, '--once'], { encoding: 'utf8', env: { PATH: '/none' } });
    expect(noTools.status).toBe(2);
    expect(noTools.stdout).toBe('');
    expect(noTools.stderr).toContain('command "unshare": expected in PATH');
    expect(noTools.stderr).toContain('command "nginx": expected in PATH');
  });
});
