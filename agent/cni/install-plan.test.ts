import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { insertPlugin, parseConfig, pluginSection, renderDropIn } from './conflist.ts';
import {
  type ConfDirectory,
  type ConfFile,
  type InstallMode,
  type InstallPlan,
  planInstall,
  planRemoval,
  type RuntimeRules,
} from './install-plan.ts';

const read = (name: string): Uint8Array => readFileSync(path.join(import.meta.dirname, 'testdata', name));
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const section = pluginSection({ runDir: '/run/heddle' });

const containerd: RuntimeRules = {
  kind: 'containerd',
  supportsDropIns: false,
  defaultNetwork: null,
  isInstalled: () => true,
};
const containerd21: RuntimeRules = { ...containerd, supportsDropIns: true };
const crio: RuntimeRules = { ...containerd, kind: 'cri-o' };

function directory(names: string[], extra: ConfFile[] = [], dropIns: Record<string, Uint8Array> = {}): ConfDirectory {
  const files = names.map((name) => ({ name, bytes: read(name), isSymlink: false }));
  return { files: [...files, ...extra], dropIns: new Map(Object.entries(dropIns)) };
}

function file(name: string, data: Uint8Array, isSymlink = false): ConfFile {
  return { name, bytes: data, isSymlink };
}

function plan(dir: ConfDirectory, runtime: RuntimeRules, mode: InstallMode | 'auto' = 'auto'): InstallPlan {
  return planInstall(dir, { mode, runtime, section });
}

/** The directory after the steps. */
function apply(dir: ConfDirectory, steps: InstallPlan['steps']): ConfDirectory {
  const files = new Map(dir.files.map((one) => [one.name, one]));
  const dropIns = new Map(dir.dropIns);
  for (const step of steps) {
    const isDropIn = step.path.includes('/');
    if (step.kind === 'remove') isDropIn ? dropIns.delete(path.dirname(step.path)) : files.delete(step.path);
    else if (isDropIn) dropIns.set(path.dirname(step.path), step.bytes);
    else files.set(step.path, file(step.path, step.bytes));
  }
  return { files: [...files.values()], dropIns };
}

function summary(result: InstallPlan): unknown {
  return {
    mode: result.mode,
    network: result.network,
    primary: result.primary,
    steps: result.steps.map((step) => `${step.kind} ${step.path}`),
    blocked: result.blocked?.code ?? null,
  };
}

describe('mode by itself', () => {
  test.each([
    ['a list', ['10-kindnet.conflist'], containerd, 'chained', ['write 10-kindnet.conflist']],
    ['a list, drop-ins known', ['10-kindnet.conflist'], containerd21, 'drop-in', ['write kindnet/99-heddle.conf']],
    ['a single configuration', ['10-mynet.conf'], containerd21, 'owned', ['write 05-heddle.conflist']],
    [
      'one that sorts before our first name',
      ['00-multus.conf', '10-flannel.conflist'],
      containerd,
      'owned',
      ['write 00-heddle.conflist'],
    ],
    [
      'the first of several',
      ['10-calico.conflist', '05-cilium.conflist', '10-aws.conflist'],
      containerd,
      'chained',
      ['write 05-cilium.conflist'],
    ],
  ] as [string, string[], RuntimeRules, InstallMode, string[]][])('%s', (_name, names, runtime, mode, steps) => {
    const result = plan(directory(names), runtime);
    expect(summary(result)).toMatchObject({ mode, steps, blocked: null });
  });

  test('a symbolic link is not replaced', () => {
    const dir = directory([], [file('10-calico.conflist', read('10-calico.conflist'), true)]);
    expect(summary(plan(dir, containerd))).toMatchObject({ mode: 'owned', steps: ['write 05-heddle.conflist'] });
  });

  test('a list that takes no drop-ins', () => {
    const dir = directory(
      [],
      [
        file(
          '10-x.conflist',
          bytes('{"cniVersion":"1.0.0","name":"x","loadOnlyInlinedPlugins":true,"plugins":[{"type":"a"}]}'),
        ),
      ],
    );
    expect(summary(plan(dir, containerd21))).toMatchObject({ mode: 'chained' });
    expect(summary(plan(dir, containerd21, 'drop-in'))).toMatchObject({ steps: [], blocked: 'bad-mode' });
  });

  test('a network whose name is no directory name', () => {
    const dir = directory(['87-podman.conflist']);
    const named = directory(
      [],
      [file('10-x.conflist', bytes('{"cniVersion":"1.0.0","name":"../x","plugins":[{"type":"a"}]}'))],
    );
    expect(summary(plan(dir, containerd21))).toMatchObject({ mode: 'drop-in' });
    expect(summary(plan(named, containerd21))).toMatchObject({ mode: 'chained' });
  });
});

