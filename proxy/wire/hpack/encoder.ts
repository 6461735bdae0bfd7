// Writes header blocks, RFC 7541 section 6. One encoder belongs to one direction of a connection for all its life.
// Fields that repeat from request to request are indexed, so that a steady header set costs one octet a field.

import { DynamicTable, ENTRY_OVERHEAD_BYTES } from './dynamic-table.ts';
import { encodeHuffman, huffmanBytes } from './huffman.ts';
import { INTEGER_BYTES_MAX, writeInteger } from './integer.ts';
import { STATIC_TABLE } from './tables.ts';

/** Fields whose values differ each time: indexing them would only push others out of the table. */
const NOT_INDEXED = new Set([
  ':path',
  'content-length',
  'date',
  'etag',
  'age',
  'if-modified-since',
  'if-none-match',
  'location',
]);

const STATIC_NAMES = new Map<string, number>();
const STATIC_FIELDS = new Map<string, Map<string, number>>();
STATIC_TABLE.forEach(([name, value], at) => {
  if (!STATIC_NAMES.has(name)) STATIC_NAMES.set(name, at + 1);
  const values = STATIC_FIELDS.get(name) ?? new Map<string, number>();
  values.set(value, at + 1);
  STATIC_FIELDS.set(name, values);
});

export class HpackEncoder {
  readonly #table: DynamicTable;
  /** Our own bound, whatever the peer would allow. */
  readonly #boundBytes: number;
  /** Name to value to the insertion number of its newest entry; entries that were evicted stay until they are met. */
  #insertions = new Map<string, Map<string, number>>();
  #known = 0;
  #pendingMaxBytes: number | null = null;
  /** The smallest limit since the last block: it must be told too (section 4.2). */
  #smallestMaxBytes = Number.POSITIVE_INFINITY;

  constructor(boundBytes = 4096) {
    this.#boundBytes = boundBytes;
    this.#table = new DynamicTable(Math.min(4096, boundBytes));
  }

  /** The peer's SETTINGS_HEADER_TABLE_SIZE; told to it at the start of the next block. */
  setPeerLimit(limitBytes: number): void {
    const maxBytes = Math.min(limitBytes, this.#boundBytes);
    if (maxBytes === (this.#pendingMaxBytes ?? this.#table.maxBytes)) return;
    this.#pendingMaxBytes = maxBytes;
    this.#smallestMaxBytes = Math.min(this.#smallestMaxBytes, maxBytes);
  }

  /** The most octets that `field` can take, for the caller to make room. */
  static fieldBytesMax(name: string, value: string): number {
    return name.length + value.length + 3 * INTEGER_BYTES_MAX;
  }

  /** The most octets of `begin`. */
  static readonly beginBytesMax = 2 * INTEGER_BYTES_MAX;

  /** Starts a block: writes table size updates that are due. Returns the position behind them. */
  begin(out: Uint8Array, at: number): number {
    if (this.#pendingMaxBytes === null) return at;
    let end = at;
    if (this.#smallestMaxBytes < this.#pendingMaxBytes) {
      this.#table.setMaxBytes(this.#smallestMaxBytes);
      end = writeInteger(out, end, 0x20, 5, this.#smallestMaxBytes);
    }
    this.#table.setMaxBytes(this.#pendingMaxBytes);
    end = writeInteger(out, end, 0x20, 5, this.#pendingMaxBytes);
    this.#pendingMaxBytes = null;
    this.#smallestMaxBytes = Number.POSITIVE_INFINITY;
    return end;
  }

  /** Writes one field (name in lower case) at `at` and returns the position behind it. */
  field(out: Uint8Array, at: number, name: string, value: string, neverIndexed = false): number {
    if (neverIndexed) return this.#literal(out, at, 0x10, 4, name, value);
    const fixed = STATIC_FIELDS.get(name)?.get(value);
    if (fixed !== undefined) return writeInteger(out, at, 0x80, 7, fixed);
    const index = this.#dynamicIndex(name, value);
    if (index >= 0) return writeInteger(out, at, 0x80, 7, STATIC_TABLE.length + 1 + index);
    if (NOT_INDEXED.has(name) || name.length + value.length + ENTRY_OVERHEAD_BYTES > this.#table.maxBytes >> 1) {
      return this.#literal(out, at, 0, 4, name, value);
    }
    const end = this.#literal(out, at, 0x40, 6, name, value);
    this.#remember(name, value);
    return end;
  }

  #dynamicIndex(name: string, value: string): number {
    const values = this.#insertions.get(name);
    const inserted = values?.get(value);
    if (values === undefined || inserted === undefined) return -1;
    const index = this.#table.inserted - inserted;
    if (index < this.#table.length) return index;
    values.delete(value);
    this.#known--;
    if (values.size === 0) this.#insertions.delete(name);
    return -1;
  }

  #remember(name: string, value: string): void {
    if (!this.#table.add(name, value)) return;
    // Entries of the map outlive their eviction from the table; start over before they become many.
    if (this.#known > 4 * (this.#table.length + 64)) {
      this.#insertions = new Map();
      this.#known = 0;
    }
    const values = this.#insertions.get(name) ?? new Map<string, number>();
    if (!values.has(value)) this.#known++;
    values.set(value, this.#table.inserted);
    this.#insertions.set(name, values);
  }

  #literal(out: Uint8Array, at: number, first: number, prefixBits: number, name: string, value: string): number {
    const index = STATIC_NAMES.get(name) ?? 0;
    let end = writeInteger(out, at, first, prefixBits, index);
    if (index === 0) end = writeString(out, end, name);
    return writeString(out, end, value);
  }
}

/** Section 5.2: Huffman where it is shorter. */
function writeString(out: Uint8Array, at: number, text: string): number {
  const packed = huffmanBytes(text);
  if (packed < text.length) return encodeHuffman(out, writeInteger(out, at, 0x80, 7, packed), text);
  let end = writeInteger(out, at, 0, 7, text.length);
  for (let index = 0; index < text.length; index++) out[end++] = text.charCodeAt(index);
  return end;
}
