// Pods by UID: all that the identity service knows of the cluster. An index as the others: fed by a source, asked by
// the authorizer, without clock or network.

import type { Kind, KubeObject, Pod } from '#kube/resources.ts';
import type { ObjectKey, ResourceSink } from '#kube/source.ts';

/** What the authorizer asks of a pod. */
export interface PodFacts {
  uid: string;
  namespace: string;
  name: string;
  serviceAccount: string;
  node: string;
  isHostNetwork: boolean;
  /** False once every container has ended for good. */
  isLive: boolean;
}

export class PodIndex implements ResourceSink {
  readonly #byUid = new Map<string, PodFacts>();
  /** A pod that was deleted and made again under its name has another UID. */
  readonly #uidByKey = new Map<string, string>();

  get size(): number {
    return this.#byUid.size;
  }

  get(uid: string): PodFacts | undefined {
    return this.#byUid.get(uid);
  }

  reset(kind: Kind, objects: readonly KubeObject[]): void {
    if (kind !== 'Pod') return;
    this.#byUid.clear();
    this.#uidByKey.clear();
    for (const object of objects) this.apply(kind, object);
  }

  apply(kind: Kind, object: KubeObject): void {
    if (kind !== 'Pod') return;
    const pod = object as Pod;
    const key = keyOf({ namespace: pod.metadata.namespace ?? '', name: pod.metadata.name });
    this.#forget(key);
    const uid = pod.metadata.uid;
    // Before it runs a pod of a directory has no UID, and nobody can ask for it.
    if (!uid) return;
    this.#uidByKey.set(key, uid);
    this.#byUid.set(uid, {
      uid,
      namespace: pod.metadata.namespace ?? '',
      name: pod.metadata.name,
      serviceAccount: pod.spec.serviceAccountName || 'default',
      node: pod.spec.nodeName ?? '',
      isHostNetwork: pod.spec.hostNetwork === true,
      isLive: pod.status?.phase !== 'Succeeded' && pod.status?.phase !== 'Failed',
    });
  }

  delete(kind: Kind, key: ObjectKey): void {
    if (kind === 'Pod') this.#forget(keyOf(key));
  }

  #forget(key: string): void {
    const uid = this.#uidByKey.get(key);
    if (uid === undefined) return;
    this.#uidByKey.delete(key);
    this.#byUid.delete(uid);
  }
}

function keyOf({ namespace, name }: ObjectKey): string {
  return `${namespace}/${name}`;
}
