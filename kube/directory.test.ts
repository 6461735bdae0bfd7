import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createLog } from '#lib/log.ts';
import { mkPod, mkService } from '../test/support/resources.ts';
import { DirectorySource } from './directory.ts';
import { formatProblem } from './manifest.ts';
import { KINDS, type Kind, type KubeObject, type Pod } from './resources.ts';
import type { ResourceSink } from './source.ts';
import { PodStatusWriter } from './status.ts';

// Changes that no event tells of are found by the rescan, which takes seconds.
vi.setConfig({ testTimeout: 20_000 });

let root: string;
let abort: AbortController;
let lines: string[];
beforeEach(() => {
  root = mkdtempSync(path.join(os.tmpdir(), 'heddle-directory-'));
  abort = new AbortController();
  lines = [];
});
afterEach(() => {
  abort.abort();
  rmSync(root, { recursive: true, force: true });
});

/** Keeps what a source says, and the calls it made after the first reset. */
class Mirror implements ResourceSink {
  readonly objects = new Map<string, KubeObject>();
  readonly calls: string[] = [];

  reset(kind: Kind, objects: readonly KubeObject[]): void {
    for (const object of objects) this.objects.set(keyOf(kind, object.metadata), object);
    this.calls.push(`reset ${kind} ${objects.length}`);
  }

  apply(kind: Kind, object: KubeObject): void {
    this.objects.set(keyOf(kind, object.metadata), object);
    this.calls.push(`apply ${keyOf(kind, object.metadata)}`);
  }

  delete(kind: Kind, key: { namespace: string; name: string }): void {
    this.objects.delete(keyOf(kind, key));
    this.calls.push(`delete ${keyOf(kind, key)}`);
  }

  names(kind: Kind): string[] {
    return [...this.objects.values()].filter((object) => object.kind === kind).map(({ metadata }) => metadata.name);
  }
}

function keyOf(kind: Kind, { namespace, name }: { namespace?: string; name: string }): string {
  return `${kind} ${namespace ?? ''}/${name}`;
}

const write = (file: string, ...objects: unknown[]) => {
  const target = path.join(root, file);
  mkdirSync(path.dirname(target), { recursive: true });
  writeFileSync(
    target,
    objects.map((object) => (typeof object === 'string' ? object : JSON.stringify(object))).join('\n---\n'),
  );
};

async function open(kinds: readonly Kind[] = KINDS): Promise<{ source: DirectorySource; mirror: Mirror }> {
  const { log } = createLog({ sink: { write: (line) => lines.push(line) } });
  const source = new DirectorySource({ directory: root, log });
  const mirror = new Mirror();
  await source.start(kinds, mirror, abort.signal);
  return { source, mirror };
}

const poll = <T>(read: () => T) => expect.poll(read, { timeout: 15_000, interval: 10 });

describe('at the start', () => {
  test('every kind is reset once, also those without objects', async () => {
    write('deep/er/web.yaml', mkService('web'), mkPod('a'));
    write('.hidden.yaml', mkPod('hidden'));
    write('notes.txt', 'not a manifest');
    const { mirror } = await open(['Pod', 'Service', 'Server']);
    expect(mirror.calls).toEqual(['reset Pod 1', 'reset Service 1', 'reset Server 0']);
    expect(mirror.names('Pod')).toEqual(['a']);
  });

  test('a directory that is not there is a problem and found later', async () => {
    rmSync(root, { recursive: true });
    const { source, mirror } = await open();
    expect(source.problems().map(formatProblem)).toEqual([
      expect.stringMatching(/^\.: read the directory ".*": ENOENT/),
    ]);
    write('a.yaml', mkPod('a'));
    await poll(() => mirror.names('Pod')).toEqual(['a']);
    expect(source.problems()).toEqual([]);
  });
});

