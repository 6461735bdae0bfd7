// Where resources come from, behind one interface: the Kubernetes API and a directory of manifests both implement it,
// and the indexes never learn which one feeds them.

import type { Kind, KubeObject } from './resources.ts';

/** Identifies an object of a kind; `namespace` is empty for cluster-scoped kinds. */
export interface ObjectKey {
  namespace: string;
  name: string;
}

/** Receives what a source sees, in order. Calls are synchronous and must not throw for bad objects: those are logged. */
export interface ResourceSink {
  /** The whole set of a kind, after the first list and after every relist: what is not in it is gone. */
  reset(kind: Kind, objects: readonly KubeObject[]): void;
  /** A new or changed object. */
  apply(kind: Kind, object: KubeObject): void;
  delete(kind: Kind, key: ObjectKey): void;
}

/** A fault of an object as the source found it. */
export interface SourceProblem {
  /** `Kind namespace/name`, as far as it can be read. */
  object: string | null;
  field: string | null;
  message: string;
  /** `error`: something does not work as written. `warning`: something is not used. */
  severity: 'error' | 'warning';
}

export interface ResourceSource {
  /** What is wrong now. */
  problems(): readonly SourceProblem[];
  /**
   * Feeds `sink` with the given kinds until `signal` aborts. Resolves when every kind was `reset` once; a kind that
   * the source does not know is reset to the empty set. Later trouble is retried with back-off and logged, never
   * thrown: the sink keeps the last state.
   */
  start(kinds: readonly Kind[], sink: ResourceSink, signal: AbortSignal): Promise<void>;
}