describe('the file that the runtime takes', () => {
  const half = file('00-half.conflist', bytes('{"name":"ha'));
  const json = file('01-mesh.json', bytes('{"cniVersion":"1.0.0","name":"j","type":"bridge"}'));

  test('names are compared as bytes; .json counts, other names do not', () => {
    const noise = ['README', 'a.conflist.bak', '00-x.conflist.cilium_bak', '.00-y.conflist.heddle-1'].map((name) =>
      file(name, bytes('x')),
    );
    const dir = directory(['10-kindnet.conflist'], [json, ...noise]);
    expect(plan(dir, containerd)).toMatchObject({ primary: '01-mesh.json', mode: 'owned' });
    const upper = file('Z.conflist', read('10-flannel.conflist'));
    expect(plan(directory([], [file('a.conflist', read('10-k3s.conflist')), upper]), containerd).primary).toBe(
      'Z.conflist',
    );
  });

  test('containerd stops at a file it cannot parse, and so do we, naming it', () => {
    const result = plan(directory(['10-kindnet.conflist'], [half]), containerd);
    expect(summary(result)).toMatchObject({ steps: [], blocked: 'bad-network-config' });
    expect(result.blocked!.message).toContain('"00-half.conflist" cannot be parsed');
  });

  test('CRI-O goes on to the next', () => {
    expect(plan(directory(['10-kindnet.conflist'], [half]), crio)).toMatchObject({
      primary: '10-kindnet.conflist',
      blocked: null,
    });
  });

  test('CRI-O skips a list with a plugin that is not installed, and other networks than its default', () => {
    const dir = directory(['10-calico.conflist', '10-flannel.conflist', '10-kindnet.conflist']);
    const isInstalled = (type: string) => type !== 'calico';
    expect(plan(dir, { ...crio, isInstalled }).primary).toBe('10-flannel.conflist');
    expect(plan(dir, { ...crio, defaultNetwork: 'kindnet' }).primary).toBe('10-kindnet.conflist');
    expect(summary(plan(dir, { ...crio, defaultNetwork: 'none' }))).toMatchObject({ steps: [], blocked: 'no-network' });
  });

  test('no file at all', () => {
    expect(summary(plan(directory([]), containerd))).toEqual({
      mode: 'chained',
      network: null,
      primary: null,
      steps: [],
      blocked: 'no-network',
    });
  });

  test('a version that our plugin does not speak is left alone: it would fail every pod', () => {
    const dir = directory(
      [],
      [file('10-x.conflist', bytes('{"cniVersion":"0.2.0","name":"x","plugins":[{"type":"a"}]}'))],
    );
    for (const mode of ['auto', 'drop-in', 'chained', 'owned'] as const) {
      const result = plan(dir, containerd21, mode);
      expect(summary(result)).toMatchObject({ steps: [], blocked: 'unsupported-cni-version' });
      expect(result.blocked!.message).toContain('"10-x.conflist" is left alone');
    }
  });
});

