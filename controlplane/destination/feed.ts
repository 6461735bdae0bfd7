// From the source to the indexes: changes that arrive together are told to subscribers together.

import type { Kind, KubeObject } from '#kube/resources.ts';
import type { ObjectKey, ResourceSink } from '#kube/source.ts';
import type { Cluster } from '../index/cluster.ts';

export class Feed implements ResourceSink {
  readonly #cluster: Cluster;
  #isScheduled = false;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  reset(kind: Kind, objects: readonly KubeObject[]): void {
    this.#cluster.reset(kind, objects);
    this.#schedule();
  }

  apply(kind: Kind, object: KubeObject): void {
    this.#cluster.apply(kind, object);
    this.#schedule();
  }

  delete(kind: Kind, key: ObjectKey): void {
    this.#cluster.delete(kind, key);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled || !this.#cluster.isDirty) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#cluster.flush();
    });
  }
}
