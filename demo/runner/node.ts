// The pods of this node: every Pod of the source that is bound here or nowhere is run, and stopped when it is gone. A
// pod whose specification changed is another pod.

import { isDeepStrictEqual } from 'node:util';
import type { Kind, KubeObject, Pod } from '#kube/resources.ts';
import type { ObjectKey, ResourceSink } from '#kube/source.ts';
import { type PodEnvironment, PodRunner } from './pod.ts';

/** Pods at once; more are not started and said. */
export const PODS_MAX = 200;

export class NodeRunner implements ResourceSink {
  readonly #environment: PodEnvironment;
  readonly #pods = new Map<string, PodRunner>();
  /** Ends under way, by key: the next pod of that name waits for it. */
  readonly #stopping = new Map<string, Promise<void>>();
  #isClosed = false;

  constructor(environment: PodEnvironment) {
    this.#environment = environment;
  }

  get pods(): PodRunner[] {
    return [...this.#pods.values()];
  }

  reset(kind: Kind, objects: readonly KubeObject[]): void {
    if (kind !== 'Pod') return;
    const wanted = new Set((objects as Pod[]).map(({ metadata }) => keyOf(metadata)));
    for (const key of this.#pods.keys()) if (!wanted.has(key)) this.#stop(key);
    for (const object of objects) this.apply(kind, object);
  }

  apply(kind: Kind, object: KubeObject): void {
    if (kind !== 'Pod' || this.#isClosed) return;
    const pod = object as Pod;
    if (pod.spec.nodeName !== undefined && pod.spec.nodeName !== this.#environment.nodeName) return;
    const key = keyOf(pod.metadata);
    const known = this.#pods.get(key);
    if (known && isSame(known.pod, pod)) return;
    if (known) this.#stop(key);
    if (this.#pods.size >= PODS_MAX) {
      this.#environment.log.error('pod is not started: too many', { pod: key, maximum: PODS_MAX });
      return;
    }
    const runner = new PodRunner(pod, this.#environment);
    this.#pods.set(key, runner);
    const before = this.#stopping.get(key) ?? Promise.resolve();
    void before.then(() => {
      if (this.#pods.get(key) === runner) runner.start();
    });
  }

  delete(kind: Kind, key: ObjectKey): void {
    if (kind === 'Pod') this.#stop(keyOf(key));
  }

  /** Stops every pod. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const key of [...this.#pods.keys()]) this.#stop(key);
    await Promise.all(this.#stopping.values());
  }

  #stop(key: string): void {
    const runner = this.#pods.get(key);
    if (!runner) return;
    this.#pods.delete(key);
    const before = this.#stopping.get(key) ?? Promise.resolve();
    const ended = before
      .then(() => runner.stop())
      .catch((error: unknown) => this.#environment.log.error('pod was not stopped', { pod: key, error }))
      .finally(() => {
        if (this.#stopping.get(key) === ended) this.#stopping.delete(key);
      });
    this.#stopping.set(key, ended);
  }
}

function keyOf({ namespace = 'default', name }: { namespace?: string; name: string }): string {
  return `${namespace}/${name}`;
}

/** Status, binding and what others write beside the specification make no other pod. */
function isSame(a: Pod, b: Pod): boolean {
  const essence = ({ metadata, spec }: Pod): unknown => ({
    uid: metadata.uid,
    annotations: metadata.annotations,
    labels: metadata.labels,
    containers: spec.containers,
    initContainers: spec.initContainers,
    serviceAccountName: spec.serviceAccountName,
  });
  return isDeepStrictEqual(essence(a), essence(b));
}
