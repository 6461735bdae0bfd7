// Bodies (RFC 9112 section 6 and 7): counted, chunked, or up to the end of the connection. Chunk sizes, extensions and
// terminators are read strictly; extensions are dropped.

import { HeaderList } from '../headers.ts';
import { CR, FIELD_VALUE, HEX_VALUE, LF } from './characters.ts';
import { Http1Error } from './error.ts';
import { HeadReader } from './head-reader.ts';
import type { Http1Limits } from './limits.ts';

/** Receives body bytes; the range is valid during the call only. */
export interface BodySink {
  data(bytes: Uint8Array, start: number, end: number): void;
}

const State = {
  done: 0,
  counted: 1,
  untilEnd: 2,
  sizeFirst: 3,
  size: 4,
  extension: 5,
  sizeLf: 6,
  chunk: 7,
  chunkCr: 8,
  chunkLf: 9,
  trailers: 10,
} as const;
type State = (typeof State)[keyof typeof State];

/** 2^52 - 1 is the largest size of 13 digits; more digits are refused even when they are zeros. */
const SIZE_DIGITS_MAX = 13;
const SEMICOLON = 0x3b;

export class BodyReader {
  /** Fields behind a chunked body; null where there are none. */
  trailers: HeaderList | null = null;
  #state: State = State.done;
  #left = 0;
  #digits = 0;
  #extensionBytes = 0;
  #trailerReader: HeadReader | null = null;
  readonly #limits: Http1Limits;

  constructor(limits: Http1Limits) {
    this.#limits = limits;
  }

  get isDone(): boolean {
    return this.#state === State.done;
  }

  /** True when the end of the connection ends the body. */
  get isUntilEnd(): boolean {
    return this.#state === State.untilEnd;
  }

  startCounted(bytes: number): void {
    this.trailers = null;
    this.#left = bytes;
    this.#state = bytes === 0 ? State.done : State.counted;
  }

  startChunked(): void {
    this.trailers = null;
    this.#state = State.sizeFirst;
    this.#extensionBytes = 0;
  }

  startUntilEnd(): void {
    this.trailers = null;
    this.#state = State.untilEnd;
  }

  /** Reads on and returns the offset behind what was used. Throws Http1Error. */
  push(bytes: Uint8Array, start: number, end: number, sink: BodySink): number {
    switch (this.#state) {
      case State.done:
        return start;
      case State.counted: {
        const stop = start + Math.min(this.#left, end - start);
        this.#left -= stop - start;
        if (this.#left === 0) this.#state = State.done;
        if (stop > start) sink.data(bytes, start, stop);
        return stop;
      }
      case State.untilEnd:
        if (end > start) sink.data(bytes, start, end);
        return end;
      default:
        return this.#pushChunked(bytes, start, end, sink);
    }
  }

  /** The connection ended. Throws Http1Error when the body had not. */
  finish(): void {
    if (this.#state === State.untilEnd) this.#state = State.done;
    if (this.#state !== State.done) throw new Http1Error('body-incomplete', 'read a body: expected more bytes');
  }

  #pushChunked(bytes: Uint8Array, start: number, end: number, sink: BodySink): number {
    let at = start;
    while (at < end && this.#state !== State.done) {
      if (this.#state === State.chunk) {
        const stop = at + Math.min(this.#left, end - at);
        this.#left -= stop - at;
        if (this.#left === 0) this.#state = State.chunkCr;
        sink.data(bytes, at, stop);
        at = stop;
      } else if (this.#state === State.trailers) {
        at = this.#pushTrailers(bytes, at, end);
      } else {
        this.#chunkByte(bytes[at++]!);
      }
    }
    return at;
  }

  /** One byte of a chunk's size line or of the CRLF behind its data. */
  #chunkByte(code: number): void {
    switch (this.#state) {
      case State.sizeFirst:
        if (HEX_VALUE[code] === 255) throw sizeError();
        this.#left = HEX_VALUE[code]!;
        this.#digits = 1;
        this.#state = State.size;
        return;
      case State.size:
        if (HEX_VALUE[code] !== 255) {
          if (++this.#digits > SIZE_DIGITS_MAX) throw sizeError();
          this.#left = this.#left * 16 + HEX_VALUE[code]!;
        } else if (code === CR) this.#state = State.sizeLf;
        else if (code === SEMICOLON) this.#extension();
        else throw sizeError();
        return;
      case State.extension:
        if (code === CR) this.#state = State.sizeLf;
        else if (FIELD_VALUE[code] === 1) this.#extension();
        else throw new Http1Error('chunk-extension-invalid', 'read a chunk extension: expected CRLF at its end');
        return;
      case State.sizeLf:
        if (code !== LF) throw sizeError();
        this.#state = this.#left === 0 ? State.trailers : State.chunk;
        return;
      case State.chunkCr:
        if (code !== CR) throw terminatorError();
        this.#state = State.chunkLf;
        return;
      default:
        if (code !== LF) throw terminatorError();
        this.#state = State.sizeFirst;
    }
  }

  #extension(): void {
    this.#state = State.extension;
    if (++this.#extensionBytes <= this.#limits.chunkExtensionBytesMax) return;
    throw new Http1Error(
      'chunk-extensions-too-large',
      `read chunk extensions: expected at most ${this.#limits.chunkExtensionBytesMax} bytes`,
    );
  }

  #pushTrailers(bytes: Uint8Array, start: number, end: number): number {
    this.#trailerReader ??= new HeadReader(null, {
      bytesMax: this.#limits.trailerBytesMax,
      fieldsMax: this.#limits.fieldsMax,
    });
    const reader = this.#trailerReader;
    const at = reader.push(bytes, start, end);
    if (reader.isComplete) {
      if (reader.fields.names.length > 0) {
        this.trailers = HeaderList.fromText(reader.text, reader.fields.names, reader.fields.spans);
      }
      reader.reset(false);
      this.#state = State.done;
    }
    return at;
  }
}

function sizeError(): Http1Error {
  return new Http1Error('chunk-size-invalid', 'read a chunk size: expected hexadecimal digits and CRLF');
}

function terminatorError(): Http1Error {
  return new Http1Error('chunk-terminator-invalid', 'read a chunk: expected CRLF behind its data');
}
