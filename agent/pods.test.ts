import { describe, expect, test } from 'vitest';
import type { Namespace, Pod } from '#kube/resources.ts';
import { FakeClock } from '#lib/clock.ts';
import { PodCache, type PodReference } from './pods.ts';

function mkPod(name: string, options: { uid?: string; node?: string } = {}): Pod {
  const { uid = `uid-${name}`, node = 'n1' } = options;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { namespace: 'shop', name, uid },
    spec: { nodeName: node, containers: [] },
  };
}
const namespace: Namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } };
const named = (name: string, uid = ''): PodReference => ({ namespace: 'shop', name, uid });

function setUp() {
  const clock = new FakeClock();
  const cache = new PodCache({ nodeName: 'n1', clock });
  const heard: string[] = [];
  cache.listener = {
    podChanged: ({ name, uid }) => heard.push(`pod ${name} ${uid}`),
    namespaceChanged: (name) => heard.push(`namespace ${name}`),
  };
  return { clock, cache, heard };
}

describe('pod cache', () => {
  test('knows the pods of its node, and those that have none yet', () => {
    const { cache } = setUp();
    cache.apply('Pod', mkPod('here'));
    cache.apply('Pod', mkPod('there', { node: 'n2' }));
    cache.apply('Pod', mkPod('unbound', { node: '' }));
    expect(cache.pods().map(({ metadata }) => metadata.name)).toEqual(['here', 'unbound']);
  });

  test('a pod under the same name is another pod', () => {
    const { cache } = setUp();
    cache.apply('Pod', mkPod('web', { uid: 'old' }));
    expect(cache.find(named('web', 'new'))).toBeUndefined();
    expect(cache.find(named('web'))?.metadata.uid).toBe('old');
  });

  test('tells what changed, and what is missing after a new list', () => {
    const { cache, heard } = setUp();
    expect(cache.hasSynced).toBe(false);
    cache.reset('Pod', [mkPod('a'), mkPod('b')]);
    cache.reset('Namespace', [namespace]);
    expect(cache.hasSynced).toBe(true);
    cache.reset('Pod', [mkPod('b')]);
    cache.delete('Pod', { namespace: 'shop', name: 'b' });
    cache.delete('Pod', { namespace: 'shop', name: 'b' });
    cache.delete('Namespace', { namespace: '', name: 'shop' });
    expect(heard).toEqual([
      'pod a uid-a',
      'pod b uid-b',
      'namespace shop',
      'pod a uid-a',
      'pod b uid-b',
      'pod b uid-b',
      'namespace shop',
    ]);
    expect(cache.find(named('a'))).toBeUndefined();
  });

  test('waits for a pod, but not for ever', async () => {
    const { cache, clock } = setUp();
    const found = cache.waitFor(named('late', 'u2'), 3_000);
    cache.apply('Pod', mkPod('late', { uid: 'u1' }));
    cache.apply('Pod', mkPod('late', { uid: 'u2' }));
    expect((await found)?.metadata.uid).toBe('u2');

    const never = cache.waitFor(named('never'), 3_000);
    clock.advance(3_000);
    expect(await never).toBeUndefined();

    const abort = new AbortController();
    const given = cache.waitFor(named('never'), 3_000, abort.signal);
    abort.abort();
    expect(await given).toBeUndefined();

    const synced = cache.waitForSync(1_000);
    cache.reset('Pod', []);
    cache.reset('Namespace', []);
    expect(await synced).toBe(true);
  });
});
