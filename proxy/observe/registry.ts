// Numbers behind the metrics: one Float64Array for all series of the worker. A handle is made once for a label set and
// costs an index and an addition on the hot path; text is made only when somebody scrapes. Series that nothing touched
// for a while are dropped and come back from zero when their handle is used again. Their number is bounded: what
// comes above the bound is counted in one overflow series of the family.

export type FamilyKind = 'counter' | 'gauge' | 'histogram';

export interface FamilyDefinition {
  readonly name: string;
  readonly kind: FamilyKind;
  readonly help: string;
  /** Upper bounds in ascending order, without +Inf; histograms only. */
  readonly buckets?: readonly number[];
  /** Label names that no other family uses, and that pods may well have: they win over the pod's label here. */
  readonly ownLabels?: readonly string[];
}

export interface RegistryLimits {
  seriesMax: number;
  seriesPerFamilyMax: number;
  idleMs: number;
}

export const REGISTRY_LIMITS: RegistryLimits = { seriesMax: 5_000, seriesPerFamilyMax: 2_000, idleMs: 600_000 };

/** Labels of the series that stands for all those that did not fit. */
export const OVERFLOW_LABELS = 'overflow="true"';

const SLOTS_INITIAL = 1024;

/** Where the numbers of one series are. A dead cell's slots belong to somebody else. */
interface Cell {
  offset: number;
  isAlive: boolean;
  /** Never dropped: the series exists as long as the worker. */
  isPinned: boolean;
  /** What the sweep saw last, and when that was new. */
  seen: number;
  seenMs: number;
}

/** One family and its series, keyed by rendered labels. */
export class Family {
  readonly definition: FamilyDefinition;
  readonly cells = new Map<string, Cell>();
  /** Slots of one series. Histograms: a count for each bucket, the count above them, the sum. */
  readonly slots: number;

  constructor(definition: FamilyDefinition) {
    this.definition = definition;
    this.slots = definition.kind === 'histogram' ? (definition.buckets?.length ?? 0) + 2 : 1;
  }
}

/** A handle on one series. Valid for ever; creating it does not create the series, its first use does. */
export class Series {
  readonly #registry: Registry;
  readonly #family: Family;
  readonly #labels: string;
  #cell: Cell | null = null;

  constructor(registry: Registry, family: Family, labels: string) {
    this.#registry = registry;
    this.#family = family;
    this.#labels = labels;
  }

  /** Counters and gauges. */
  add(amount: number): void {
    const offset = this.#offset();
    this.#registry.values[offset] = this.#registry.values[offset]! + amount;
  }

  /** Gauges. */
  set(value: number): void {
    // The offset first: finding it may replace the array.
    const offset = this.#offset();
    this.#registry.values[offset] = value;
  }

  /** Histograms. */
  observe(value: number): void {
    const offset = this.#offset();
    const { values } = this.#registry;
    const buckets = this.#family.definition.buckets!;
    let index = 0;
    while (index < buckets.length && value > buckets[index]!) index++;
    values[offset + index] = values[offset + index]! + 1;
    const sum = offset + this.#family.slots - 1;
    values[sum] = values[sum]! + value;
  }

  /** Keeps the series for as long as the worker lives, idle or not. */
  pin(): this {
    this.#offset();
    this.#cell!.isPinned = true;
    return this;
  }

  #offset(): number {
    if (this.#cell === null || !this.#cell.isAlive) this.#cell = this.#registry.cell(this.#family, this.#labels);
    return this.#cell.offset;
  }
}

/** All series of the worker. */
export class Registry {
  /** Grows by replacement: never keep it. */
  values = new Float64Array(SLOTS_INITIAL);
  readonly #limits: RegistryLimits;
  readonly #families: readonly Family[];
  readonly #byName: ReadonlyMap<string, Family>;
  /** Offsets that can be used again, by number of slots. */
  readonly #free = new Map<number, number[]>();
  #slotsUsed = 0;
  #seriesCount = 0;
  #overflows = 0;

  constructor(definitions: readonly FamilyDefinition[], limits: RegistryLimits = REGISTRY_LIMITS) {
    this.#limits = limits;
    // One order in every worker, whatever its version: the agent merges the texts of many by family name.
    this.#families = [...definitions]
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map((definition) => new Family(definition));
    this.#byName = new Map(this.#families.map((family) => [family.definition.name, family]));
  }

  /** Sorted by name. */
  get families(): readonly Family[] {
    return this.#families;
  }

  get seriesCount(): number {
    return this.#seriesCount;
  }

  /** How many label sets went to an overflow series so far. */
  get overflows(): number {
    return this.#overflows;
  }

  /** A handle on the series of `family` with these rendered labels. Throws on a family that does not exist. */
  series(family: string, labels: string): Series {
    const found = this.#byName.get(family);
    if (!found) throw new Error(`metric family "${family}" is not defined`);
    return new Series(this, found, labels);
  }

  /** For {@link Series}: the living cell of a label set, or the family's overflow cell. */
  cell(family: Family, labels: string): Cell {
    const known = family.cells.get(labels);
    if (known) return known;
    const isFull = this.#seriesCount >= this.#limits.seriesMax || family.cells.size >= this.#limits.seriesPerFamilyMax;
    if (isFull && labels !== OVERFLOW_LABELS) {
      this.#overflows++;
      return this.cell(family, OVERFLOW_LABELS);
    }
    const cell: Cell = { offset: this.#allocate(family.slots), isAlive: true, isPinned: false, seen: -1, seenMs: 0 };
    family.cells.set(labels, cell);
    this.#seriesCount++;
    return cell;
  }

  /** Drops series that have not changed for the idle time. Call it every minute or so. */
  sweep(nowMs: number): void {
    for (const family of this.#families) {
      for (const [labels, cell] of family.cells) {
        const fingerprint = this.#fingerprint(family, cell);
        if (fingerprint !== cell.seen) {
          cell.seen = fingerprint;
          cell.seenMs = nowMs;
          continue;
        }
        // A gauge that is not zero says that something exists, however long it has been so.
        const isInUse = cell.isPinned || (family.definition.kind === 'gauge' && fingerprint !== 0);
        if (!isInUse && nowMs - cell.seenMs >= this.#limits.idleMs) this.#drop(family, labels, cell);
      }
    }
  }

  #drop(family: Family, labels: string, cell: Cell): void {
    cell.isAlive = false;
    family.cells.delete(labels);
    this.#seriesCount--;
    const free = this.#free.get(family.slots) ?? [];
    free.push(cell.offset);
    this.#free.set(family.slots, free);
  }

  /** Changes whenever the series is used: the value, or how many values a histogram has seen. */
  #fingerprint(family: Family, cell: Cell): number {
    if (family.slots === 1) return this.values[cell.offset]!;
    let count = 0;
    for (let index = 0; index < family.slots - 1; index++) count += this.values[cell.offset + index]!;
    return count;
  }

  #allocate(slots: number): number {
    const reused = this.#free.get(slots)?.pop();
    if (reused !== undefined) {
      this.values.fill(0, reused, reused + slots);
      return reused;
    }
    const offset = this.#slotsUsed;
    this.#slotsUsed += slots;
    if (this.#slotsUsed > this.values.length) {
      const grown = new Float64Array(Math.max(2 * this.values.length, this.#slotsUsed));
      grown.set(this.values);
      this.values = grown;
    }
    return offset;
  }
}