describe('changes', () => {
  test('arrive as the difference', async () => {
    write('a.yaml', mkPod('a', { ips: [] }), mkPod('b', { ips: [] }));
    write('other.yaml', mkPod('c', { ips: [] }));
    const { mirror } = await open(['Pod']);
    mirror.calls.length = 0;
    write('a.yaml', mkPod('a', { ips: [] }), mkPod('d', { ips: [], labels: { x: 'y' } }));
    await poll(() => mirror.names('Pod').sort()).toEqual(['a', 'c', 'd']);
    expect(mirror.calls).toEqual(['delete Pod default/b', 'apply Pod default/d']);
  });

  test('by rename, in new sub-directories, by removal, through a symlink', async () => {
    const { mirror } = await open(['Pod']);
    write('.tmp', mkPod('renamed'));
    renameSync(path.join(root, '.tmp'), path.join(root, 'a.yaml'));
    await poll(() => mirror.names('Pod')).toEqual(['renamed']);
    write('one/two/b.json', mkPod('deep', { ips: ['10.1.0.2'] }));
    await poll(() => mirror.names('Pod').sort()).toEqual(['deep', 'renamed']);
    rmSync(path.join(root, 'one'), { recursive: true });
    await poll(() => mirror.names('Pod')).toEqual(['renamed']);
    write('one/two/b.json', mkPod('again', { ips: ['10.1.0.3'] }));
    await poll(() => mirror.names('Pod').sort()).toEqual(['again', 'renamed']);
    symlinkSync(path.join(root, 'one/two/b.json'), path.join(root, 'z.json'));
    rmSync(path.join(root, 'a.yaml'));
    await poll(() => mirror.names('Pod')).toEqual(['again']);
  });

  test('of the same size within the same moment are not missed', async () => {
    write('a.yaml', mkPod('a0'));
    const { mirror } = await open(['Pod']);
    for (let round = 1; round < 10; round++) write('a.yaml', mkPod(`a${round}`));
    await poll(() => mirror.names('Pod')).toEqual(['a9']);
  });

  test('a file that is being written is left as it was until it is whole', async () => {
    write('a.yaml', mkPod('a'), mkPod('b', { ips: ['10.1.0.2'] }));
    const { mirror } = await open(['Pod']);
    mirror.calls.length = 0;
    const file = openSync(path.join(root, 'a.yaml'), 'w');
    // A prefix that would be sound by itself; every event of the writer comes before the file is whole.
    for (const part of ['', JSON.stringify(mkPod('a')), '\n---\n', JSON.stringify(mkPod('c', { ips: ['10.1.0.3'] }))]) {
      writeSync(file, part);
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    closeSync(file);
    await poll(() => mirror.names('Pod').sort()).toEqual(['a', 'c']);
    expect(mirror.calls).toEqual(['delete Pod default/b', 'apply Pod default/c']);
  });

  test('nothing is said twice', async () => {
    write('a.yaml', mkPod('a'));
    const { mirror } = await open(['Pod']);
    mirror.calls.length = 0;
    write('a.yaml', mkPod('a'));
    write('b.yaml', mkPod('b', { ips: ['10.1.0.2'] }));
    await poll(() => mirror.names('Pod').length).toBe(2);
    expect(mirror.calls).toEqual(['apply Pod default/b']);
  });

  test('end when the subscription ends', async () => {
    const { mirror } = await open(['Pod']);
    const second = new AbortController();
    const { source } = { source: new DirectorySource({ directory: root, log: createLog().log }) };
    const other = new Mirror();
    await source.start(['Pod'], other, second.signal);
    second.abort();
    write('a.yaml', mkPod('a'));
    await poll(() => mirror.names('Pod')).toEqual(['a']);
    expect(other.names('Pod')).toEqual([]);
  });
});

describe('reports of a runner', () => {
  test('make endpoints out of pods, and leave with them', async () => {
    write('a.yaml', mkService('web'), mkPod('a', { ips: [], ready: false, labels: { app: 'web' } }));
    const { source, mirror } = await open();
    expect(mirror.names('EndpointSlice')).toEqual([]);
    const writer = new PodStatusWriter(root);
    const key = { namespace: 'default', name: 'a' };
    const status = {
      phase: 'Running',
      podIPs: [{ ip: '10.1.0.9' }],
      conditions: [{ type: 'Ready', status: 'True' }],
    } as const;
    await writer.write(key, { uid: 'u', nodeName: 'n', status: status as never });
    await poll(() => mirror.names('EndpointSlice').length).toBe(1);
    expect((mirror.objects.get('Pod default/a') as Pod).metadata.uid).toBe('u');
    await writer.remove(key);
    await poll(() => mirror.names('EndpointSlice')).toEqual([]);
    expect(source.problems()).toEqual([]);
  });

  test('that are garbage are problems, and the last good one stays', async () => {
    write('a.yaml', mkPod('a', { ips: [] }));
    await new PodStatusWriter(root).write({ namespace: 'default', name: 'a' }, { status: { phase: 'Running' } });
    const { source, mirror } = await open();
    write(
      'status/default/a.json',
      '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"status":{"podIPs":[{"ip":"x"}]}}',
    );
    await poll(() => source.problems().map(formatProblem)).toEqual([
      'status/default/a.json document 1, status.podIPs[0].ip: read "x": expected an IP address',
    ]);
    expect((mirror.objects.get('Pod default/a') as Pod).status?.phase).toBe('Running');
  });
});

describe('bad manifests', () => {
  test('keep their last good version, are reported once, and everything else goes on', async () => {
    write('bad.yaml', mkService('web'));
    write('good.yaml', mkPod('a'));
    const { source, mirror } = await open();
    write('bad.yaml', 'kind: [');
    await poll(() => source.problems().length).toBe(1);
    expect(source.problems()[0]).toMatchObject({ file: 'bad.yaml', document: 1, severity: 'error' });
    write('good.yaml', mkPod('b'));
    await poll(() => mirror.names('Pod')).toEqual(['b']);
    expect(mirror.names('Service')).toEqual(['web']);
    expect(lines.filter((line) => line.includes('"level":"error"'))).toHaveLength(1);

    write('bad.yaml', mkService('web2'));
    await poll(() => mirror.names('Service')).toEqual(['web2']);
    expect(source.problems()).toEqual([]);
    expect(lines.filter((line) => line.includes('manifest: solved: bad.yaml'))).toHaveLength(1);
  });

  test('that were never good give what is sound in them', async () => {
    write('a.yaml', mkPod('a'), { ...mkService('web'), spec: { ports: [{ port: -1 }] } });
    const { source, mirror } = await open();
    expect(mirror.names('Pod')).toEqual(['a']);
    expect(source.problems().map(formatProblem)).toEqual([
      'a.yaml document 2, Service default/web, spec.ports[0].port: read "-1": expected a port from 1 to 65535',
    ]);
  });

  test('a duplicate pod address is found and its end as well', async () => {
    write('a.yaml', mkPod('a'), mkPod('b'));
    const { source } = await open();
    expect(source.problems().map(formatProblem)).toEqual([
      'a.yaml document 2, Pod default/b, status.podIPs: read "10.1.0.1": Pod default/a has this address too',
    ]);
    write('a.yaml', mkPod('a'), mkPod('b', { ips: ['10.1.0.2'] }));
    await poll(() => source.problems()).toEqual([]);
  });

  test('a file beyond the bound is refused', async () => {
    write('big.yaml', `# ${'x'.repeat(4 * 1024 * 1024)}`);
    const { source } = await open();
    expect(source.problems().map(formatProblem)).toEqual([
      expect.stringMatching(/^big\.yaml: read \d+ bytes: expected at most/),
    ]);
  });
});
