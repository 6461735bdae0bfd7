import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { uninstall } from '#agent/agent.ts';
import { Annotation } from '#api/names.ts';
import { createLog } from '#lib/log.ts';
import { AgentNode } from './support/agent-node.ts';
import { CniNode, HEDDLE_CNI } from './support/cni-node.ts';

const POLL = { timeout: 10_000, interval: 25 };
const LIST = '10-node.conflist';

describe('an agent that installs the CNI plugin', () => {
  let node: AgentNode;
  let cni: CniNode;
  const binDir = () => path.join(cni.directory, 'bin');
  const list = () => JSON.parse(readFileSync(path.join(cni.confDir, LIST), 'utf8'));
  const types = () => list().plugins.map(({ type }: { type: string }) => type);
  const metrics = async () => (await node.get('/metrics')).text;

  beforeAll(async () => {
    node = new AgentNode('hdlins');
    cni = new CniNode('i');
    mkdirSync(binDir());
    cni.binDir = binDir();
    node.addArguments(
      ...['--cni-mode', 'auto', '--cni-conf-dir', cni.confDir, '--cni-bin-dir', binDir()],
      ...['--cni-cache-dir', path.join(cni.directory, 'cache'), '--cni-plugin', HEDDLE_CNI],
    );
    node.applyNamespace('shop', { [Annotation.inject]: 'enabled' });
    for (const name of ['a', 'b']) node.applyPod('shop', name);
  });

  afterAll(async () => {
    await node?.close();
    cni?.close();
  });

  test('is not ready before the node has a network, and says so', async () => {
    await node.start();
    expect(await node.get('/ready')).toEqual({
      status: 503,
      text: expect.stringContaining('the CNI plugin is not installed'),
    });
    expect(await metrics()).toMatch(/^heddle_cni_installed\{mode="chained"\} 0$/m);
    // The executable is there before any configuration names it.
    expect(readFileSync(path.join(binDir(), 'heddle-cni'))).toEqual(readFileSync(HEDDLE_CNI));
    expect(await metrics()).toMatch(/^heddle_cni_binary_sha_match 1$/m);
  });

  test('inserts the plugin as soon as there is one; a pod that the chain makes is meshed', async () => {
    cni.configure('1.0.0', null);
    await expect.poll(() => node.get('/ready'), POLL).toEqual({ status: 200, text: 'ready\n' });
    expect(types()).toEqual(['ptp', 'portmap', 'heddle-cni']);
    expect(list().plugins.at(-1)).toMatchObject({ runDir: node.runDir });
    cni.makePod('a');
    // As runtimes do before the chain.
    await cni.inPod('a', ['ip', 'link', 'set', 'lo', 'up']);
    const added = await cni.cnitool('add', { name: 'a', annotations: { [Annotation.inject]: 'enabled' } });
    expect(added, added.stderr).toMatchObject({ status: 0 });
    expect((await node.pods()).map(({ name, state }) => ({ name, state }))).toEqual([{ name: 'a', state: 'meshed' }]);
    expect(await metrics()).toMatch(/^heddle_cni_installed\{mode="chained"\} 1$/m);
  });

  test('repairs within a second what another program rewrites, and counts who did', async () => {
    const without = { ...list(), plugins: list().plugins.slice(0, 2) };
    const temporary = path.join(cni.confDir, '.foreign');
    writeFileSync(temporary, JSON.stringify(without));
    renameSync(temporary, path.join(cni.confDir, LIST));
    const startedMs = performance.now();
    await expect.poll(types, POLL).toContain('heddle-cni');
    expect(performance.now() - startedMs).toBeLessThan(1_000);
    await expect.poll(metrics, POLL).toMatch(/^heddle_cni_conflist_rewrites_total\{by="\w+"\} 1$/m);
    await expect.poll(async () => (await node.get('/ready')).status, POLL).toBe(200);
  });

  test('leaves everything in place when it stops', async () => {
    await node.stop();
    expect(types()).toContain('heddle-cni');
    expect(existsSync(path.join(binDir(), 'heddle-cni'))).toBe(true);
    cni.makePod('b');
    // A meshed pod without an agent: try again later, by the plugin's own word.
    const added = await cni.cnitool('add', { name: 'b', annotations: { [Annotation.inject]: 'enabled' } });
    expect(added.status).not.toBe(0);
    expect(added.stdout + added.stderr).toContain('agent');
    await cni.cnitool('del', { name: 'b', annotations: { [Annotation.inject]: 'enabled' } });
  });

  test('uninstalls in the order in which nothing breaks: the executable last, when no pod needs it', async () => {
    const { log } = createLog({ sink: { write: () => {} } });
    expect(await uninstall(node.config, log)).toBe(false);
    expect(types()).toEqual(['ptp', 'portmap']);
    expect(existsSync(path.join(binDir(), 'heddle-cni'))).toBe(true);
    expect(await cni.cnitool('del', { name: 'a' })).toMatchObject({ status: 0 });
    expect(await uninstall(node.config, log)).toBe(true);
    expect(existsSync(path.join(binDir(), 'heddle-cni'))).toBe(false);
  });
});
