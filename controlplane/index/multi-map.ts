// Several values under one key, without empty sets left behind. The same value may be added more than once and is there
// until it was removed as often: two endpoints of a slice can point to one pod.

const NOTHING: Iterable<string> = [];

export class MultiMap {
  readonly #counts = new Map<string, Map<string, number>>();

  /** Adds or removes one mention of a value. */
  change(key: string, value: string, isAdded: boolean): void {
    const counts = this.#counts.get(key);
    const count = (counts?.get(value) ?? 0) + (isAdded ? 1 : -1);
    if (!counts) {
      if (count > 0) this.#counts.set(key, new Map([[value, count]]));
    } else if (count > 0) {
      counts.set(value, count);
    } else {
      counts.delete(value);
      if (counts.size === 0) this.#counts.delete(key);
    }
  }

  get(key: string): Iterable<string> {
    return this.#counts.get(key)?.keys() ?? NOTHING;
  }

  get size(): number {
    return this.#counts.size;
  }
}
