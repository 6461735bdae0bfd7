// Reads header blocks, RFC 7541 section 6. One decoder belongs to one direction of a connection for all its life.

import { DynamicTable } from './dynamic-table.ts';
import { HpackError } from './error.ts';
import { asciiOrLatin1, decodeHuffman } from './huffman.ts';
import { type Cursor, readInteger } from './integer.ts';
import { STATIC_TABLE } from './tables.ts';

/** Receives the fields of a block in order. `neverIndexed`: the field must be passed on as such (section 7.1.3). */
export interface HeaderSink {
  field(name: string, value: string, neverIndexed: boolean): void;
}

export class HpackDecoder {
  readonly #table: DynamicTable;
  /** What our SETTINGS_HEADER_TABLE_SIZE allows the peer. */
  #limitBytes: number;
  /** After we lowered the limit, the peer's next block must begin with a size update (section 4.2). */
  #updateDue = false;
  readonly #cursor: Cursor = { bytes: new Uint8Array(0), at: 0, end: 0 };

  constructor(limitBytes = 4096) {
    this.#limitBytes = limitBytes;
    this.#table = new DynamicTable(limitBytes);
  }

  /** Takes effect when the peer acknowledged the SETTINGS that carry it. */
  setLimit(limitBytes: number): void {
    if (limitBytes < this.#table.maxBytes) this.#updateDue = true;
    this.#limitBytes = limitBytes;
  }

  /**
   * Decodes one whole block. Throws HpackError, after which the decoder must not be used. The sink sees every field
   * even when it has lost interest: the table must be kept in step.
   */
  decode(bytes: Uint8Array, start: number, end: number, sink: HeaderSink): void {
    const cursor = this.#cursor;
    cursor.bytes = bytes;
    cursor.at = start;
    cursor.end = end;
    let fields = 0;
    while (cursor.at < end) {
      const first = bytes[cursor.at]!;
      if ((first & 0xe0) === 0x20) {
        if (fields > 0) throw new HpackError('table size update behind a field');
        this.#resize(readInteger(cursor, 5));
        continue;
      }
      if (this.#updateDue) throw new HpackError('table size update expected after the limit was lowered');
      fields++;
      if (first & 0x80) this.#indexed(readInteger(cursor, 7), sink);
      else this.#literal(first, cursor, sink);
    }
    cursor.bytes = new Uint8Array(0);
  }

  #resize(maxBytes: number): void {
    if (maxBytes > this.#limitBytes) throw new HpackError(`table size ${maxBytes} is above ${this.#limitBytes}`);
    this.#table.setMaxBytes(maxBytes);
    this.#updateDue = false;
  }

  #indexed(index: number, sink: HeaderSink): void {
    if (index === 0) throw new HpackError('index 0');
    if (index <= STATIC_TABLE.length) {
      const entry = STATIC_TABLE[index - 1]!;
      sink.field(entry[0], entry[1], false);
      return;
    }
    const at = this.#dynamicIndex(index);
    sink.field(this.#table.name(at), this.#table.value(at), false);
  }

  #literal(first: number, cursor: Cursor, sink: HeaderSink): void {
    const isIndexed = (first & 0x40) !== 0;
    const index = readInteger(cursor, isIndexed ? 6 : 4);
    const name = index === 0 ? readString(cursor) : this.#nameAt(index);
    const value = readString(cursor);
    if (isIndexed) this.#table.add(name, value);
    sink.field(name, value, !isIndexed && (first & 0x10) !== 0);
  }

  #nameAt(index: number): string {
    if (index <= STATIC_TABLE.length) return STATIC_TABLE[index - 1]![0];
    return this.#table.name(this.#dynamicIndex(index));
  }

  #dynamicIndex(index: number): number {
    const at = index - STATIC_TABLE.length - 1;
    if (at >= this.#table.length) throw new HpackError(`index ${index} is beyond the table`);
    return at;
  }
}

/** Section 5.2. */
function readString(cursor: Cursor): string {
  if (cursor.at >= cursor.end) throw new HpackError('string is cut off');
  const isHuffman = (cursor.bytes[cursor.at]! & 0x80) !== 0;
  const length = readInteger(cursor, 7);
  const start = cursor.at;
  if (length > cursor.end - start) throw new HpackError('string is longer than its block');
  cursor.at += length;
  return isHuffman ? decodeHuffman(cursor.bytes, start, cursor.at) : asciiOrLatin1(cursor.bytes, length, start);
}
