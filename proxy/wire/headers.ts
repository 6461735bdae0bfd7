// Header fields of a message. Those of a decoded HTTP/1 head stay what they were on the wire: the head's text is kept
// as one string, fields are spans of it, and runs of untouched fields are written out again in one piece. Values
// become strings of their own only when somebody asks for them.

import type { Headers } from '../http.ts';

/** Where a field lies in the head's text: start of its name, start of its value, end of its value. */
const SPAN = 3;
/** A span's first number when the field was added here and is in no text. */
const OWN = -1;

/** What must never be written inside a value: it would end the field, or is no latin1 character. */
const ILLEGAL_IN_VALUE = /[\0\r\n]|[^\0-\xff]/;

/** `Buffer.latin1Write` has no type; it is the string writer without argument checks. */
export interface LatinBuffer extends Uint8Array {
  latin1Write(text: string, offset: number, length?: number): number;
}

/** Below this, a loop is quicker than a call into the runtime. */
const LOOP_CHARS = 20;

/** Writes latin1 text at `at`, which must have room, and returns the offset behind it. */
export function writeLatin1(target: Uint8Array, at: number, text: string): number {
  const length = text.length;
  if (length >= LOOP_CHARS) return at + (target as LatinBuffer).latin1Write(text, at, length);
  for (let index = 0; index < length; index++) target[at + index] = text.charCodeAt(index);
  return at + length;
}

/** Fields in order. Names are lower-case; what an HTTP/1 peer wrote is kept and passed on letter for letter. */
export class HeaderList implements Headers {
  readonly #text: string;
  readonly #names: string[];
  /** Null: not asked for yet, see the span. */
  readonly #values: (string | null)[];
  readonly #spans: number[];

  constructor(text = '', names: string[] = [], values: (string | null)[] = [], spans: number[] = []) {
    this.#text = text;
    this.#names = names;
    this.#values = values;
    this.#spans = spans;
  }

  /**
   * The fields of a decoded head. `text` is latin1 and has only valid fields; `names` are in lower case; `spans` has
   * three numbers for each name: where its line begins, where its value begins, where its value ends. Behind the value
   * comes CRLF, with whitespace before it where the peer sent some. The arrays become the list's own.
   */
  static fromText(text: string, names: string[], spans: number[]): HeaderList {
    const values: (string | null)[] = [];
    for (let index = 0; index < names.length; index++) values.push(null);
    return new HeaderList(text, names, values, spans);
  }

  get length(): number {
    return this.#names.length;
  }

  name(index: number): string {
    return this.#names[index] ?? '';
  }

  value(index: number): string {
    const value = this.#values[index];
    if (value !== null) return value ?? '';
    const at = index * SPAN;
    const text = this.#text.substring(this.#spans[at + 1]!, this.#spans[at + 2]!);
    this.#values[index] = text;
    return text;
  }

  rawName(index: number): string {
    const name = this.name(index);
    const start = this.#spans[index * SPAN] ?? OWN;
    return start === OWN ? name : this.#text.substring(start, start + name.length);
  }

  get(name: string): string | undefined {
    const index = this.#names.indexOf(name);
    return index === -1 ? undefined : this.value(index);
  }

  has(name: string): boolean {
    return this.#names.includes(name);
  }

  add(name: string, value: string): void {
    this.#names.push(name);
    this.#values.push(value);
    this.#spans.push(OWN, 0, 0);
  }

  set(name: string, value: string): void {
    this.remove(name);
    this.add(name, value);
  }

  remove(name: string): void {
    for (let index = this.#names.indexOf(name); index !== -1; index = this.#names.indexOf(name, index)) {
      this.removeAt(index);
    }
  }

  /** Removes one field. */
  removeAt(index: number): void {
    this.#names.splice(index, 1);
    this.#values.splice(index, 1);
    this.#spans.splice(index * SPAN, SPAN);
  }

  clone(): HeaderList {
    return new HeaderList(this.#text, this.#names.slice(), this.#values.slice(), this.#spans.slice());
  }

  /** At least as many bytes as `write` needs. */
  get bytesMax(): number {
    let bytes = 0;
    for (let index = 0; index < this.#names.length; index++) {
      const at = index * SPAN;
      if (this.#spans[at] === OWN) bytes += this.#names[index]!.length + this.#values[index]!.length + 4;
      else bytes += this.#spans[at + 2]! - this.#spans[at]! + 2;
    }
    return bytes;
  }

  /**
   * Writes every field as an HTTP/1 line (RFC 9112 section 5) at `at` and returns the offset behind the last. `target`
   * must have room for `bytesMax`. Characters that would end a value added here are written as spaces.
   */
  write(target: Uint8Array, at: number): number {
    const spans = this.#spans;
    const count = this.#names.length;
    let offset = at;
    for (let index = 0; index < count; ) {
      const start = spans[index * SPAN]!;
      if (start === OWN) {
        offset = writeField(target, offset, this.#names[index]!, this.#values[index]!);
        index++;
        continue;
      }
      let end = spans[index * SPAN + 2]!;
      index++;
      while (index < count && spans[index * SPAN] === end + 2) {
        end = spans[index * SPAN + 2]!;
        index++;
      }
      offset = writeLatin1(target, offset, this.#text.substring(start, end));
      target[offset] = CR;
      target[offset + 1] = LF;
      offset += 2;
    }
    return offset;
  }
}

const CR = 0x0d;
const LF = 0x0a;
const COLON = 0x3a;
const SPACE = 0x20;

/** Writes one `name: value` line at `at` and returns the offset behind it. */
export function writeField(target: Uint8Array, at: number, name: string, value: string): number {
  let offset = writeLatin1(target, at, name);
  target[offset] = COLON;
  target[offset + 1] = SPACE;
  const safe = ILLEGAL_IN_VALUE.test(value) ? sanitise(value) : value;
  offset = writeLatin1(target, offset + 2, safe);
  target[offset] = CR;
  target[offset + 1] = LF;
  return offset + 2;
}

function sanitise(value: string): string {
  let safe = '';
  for (const character of value) safe += ILLEGAL_IN_VALUE.test(character) ? ' ' : character;
  return safe;
}
