// The dynamic table of RFC 7541 sections 2.3.2 and 4: newest entry first, evicted from the end, measured in octets.

/** What an entry costs beside its name and value (section 4.1). */
export const ENTRY_OVERHEAD_BYTES = 32;

export class DynamicTable {
  /** A ring: entry i from the newest is at `(newest - i) & mask`. */
  #names: string[];
  #values: string[];
  #newest = -1;
  #length = 0;
  #sizeBytes = 0;
  #maxBytes: number;
  /** Counts insertions; the entry inserted as number n has index `inserted - n`. */
  inserted = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
    this.#names = new Array<string>(64).fill('');
    this.#values = new Array<string>(64).fill('');
  }

  get length(): number {
    return this.#length;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get maxBytes(): number {
    return this.#maxBytes;
  }

  /** Section 4.3: entries are evicted until the table fits. */
  setMaxBytes(maxBytes: number): void {
    this.#maxBytes = maxBytes;
    this.#evictTo(maxBytes);
  }

  /** `index` counts from the newest, 0; the caller has checked it against `length`. */
  name(index: number): string {
    return this.#names[(this.#newest - index) & (this.#names.length - 1)]!;
  }

  value(index: number): string {
    return this.#values[(this.#newest - index) & (this.#values.length - 1)]!;
  }

  /** Section 4.4: an entry larger than the table empties it and is not added. Returns whether it was added. */
  add(name: string, value: string): boolean {
    const bytes = name.length + value.length + ENTRY_OVERHEAD_BYTES;
    this.#evictTo(this.#maxBytes - bytes);
    if (bytes > this.#maxBytes) return false;
    if (this.#length === this.#names.length) this.#grow();
    this.#newest = (this.#newest + 1) & (this.#names.length - 1);
    this.#names[this.#newest] = name;
    this.#values[this.#newest] = value;
    this.#length++;
    this.#sizeBytes += bytes;
    this.inserted++;
    return true;
  }

  #evictTo(bytes: number): void {
    while (this.#length > 0 && this.#sizeBytes > bytes) {
      const oldest = (this.#newest - this.#length + 1) & (this.#names.length - 1);
      this.#sizeBytes -= this.#names[oldest]!.length + this.#values[oldest]!.length + ENTRY_OVERHEAD_BYTES;
      this.#names[oldest] = '';
      this.#values[oldest] = '';
      this.#length--;
    }
  }

  /** The ring's length stays a power of two; its bound follows from maxBytes / 32. */
  #grow(): void {
    const names: string[] = [];
    const values: string[] = [];
    for (let index = this.#length - 1; index >= 0; index--) {
      names.push(this.name(index));
      values.push(this.value(index));
    }
    const size = this.#names.length * 2;
    this.#names = [...names, ...new Array<string>(size - names.length).fill('')];
    this.#values = [...values, ...new Array<string>(size - values.length).fill('')];
    this.#newest = this.#length - 1;
  }
}
