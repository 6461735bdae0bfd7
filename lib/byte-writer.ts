// A growing buffer that is filled, sent and used again. `reserve` makes room, so that writers index into `bytes`
// without checks of their own.

export class ByteWriter {
  bytes: Uint8Array;
  /** How much of `bytes` is filled. */
  length = 0;
  readonly #initialBytes: number;

  constructor(initialBytes = 4096) {
    this.#initialBytes = initialBytes;
    this.bytes = new Uint8Array(initialBytes);
  }

  /** Makes room for `count` more bytes; `bytes` may be another array afterwards. Returns `length`. */
  reserve(count: number): number {
    const needed = this.length + count;
    if (needed > this.bytes.length) {
      const grown = new Uint8Array(Math.max(needed, this.bytes.length * 2));
      grown.set(this.bytes.subarray(0, this.length));
      this.bytes = grown;
    }
    return this.length;
  }

  append(part: Uint8Array): void {
    const at = this.reserve(part.length);
    this.bytes.set(part, at);
    this.length = at + part.length;
  }

  /** What was written, valid until the next call. */
  view(): Uint8Array {
    return this.bytes.subarray(0, this.length);
  }

  /** Empties the writer; memory of a burst is given back. */
  clear(): void {
    this.length = 0;
    if (this.bytes.length > 16 * this.#initialBytes) this.bytes = new Uint8Array(this.#initialBytes);
  }
}
