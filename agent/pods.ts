// The pods of this node and the namespaces, as the resource source tells them. A cache with change events; it decides
// nothing. A pod that the runtime starts may be here a moment later than the runtime asks: it can be waited for.

import type { Kind, KubeObject, Namespace, Pod } from '#kube/resources.ts';
import type { ObjectKey, ResourceSink } from '#kube/source.ts';
import type { Clock } from '#lib/clock.ts';

/** How a pod is named by who asks; an empty `uid` matches any. */
export interface PodReference {
  namespace: string;
  name: string;
  uid: string;
}

export interface PodCacheListener {
  /** The pod is new, changed or gone. */
  podChanged(reference: PodReference): void;
  namespaceChanged(name: string): void;
}

/** Kinds the agent asks its source for. */
export const POD_CACHE_KINDS: readonly Kind[] = ['Namespace', 'Pod'];

export class PodCache implements ResourceSink {
  readonly #nodeName: string;
  readonly #clock: Clock;
  listener: PodCacheListener = { podChanged: () => {}, namespaceChanged: () => {} };
  #pods = new Map<string, Pod>();
  #namespaces = new Map<string, Namespace>();
  readonly #synced = new Set<Kind>();
  readonly #waiters = new Set<() => void>();

  constructor(options: { nodeName: string; clock: Clock }) {
    this.#nodeName = options.nodeName;
    this.#clock = options.clock;
  }

  /** True once pods and namespaces were listed. */
  get hasSynced(): boolean {
    return POD_CACHE_KINDS.every((kind) => this.#synced.has(kind));
  }

  pods(): Pod[] {
    return [...this.#pods.values()];
  }

  namespaces(): Namespace[] {
    return [...this.#namespaces.values()];
  }

  namespace(name: string): Namespace | undefined {
    return this.#namespaces.get(name);
  }

  /** The pod, unless another one has its name by now. */
  find(reference: PodReference): Pod | undefined {
    const pod = this.#pods.get(keyOf(reference));
    return pod && (reference.uid === '' || pod.metadata.uid === reference.uid) ? pod : undefined;
  }

  /** The reference with its UID, where the runtime did not tell it (containerd before 1.6) and the pod is known. */
  complete(reference: PodReference): PodReference {
    return reference.uid === '' ? { ...reference, uid: this.find(reference)?.metadata.uid ?? '' } : reference;
  }

  /** The pod as soon as it is known; undefined after `timeoutMs` or when aborted. */
  async waitFor(reference: PodReference, timeoutMs: number, signal?: AbortSignal): Promise<Pod | undefined> {
    const isKnown = (): boolean => this.find(reference) !== undefined;
    await this.#until(() => isKnown(), timeoutMs, signal);
    return this.find(reference);
  }

  /** True when the first listing is complete; waits for it up to `timeoutMs`. */
  async waitForSync(timeoutMs: number, signal?: AbortSignal): Promise<boolean> {
    await this.#until(() => this.hasSynced, timeoutMs, signal);
    return this.hasSynced;
  }

  reset(kind: Kind, objects: readonly KubeObject[]): void {
    this.#synced.add(kind);
    if (kind === 'Pod') {
      const next = new Map<string, Pod>();
      for (const pod of objects as Pod[]) if (this.#isHere(pod)) next.set(keyOf(pod.metadata), pod);
      const before = this.#pods;
      this.#pods = next;
      for (const [key, pod] of before) if (!next.has(key)) this.#podChanged(pod);
      for (const pod of next.values()) this.#podChanged(pod);
    } else if (kind === 'Namespace') {
      const before = this.#namespaces;
      this.#namespaces = new Map(objects.map((object) => [object.metadata.name, object as Namespace]));
      for (const name of new Set([...before.keys(), ...this.#namespaces.keys()])) this.listener.namespaceChanged(name);
    }
    this.#wake();
  }

  apply(kind: Kind, object: KubeObject): void {
    if (kind === 'Pod') {
      const pod = object as Pod;
      if (!this.#isHere(pod)) return;
      this.#pods.set(keyOf(pod.metadata), pod);
      this.#podChanged(pod);
    } else if (kind === 'Namespace') {
      this.#namespaces.set(object.metadata.name, object as Namespace);
      this.listener.namespaceChanged(object.metadata.name);
    }
    this.#wake();
  }

  delete(kind: Kind, key: ObjectKey): void {
    if (kind === 'Pod') {
      const pod = this.#pods.get(keyOf(key));
      if (pod && this.#pods.delete(keyOf(key))) this.#podChanged(pod);
    } else if (kind === 'Namespace' && this.#namespaces.delete(key.name)) {
      this.listener.namespaceChanged(key.name);
    }
  }

  /** A pod without a node may be about to start here: the runtime's question decides. */
  #isHere(pod: Pod): boolean {
    return pod.spec.nodeName === undefined || pod.spec.nodeName === '' || pod.spec.nodeName === this.#nodeName;
  }

  #podChanged({ metadata: { namespace = '', name, uid = '' } }: Pod): void {
    this.listener.podChanged({ namespace, name, uid });
  }

  #until(isDone: () => boolean, timeoutMs: number, signal?: AbortSignal): Promise<void> {
    if (isDone() || signal?.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const finish = (): void => {
        timer.cancel();
        this.#waiters.delete(check);
        signal?.removeEventListener('abort', finish);
        resolve();
      };
      const check = (): void => {
        if (isDone()) finish();
      };
      const timer = this.#clock.after(timeoutMs, finish);
      this.#waiters.add(check);
      signal?.addEventListener('abort', finish, { once: true });
    });
  }

  #wake(): void {
    for (const check of [...this.#waiters]) check();
  }
}

function keyOf({ namespace = '', name }: { namespace?: string; name: string }): string {
  return `${namespace}/${name}`;
}
