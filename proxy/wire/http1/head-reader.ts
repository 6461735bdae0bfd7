// Reads a head, or the trailers, up to the blank line: from the bytes as they lie in the read buffer when all are there,
// from a copy when they come in pieces. Each line is parsed once, however the bytes are cut.

import { CR, LF, latin1 } from './characters.ts';
import { Http1Error } from './error.ts';
import { FieldReader, INCOMPLETE } from './fields.ts';
import type { StartLine } from './start-line.ts';

const HELD_BYTES_INITIAL = 1024;

/** One head at a time: `push` until `isComplete`, then read `text` and `fields`, then `reset`. */
export class HeadReader {
  readonly fields: FieldReader;
  isComplete = false;
  /** The head as latin1, from its first byte; offsets in `fields` and the start line count from there. */
  text = '';
  readonly #startLine: StartLine | null;
  readonly #bytesMax: number;
  #isStartLineDone: boolean;
  /** One empty line before a request is skipped (RFC 9112 section 2.2). */
  #maySkipBlank: boolean;
  #held: Uint8Array | null = null;
  #heldBytes = 0;
  /** Where the next line begins, from the head's first byte. */
  #lineAt = 0;

  /** `startLine` is null for trailers. */
  constructor(startLine: StartLine | null, limits: { bytesMax: number; fieldsMax: number; maySkipBlank?: boolean }) {
    this.fields = new FieldReader(limits.fieldsMax);
    this.#startLine = startLine;
    this.#bytesMax = limits.bytesMax;
    this.#isStartLineDone = startLine === null;
    this.#maySkipBlank = limits.maySkipBlank ?? false;
    this.fields.reset(startLine === null);
  }

  /** True when a part of a head has arrived. */
  get isStarted(): boolean {
    return this.#heldBytes > 0;
  }

  /** Bytes of an unfinished head that are kept. */
  get bytesHeld(): number {
    return this.#heldBytes;
  }

  /** Makes ready for the next head. */
  reset(maySkipBlank: boolean): void {
    this.isComplete = false;
    this.text = '';
    this.#isStartLineDone = this.#startLine === null;
    this.#startLine?.reset();
    this.#maySkipBlank = maySkipBlank;
    this.#lineAt = 0;
    this.fields.reset(this.#startLine === null);
  }

  /** Reads on and returns the offset behind what was used: `end`, or behind the blank line. Throws Http1Error. */
  push(bytes: Uint8Array, start: number, end: number): number {
    if (this.#heldBytes > 0) return this.#pushHeld(bytes, start, end);
    let at = start;
    while (at < end) {
      const next = this.#line(bytes, at, end, start);
      this.#checkSize((next === INCOMPLETE ? end : next) - start);
      if (next === INCOMPLETE) break;
      at = next;
      if (this.isComplete) {
        this.#finish(bytes, start, at);
        return at;
      }
    }
    this.#lineAt = at - start;
    this.#hold(bytes, start, end);
    return end;
  }

  #pushHeld(bytes: Uint8Array, start: number, end: number): number {
    let at = start;
    while (at < end) {
      let stop = at;
      while (stop < end && bytes[stop] !== LF) stop++;
      const hasLine = stop < end;
      if (hasLine) stop++;
      this.#hold(bytes, at, stop);
      this.#checkSize(this.#heldBytes);
      at = stop;
      if (!hasLine) break;
      const next = this.#line(this.#held!, this.#lineAt, this.#heldBytes, 0);
      if (next === INCOMPLETE) continue;
      this.#lineAt = next;
      if (this.isComplete) {
        this.#finish(this.#held!, 0, this.#heldBytes);
        break;
      }
    }
    return at;
  }

  /** Reads one line and returns the offset behind it, or INCOMPLETE. */
  #line(bytes: Uint8Array, at: number, end: number, origin: number): number {
    if (this.#isStartLineDone || this.#maySkipBlank) {
      const first = bytes[at]!;
      if (first === CR) {
        if (at + 1 === end) return INCOMPLETE;
        if (bytes[at + 1] !== LF)
          throw new Http1Error('bare-cr', 'read a head: expected CRLF, got a bare carriage return');
        if (this.#isStartLineDone) this.isComplete = true;
        this.#maySkipBlank = false;
        return at + 2;
      }
      if (first === LF) throw new Http1Error('bare-lf', 'read a head: expected CRLF, got a bare line feed');
    }
    if (this.#isStartLineDone) return this.fields.line(bytes, at, end, origin);
    const next = this.#startLine!.read(bytes, at, end, origin);
    if (next !== INCOMPLETE) this.#isStartLineDone = true;
    return next;
  }

  #checkSize(bytes: number): void {
    if (bytes <= this.#bytesMax) return;
    throw new Http1Error('head-too-large', `read a head: expected at most ${this.#bytesMax} bytes`, 431);
  }

  #hold(bytes: Uint8Array, start: number, end: number): void {
    const needed = this.#heldBytes + end - start;
    if (this.#held === null || needed > this.#held.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(HELD_BYTES_INITIAL, needed, 2 * (this.#held?.length ?? 0)));
      if (this.#held !== null) grown.set(this.#held.subarray(0, this.#heldBytes));
      this.#held = grown;
    }
    if (end - start === 1) this.#held[this.#heldBytes] = bytes[start]!;
    else this.#held.set(bytes.subarray(start, end), this.#heldBytes);
    this.#heldBytes = needed;
  }

  #finish(bytes: Uint8Array, start: number, end: number): void {
    this.text = latin1(bytes, start, end);
    this.fields.removeNominated();
    this.#held = null;
    this.#heldBytes = 0;
  }
}
