// The plugin in a real chain: ptp, host-local, portmap and heddle run by cnitool, against the agent's real socket with
// a small handler behind it. What the runtime sees when the agent is there, dead, hung, or talks garbage.

import { existsSync, fstatSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { PluginBinary } from '#agent/cni/binary.ts';
import { pluginSection } from '#agent/cni/conflist.ts';
import { type CniHandler, cniDone, cniFailed } from '#agent/cni/handler.ts';
import { CniInstaller } from '#agent/cni/install.ts';
import { readRecords, writeMeshedNamespaces } from '#agent/cni/run-dir.ts';
import { type CniServer, startCniServer } from '#agent/cni/server.ts';
import { uninstallCni } from '#agent/cni/uninstall.ts';
import type { CniRequest } from '#api/cni-message.ts';
import { close } from '#lib/libc.ts';
import { silentLog } from '#lib/log.ts';
import { openUnixListener } from '#lib/unix-socket.ts';
import { CniNode, HEDDLE_CNI, type PodOptions, type Ran } from './support/cni-node.ts';

const STAMP = { 'heddle.dev/meshed': 'heddle' };
/** What a pod that is not the mesh's may lose on its account, on a busy machine. */
const UNMESHED_MS = 3_000;

let node: CniNode;
let server: CniServer | null = null;
let seen: { request: CniRequest; inode: number | null }[];
let pods: string[];

/** Knows what an agent knows: stamped pods are meshed, the others are not. */
const handler: CniHandler = {
  add: async (request, fd) => {
    seen.push({ request, inode: fstatSync(fd).ino });
    return cniDone(request.annotations?.['heddle.dev/meshed'] ? 'meshed' : 'unmeshed');
  },
  check: async (request, fd) => {
    seen.push({ request, inode: fstatSync(fd).ino });
    const isDrifted = request.annotations?.['heddle.dev/test-drift'] !== undefined;
    return isDrifted ? cniFailed(101, 'the redirect of the pod is gone') : cniDone('meshed');
  },
  del: async (request) => {
    seen.push({ request, inode: null });
    return cniDone('removed');
  },
  gc: async (request) => {
    seen.push({ request, inode: null });
    return cniDone('none');
  },
  status: async () => cniDone('none'),
};

async function startAgent(): Promise<void> {
  server = await startCniServer({ runDir: node.runDir, handler, log: silentLog });
}

async function stopAgent(): Promise<void> {
  await server?.close(200);
  server = null;
}

function makePod(name: string): string {
  pods.push(name);
  return node.makePod(name);
}

function report(ran: Ran): string {
  return `status ${ran.status} in ${ran.durationMs.toFixed(0)} ms\n${ran.stdout}\n${ran.stderr}`;
}

async function succeeds(verb: 'add' | 'check' | 'del' | 'gc' | 'status', pod: PodOptions): Promise<Ran> {
  const ran = await node.cnitool(verb, pod);
  expect(ran.status, report(ran)).toBe(0);
  return ran;
}

beforeAll(() => {
  node = new CniNode('a');
});

afterAll(() => node.close());

beforeEach(() => {
  seen = [];
  pods = [];
  node.configure('1.0.0', { controlPlaneNamespace: 'heddle' });
});

afterEach(async () => {
  await stopAgent();
  for (const name of pods) {
    await node.cnitool('del', { name });
    node.removePod(name);
  }
  rmSync(path.join(node.runDir, 'cni.sock'), { force: true });
  rmSync(path.join(node.runDir, 'meshed-namespaces.json'), { force: true });
  node.forgetRecords();
  expect(node.leases()).toEqual([]);
});

test('the plugin is one static file of at most 4 MiB', () => {
  expect(statSync(HEDDLE_CNI).size).toBeLessThanOrEqual(4 * 1024 * 1024);
  const elf = readFileSync(HEDDLE_CNI);
  const table = (offset: number, size: number, count: number): number[] =>
    Array.from(
      { length: elf.readUInt16LE(count) },
      (_, i) => Number(elf.readBigUInt64LE(offset)) + i * elf.readUInt16LE(size),
    );
  // elf(5), 64-bit: no PT_INTERP (3) among the program headers, no SHT_SYMTAB (2) among the sections.
  const segments = table(32, 54, 56).map((at) => elf.readUInt32LE(at));
  const sections = table(40, 58, 60).map((at) => elf.readUInt32LE(at + 4));
  expect(segments).toContain(1);
  expect(segments).not.toContain(3);
  expect(sections).not.toContain(2);
});

describe('with the agent', () => {
  beforeEach(startAgent);

  test('a meshed pod: the agent holds the namespace of that very pod, and its addresses', async () => {
    makePod('web');
    const { stdout } = await succeeds('add', { name: 'web', annotations: { ...STAMP, 'example.com/other': 'x' } });
    const ips = (JSON.parse(stdout).ips as { address: string }[]).map(({ address }) => address.split('/')[0]);
    expect(seen).toHaveLength(1);
    expect(seen[0]!.inode).toBe(node.inodeOf('web'));
    expect(seen[0]!.request).toMatchObject({
      op: 'ADD',
      netnsInode: node.inodeOf('web'),
      network: node.network,
      ifName: 'eth0',
      pod: { namespace: 'shop', name: 'web', uid: 'uid-web' },
      annotations: STAMP,
      ips,
    });
    expect(ips).toHaveLength(2);
    const inside = await node.inPod('web', ['ip', '-o', 'addr', 'show', 'dev', 'eth0']);
    for (const ip of ips) expect(inside.stdout).toContain(` ${ip}/`);
    await succeeds('check', { name: 'web', annotations: STAMP });
    await succeeds('del', { name: 'web', annotations: STAMP });
    expect(seen.map(({ request }) => request.op)).toEqual(['ADD', 'CHECK', 'DEL']);
    expect(new Set(seen.map(({ request }) => request.containerId)).size).toBe(1);
  });

  test('the result is the one that the chain gives without us', async () => {
    makePod('plain');
    makePod('meshed');
    node.configure('1.0.0', null);
    const without = JSON.parse((await succeeds('add', { name: 'plain', annotations: STAMP })).stdout);
    expect(seen).toEqual([]);
    await succeeds('del', { name: 'plain', annotations: STAMP });
    node.configure('1.0.0', { controlPlaneNamespace: 'heddle' });
    const withUs = JSON.parse((await succeeds('add', { name: 'meshed', annotations: STAMP })).stdout);
    const shape = (result: { ips: { address: string }[]; interfaces: { name: string; sandbox?: string }[] }) => ({
      ...result,
      ips: result.ips.map((ip) => ({ ...ip, address: ip.address.replace(/^.*\//, '/') })),
      interfaces: result.interfaces.map(({ sandbox }) => sandbox !== undefined),
    });
    expect(shape(withUs)).toEqual(shape(without));
  });

  test('two pods reach each other, and a mapped port is reached through the node', async () => {
    makePod('one');
    makePod('two');
    await succeeds('add', { name: 'one', annotations: STAMP });
    const ports = [{ hostPort: 18080, containerPort: 80, protocol: 'tcp' }];
    const { ips } = JSON.parse((await succeeds('add', { name: 'two', annotations: STAMP, ports })).stdout);
    const address = ips[0].address.split('/')[0] as string;
    const listen = "require('node:net').createServer((s) => s.end('here')).listen(80, () => console.log('up'))";
    const server = node.startInPod('two', [process.execPath, '-e', listen]);
    try {
      await new Promise((resolve) => server.stdout!.once('data', resolve));
      const ask = (host: string, port: number): Promise<Ran> =>
        node.inPod('one', ['timeout', '5', 'bash', '-c', `cat < /dev/tcp/${host}/${port}`]);
      expect(await ask(address, 80)).toMatchObject({ status: 0, stdout: 'here' });
      expect(await ask(ips[0].gateway, 18080)).toMatchObject({ status: 0, stdout: 'here' });
      expect((await ask(ips[0].gateway, 18081)).status).not.toBe(0);
    } finally {
      server.kill('SIGKILL');
    }
    await succeeds('del', { name: 'two', annotations: STAMP, ports });
  });

  test('drift that the agent finds fails CHECK with its words', async () => {
    makePod('web');
    const annotations = { ...STAMP, 'heddle.dev/test-drift': '1' };
    await succeeds('add', { name: 'web', annotations });
    const ran = await node.cnitool('check', { name: 'web', annotations });
    expect(ran.status).not.toBe(0);
    expect(ran.stderr).toContain('heddle: the redirect of the pod is gone');
  });

  test('an unmeshed pod: known as such it does not ask, else the agent says so', async () => {
    makePod('known');
    makePod('asking');
    writeMeshedNamespaces(node.runDir, { meshed: { shop: {} }, unmeshed: ['batch'] });
    await succeeds('add', { name: 'known', namespace: 'batch' });
    expect(seen).toEqual([]);
    await succeeds('add', { name: 'asking', namespace: 'new' });
    expect(seen).toHaveLength(1);
    expect(node.records('missed')).toEqual([]);
  });

  test('twenty pods at once: each its own namespace, each its own address', { timeout: 120_000 }, async () => {
    const names = Array.from({ length: 20 }, (_, i) => `p${i}`);
    for (const name of names) makePod(name);
    const results = await Promise.all(names.map((name) => succeeds('add', { name, annotations: STAMP })));
    const byName = new Map(seen.map(({ request, inode }) => [request.pod.name, inode]));
    expect(names.map((name) => byName.get(name))).toEqual(names.map((name) => node.inodeOf(name)));
    expect(
      new Set(results.flatMap(({ stdout }) => JSON.parse(stdout).ips.map((ip: { address: string }) => ip.address)))
        .size,
    ).toBe(40);
    expect(server!.inFlight).toBe(0);
    await Promise.all(names.map((name) => succeeds('del', { name, annotations: STAMP })));
    expect(node.records('tombstones')).toEqual([]);
  });

  test('GC and STATUS of a list of version 1.1.0', async () => {
    node.configure('1.1.0', {});
    makePod('web');
    await succeeds('add', { name: 'web', annotations: STAMP });
    await succeeds('status', { name: 'web' });
    // cnitool names no valid attachments; ours refuses to take that as "all are dead".
    const ran = await node.cnitool('gc', { name: 'web' });
    expect(ran.stderr).toContain('heddle: GC expects the field');
    expect(seen.map(({ request }) => request.op)).not.toContain('GC');
  });
});

describe('DEL', () => {
  test('twice, without a previous result, and with the namespace gone', async () => {
    await startAgent();
    makePod('web');
    await succeeds('add', { name: 'web', annotations: STAMP });
    await succeeds('del', { name: 'web', annotations: STAMP });
    // The cache holds no result any more.
    await succeeds('del', { name: 'web', annotations: STAMP });
    await succeeds('add', { name: 'web', annotations: STAMP });
    node.removePod('web');
    pods = [];
    await succeeds('del', { name: 'web', annotations: STAMP });
    expect(seen.filter(({ request }) => request.op === 'DEL')).toHaveLength(3);
  });

  test('with the agent dead: at once, and the agent that comes back finds it', async () => {
    await startAgent();
    makePod('web');
    await succeeds('add', { name: 'web', annotations: STAMP });
    const { containerId } = seen[0]!.request;
    await stopAgent();
    await succeeds('del', { name: 'web', annotations: STAMP });
    await succeeds('del', { name: 'web', annotations: STAMP });
    expect(readRecords(node.runDir, 'tombstone')).toMatchObject({
      records: [
        { containerId, pod: { name: 'web', uid: 'uid-web' }, cause: expect.stringContaining('connection refused') },
      ],
      faults: [],
    });
  });
});

describe('without the agent', () => {
  /** Ways of not answering; each returns how to end it. */
  const absences: [string, () => Promise<() => void>][] = [
    ['it never ran', async () => () => {}],
    [
      'it was killed',
      async () => {
        await startAgent();
        await stopAgent();
        return () => {};
      },
    ],
    [
      'it hangs',
      async () => {
        const fd = openUnixListener(path.join(node.runDir, 'cni.sock'));
        return () => close(fd);
      },
    ],
    [
      'its socket talks garbage',
      async () => {
        const garbage = net.createServer((socket) => {
          socket.on('error', () => {});
          socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
        });
        await new Promise<void>((resolve) => garbage.listen(path.join(node.runDir, 'cni.sock'), resolve));
        return () => garbage.close();
      },
    ],
  ];

  test.each(absences)('%s: unmeshed pods start at once, with their network', async (_name, begin) => {
    const end = await begin();
    try {
      makePod('known');
      makePod('unknown');
      const known = await succeeds('add', { name: 'known', annotations: { 'linkerd.io/inject': 'disabled' } });
      const unknown = await succeeds('add', { name: 'unknown', annotations: null });
      expect(Math.max(known.durationMs, unknown.durationMs)).toBeLessThan(UNMESHED_MS);
      expect((await node.inPod('unknown', ['ip', '-o', 'addr', 'show', 'dev', 'eth0'])).stdout).toContain(' 10.213.');
      // Only the pod that nobody knew of is recorded for late enrolment.
      expect(readRecords(node.runDir, 'missed').records).toMatchObject([
        { pod: { name: 'unknown' }, netnsInode: node.inodeOf('unknown'), ips: expect.any(Array) },
      ]);
      await succeeds('del', { name: 'unknown', annotations: null });
      expect(readRecords(node.runDir, 'missed').records).toEqual([]);
    } finally {
      end();
    }
  });

  test.each(absences)('%s: a meshed pod is told to try again, and leaves nothing behind', async (_name, begin) => {
    const end = await begin();
    try {
      makePod('web');
      const ran = await node.cnitool('add', { name: 'web', annotations: STAMP });
      expect(ran.status).not.toBe(0);
      expect(ran.durationMs).toBeLessThan(8_000);
      for (const part of [
        'heddle: pod "shop/web" is meshed (annotation heddle.dev/meshed)',
        "the node's agent does not answer",
        'the runtime tries again',
        'config.heddle.dev/on-agent-down',
      ]) {
        expect(ran.stderr).toContain(part);
      }
      // What a runtime does next: DEL of everything, without a previous result.
      await succeeds('del', { name: 'web', annotations: STAMP });
      expect(node.leases()).toEqual([]);
    } finally {
      end();
    }
  });

  test('the set of namespaces that the agent left decides for pods without annotations', async () => {
    writeMeshedNamespaces(node.runDir, { meshed: { shop: {}, lax: { onAgentDown: 'open' } }, unmeshed: [] });
    makePod('closed');
    makePod('open');
    const closed = await node.cnitool('add', { name: 'closed', namespace: 'shop', annotations: null });
    expect(closed.status).not.toBe(0);
    expect(closed.stderr).toContain('is meshed (namespace shop)');
    await succeeds('add', { name: 'open', namespace: 'lax', annotations: null });
    expect(readRecords(node.runDir, 'open').records).toMatchObject([{ pod: { name: 'open', namespace: 'lax' } }]);
  });

  test('the set is garbage: as if there were none', async () => {
    writeFileSync(path.join(node.runDir, 'meshed-namespaces.json'), '{"v":1,"meshed":{"sh');
    makePod('web');
    await succeeds('add', { name: 'web', annotations: null });
    expect(readRecords(node.runDir, 'missed').records).toHaveLength(1);
  });

  test('an agent that comes back serves the pod that waited', async () => {
    makePod('web');
    expect((await node.cnitool('add', { name: 'web', annotations: STAMP })).status).not.toBe(0);
    await succeeds('del', { name: 'web', annotations: STAMP });
    await startAgent();
    await succeeds('add', { name: 'web', annotations: STAMP });
    expect(seen[0]!.inode).toBe(node.inodeOf('web'));
  });
});

describe('as the installer leaves it', () => {
  const runtime = { kind: 'containerd', supportsDropIns: true, defaultNetwork: null, isInstalled: () => true } as const;
  const binDirOfBuild = path.dirname(HEDDLE_CNI);

  afterEach(() => {
    node.binDir = binDirOfBuild;
  });

  test.each(['drop-in', 'chained', 'owned'] as const)(
    '%s: libcni runs the plugin, and no more after uninstalling',
    async (mode) => {
      await startAgent();
      node.configure('1.0.0', null);
      const { confDir } = node;
      const binDir = path.join(node.directory, `bin-${mode}`);
      const section = pluginSection({ runDir: node.runDir });
      const installer = new CniInstaller({
        confDir,
        binDir,
        source: HEDDLE_CNI,
        mode,
        runtime,
        section,
        log: silentLog,
      });
      expect(await installer.install()).toMatchObject({ isInstalled: true, cause: null });
      node.binDir = binDir;
      makePod('web');
      await succeeds('add', { name: 'web', annotations: STAMP });
      expect(seen).toMatchObject([{ request: { op: 'ADD', pod: { name: 'web' } }, inode: node.inodeOf('web') }]);

      const cacheDir = path.join(node.directory, 'cache');
      const uninstall = () =>
        uninstallCni({ confDir, binDirs: [binDir], cacheDir, log: silentLog, confirmReload: async () => {} });
      // libcni's note of the pod names the plugin, unless it came from a drop-in, which libcni does not note.
      expect(await uninstall()).toMatchObject({ binaryRemoved: mode === 'drop-in' });
      await succeeds('del', { name: 'web', annotations: STAMP });
      expect(await uninstall()).toMatchObject({ changed: [], pods: [], binaryRemoved: true });
      expect(existsSync(path.join(binDir, 'heddle-cni'))).toBe(false);
      seen = [];
      await succeeds('add', { name: 'web', annotations: STAMP });
      await succeeds('del', { name: 'web', annotations: STAMP });
      expect(seen).toEqual([]);
    },
  );

  test('the executable is replaced while pods start: none of them notices', async () => {
    await startAgent();
    const binDir = path.join(node.directory, 'bin-replaced');
    const versions = ['a', 'b'].map((name) => path.join(node.directory, `plugin-${name}`));
    for (const [index, file] of versions.entries()) {
      // What is appended to an ELF file is not loaded: another file with the same behaviour.
      writeFileSync(file, Buffer.concat([readFileSync(HEDDLE_CNI), Buffer.alloc(index)]), { mode: 0o755 });
    }
    await new PluginBinary(versions[0]!, binDir).install();
    node.binDir = binDir;
    const names = Array.from({ length: 8 }, (_, i) => `r${i}`);
    for (const name of names) makePod(name);
    let replaced = 0;
    let isOver = false;
    const replacing = (async () => {
      while (!isOver) {
        if (await new PluginBinary(versions[++replaced % 2]!, binDir).install()) continue;
        throw new Error('expected the executable to differ');
      }
    })();
    for (const name of names) await succeeds('add', { name, annotations: STAMP });
    isOver = true;
    await replacing;
    expect(replaced).toBeGreaterThan(3);
    expect(seen).toHaveLength(names.length);
    node.binDir = binDirOfBuild;
    for (const name of names) await succeeds('del', { name, annotations: STAMP });
  });
});

describe('figures', () => {
  const ROUNDS = 100;

  test('what ADD of our plugin costs', { timeout: 120_000 }, async () => {
    await startAgent();
    const netns = makePod('web');
    const add = async (annotations: Record<string, string>): Promise<Ran> => {
      const stdin = JSON.stringify({
        cniVersion: '1.0.0',
        name: node.network,
        type: 'heddle-cni',
        runDir: node.runDir,
        runtimeConfig: { 'io.kubernetes.cri.pod-annotations': annotations },
        prevResult: { cniVersion: '1.0.0', ips: [{ address: '10.213.0.9/32' }], dns: {} },
      });
      return node.onNode(
        [
          'sh',
          '-c',
          `printf %s "$STDIN" | { t=$(date +%s%N); ${HEDDLE_CNI} >/dev/null; s=$?; echo $(( $(date +%s%N) - t )); exit $s; }`,
        ],
        {
          STDIN: stdin,
          CNI_COMMAND: 'ADD',
          CNI_CONTAINERID: 'figures',
          CNI_NETNS: netns,
          CNI_IFNAME: 'eth0',
          CNI_PATH: '/opt/cni/bin',
          CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u',
        },
      );
    };
    const measure = async (annotations: Record<string, string>): Promise<string> => {
      const costs: number[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const ran = await add(annotations);
        expect(ran.status, report(ran)).toBe(0);
        costs.push(Number(ran.stdout) / 1e6);
      }
      costs.sort((a, b) => a - b);
      const at = (share: number): string => costs[Math.ceil(share * ROUNDS) - 1]!.toFixed(1);
      return `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`;
    };
    console.log(`CNI ADD of the plugin alone, ${ROUNDS} rounds, the agent's work not counted:`);
    console.log(`  meshed:   ${await measure(STAMP)}`);
    console.log(`  unmeshed: ${await measure({ 'linkerd.io/inject': 'disabled' })}`);
    expect(seen).toHaveLength(ROUNDS);
    pods = [];
    node.removePod('web');
  });
});
