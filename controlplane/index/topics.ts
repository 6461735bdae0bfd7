// Questions that are asked again whenever something they depend on changes. A topic is a target with its present answer;
// computing the answer names the tags it depends on. Subscribers hear only of answers that differ.

import { isDeepStrictEqual } from 'node:util';

export interface Subscription<Snapshot> {
  /** The answer as it is now. */
  readonly current: Snapshot;
  /** Idempotent; the listener is not called afterwards. */
  close(): void;
}

export interface TopicsOptions<Target, Snapshot> {
  /** Answers the question; `depend` for everything whose change can change the answer. */
  compute(target: Target, depend: (tag: string) => void): Snapshot;
  /** Equal for targets that are the same question. */
  keyOf(target: Target): string;
}

/** `version` counts the different answers of a topic. */
export type Listener<Snapshot> = (snapshot: Snapshot, version: number) => void;

interface Topic<Target, Snapshot> {
  key: string;
  target: Target;
  snapshot: Snapshot;
  /** Counts different answers, from 1. */
  version: number;
  tags: Set<string>;
  listeners: Set<Listener<Snapshot>>;
}

export class Topics<Target, Snapshot> {
  readonly #options: TopicsOptions<Target, Snapshot>;
  readonly #topics = new Map<string, Topic<Target, Snapshot>>();
  readonly #byTag = new Map<string, Set<Topic<Target, Snapshot>>>();

  constructor(options: TopicsOptions<Target, Snapshot>) {
    this.#options = options;
  }

  /** Topics that somebody subscribes to. */
  get size(): number {
    return this.#topics.size;
  }

  /** The answer now, without a subscription. */
  get(target: Target): Snapshot {
    return this.#topics.get(this.#options.keyOf(target))?.snapshot ?? this.#options.compute(target, () => {});
  }

  /** `listener` is called from `refresh` with each new answer; the first one is `current`. */
  subscribe(target: Target, listener: Listener<Snapshot>): Subscription<Snapshot> {
    const key = this.#options.keyOf(target);
    const topic = this.#topics.get(key) ?? this.#open(key, target);
    // A function of its own, so that one listener can subscribe twice.
    const own: Listener<Snapshot> = (snapshot, version) => listener(snapshot, version);
    topic.listeners.add(own);
    return {
      get current() {
        return topic.snapshot;
      },
      close: () => {
        if (topic.listeners.delete(own) && topic.listeners.size === 0) this.#close(topic);
      },
    };
  }

  /** Answers again what depends on one of the tags, and tells who subscribed. */
  refresh(tags: Iterable<string>): void {
    const stale = new Set<Topic<Target, Snapshot>>();
    for (const tag of tags) for (const topic of this.#byTag.get(tag) ?? []) stale.add(topic);
    for (const topic of stale) {
      const snapshot = this.#compute(topic);
      if (isDeepStrictEqual(snapshot, topic.snapshot)) continue;
      topic.snapshot = snapshot;
      topic.version++;
      for (const listener of [...topic.listeners]) listener(snapshot, topic.version);
    }
  }

  #open(key: string, target: Target): Topic<Target, Snapshot> {
    const topic: Topic<Target, Snapshot> = {
      key,
      target,
      snapshot: undefined as Snapshot,
      version: 1,
      tags: new Set(),
      listeners: new Set(),
    };
    topic.snapshot = this.#compute(topic);
    this.#topics.set(key, topic);
    return topic;
  }

  #compute(topic: Topic<Target, Snapshot>): Snapshot {
    const tags = new Set<string>();
    const snapshot = this.#options.compute(topic.target, (tag) => void tags.add(tag));
    for (const tag of topic.tags) if (!tags.has(tag)) this.#untag(tag, topic);
    for (const tag of tags) {
      if (topic.tags.has(tag)) continue;
      const tagged = this.#byTag.get(tag);
      if (tagged) tagged.add(topic);
      else this.#byTag.set(tag, new Set([topic]));
    }
    topic.tags = tags;
    return snapshot;
  }

  #untag(tag: string, topic: Topic<Target, Snapshot>): void {
    const tagged = this.#byTag.get(tag);
    tagged?.delete(topic);
    if (tagged?.size === 0) this.#byTag.delete(tag);
  }

  #close(topic: Topic<Target, Snapshot>): void {
    this.#topics.delete(topic.key);
    for (const tag of topic.tags) this.#untag(tag, topic);
  }
}