describe('steps', () => {
  const modes: [InstallMode, string][] = [
    ['drop-in', 'kindnet/99-heddle.conf'],
    ['chained', '10-kindnet.conflist'],
    ['owned', '05-heddle.conflist'],
  ];

  test.each(modes)('%s: done once, there is nothing left to do', (mode) => {
    const before = directory(['10-kindnet.conflist', '10-aws.conflist']);
    const after = apply(before, plan(before, containerd21, mode).steps);
    expect(plan(after, containerd21, mode).steps).toEqual([]);
    expect(planRemoval(before).steps).toEqual([]);
    const removed = apply(after, planRemoval(after).steps);
    expect(removed.files.map((one) => [one.name, Buffer.from(one.bytes).toString()])).toEqual(
      before.files.map((one) => [one.name, Buffer.from(one.bytes).toString()]),
    );
    expect(removed.dropIns.size).toBe(0);
  });

  test.each(modes.flatMap(([from]) => modes.map(([to, target]) => [from, to, target] as const)))(
    'from %s to %s: the new place first, then the old one goes',
    (from, to, target) => {
      const start = directory(['10-kindnet.conflist']);
      const before = apply(start, plan(start, containerd21, from).steps);
      const { steps } = plan(before, containerd21, to);
      const after = apply(before, steps);
      if (from !== to) expect(steps[0]).toMatchObject({ kind: 'write', path: target });
      const places = after.files
        .filter((one) => parseConfig(one.bytes, 'list').types.includes('heddle-cni'))
        .map((one) => one.name);
      expect([...places, ...[...after.dropIns.keys()].map((name) => `${name}/99-heddle.conf`)]).toEqual([target]);
    },
  );

  test('owned: the copy follows the list it copies, byte for byte', () => {
    const start = directory(['10-calico.conflist']);
    const before = apply(start, plan(start, containerd, 'owned').steps);
    const copy = before.files.find((one) => one.name === '05-heddle.conflist')!;
    expect(copy.bytes).toEqual(insertPlugin(read('10-calico.conflist'), section));
    const changed = apply(before, [
      {
        kind: 'write',
        path: '10-calico.conflist',
        bytes: bytes(Buffer.from(read('10-calico.conflist')).toString().replace('"mtu": 0', '"mtu": 1400')),
      },
    ]);
    const again = plan(changed, containerd, 'owned');
    expect(again.steps).toHaveLength(1);
    expect(Buffer.from((again.steps[0] as { bytes: Uint8Array }).bytes).toString()).toContain('"mtu": 1400');
  });

  test('owned: without the list it copied, the copy stays: the node keeps its network over a reboot', () => {
    const dir = directory([], [file('05-heddle.conflist', insertPlugin(read('10-calico.conflist'), section))]);
    expect(summary(plan(dir, containerd))).toMatchObject({ mode: 'owned', steps: [], blocked: 'no-network' });
  });

  test('drop-in: follows the network to its new name', () => {
    const dir = directory(['10-calico.conflist'], [], { kindnet: renderDropIn(section) });
    expect(summary(plan(dir, containerd21))).toMatchObject({
      steps: ['write k8s-pod-network/99-heddle.conf', 'remove kindnet/99-heddle.conf'],
    });
  });

  test('none takes everything out, also from lists that the runtime does not load', () => {
    const dir = directory(
      ['10-kindnet.conflist'],
      [
        file('10-calico.conflist', insertPlugin(read('10-calico.conflist'), section)),
        file('20-half.conflist', bytes('{"na')),
        file('05-heddle.conflist', bytes('half of our ow')),
      ],
      { kindnet: bytes('x') },
    );
    const result = plan(dir, containerd, 'none');
    expect(result.steps.map((step) => `${step.kind} ${step.path}`)).toEqual([
      'remove kindnet/99-heddle.conf',
      'write 10-calico.conflist',
      'remove 05-heddle.conflist',
    ]);
    expect((result.steps[1] as { bytes: Uint8Array }).bytes).toEqual(new Uint8Array(read('10-calico.conflist')));
  });

  test('a name of ours is needed that sorts before theirs', () => {
    const dir = directory([], [file('!first.conf', read('10-mynet.conf'))]);
    expect(summary(plan(dir, containerd))).toMatchObject({ steps: [], blocked: 'bad-mode' });
  });
});
