// The memory that bytes are written from. Heads are encoded into it and small body parts gathered behind them, so that
// a message leaves in one write; the kernel takes them at once nearly always, and the same memory serves the next
// message. Only what the kernel did not take keeps its place until it is gone.

import type { Duplex } from '#lib/duplex.ts';

/** Holds a head of the largest size and a read's worth of body. */
export const OUTGOING_BYTES = 262_144;
/** When less than this is left behind kept bytes, new memory is taken. */
const ROOM_BYTES_MIN = 131_072;

let memory = Buffer.allocUnsafeSlow(OUTGOING_BYTES);
/** Bytes before this are kept by a socket. */
let base = 0;
/** Whose bytes lie between `base` and `filled`. */
let owner: Output | null = null;
let filled = 0;
let isFlushScheduled = false;

function makeRoom(bytes: number): void {
  if (base + bytes <= memory.length) return;
  memory = Buffer.allocUnsafeSlow(Math.max(OUTGOING_BYTES, bytes));
  base = 0;
}

/** True when `bytes` lie in the outgoing memory and stay untouched until they are sent or kept. */
export function isOutgoing(bytes: Uint8Array): boolean {
  return bytes.buffer === memory.buffer && bytes.byteOffset >= base;
}

/** Copies at most OUTGOING_BYTES into the outgoing memory; the view is good until the next call of anything here. */
export function copyOutgoing(bytes: Uint8Array): Buffer {
  owner?.flush();
  makeRoom(bytes.length);
  memory.set(bytes, base);
  return memory.subarray(base, base + bytes.length);
}

/** Room of `bytes` for somebody else's output; good until the next call of anything here. Reused by the next. */
export function outgoingRoom(bytes: number): { memory: Buffer; start: number } {
  owner?.flush();
  makeRoom(bytes);
  room.memory = memory;
  room.start = base;
  return room;
}

const room = { memory, start: 0 };

/** Reserves an outgoing view for good: it is in use until the write behind it completes. */
export function keepOutgoing(bytes: Uint8Array): void {
  base = bytes.byteOffset + bytes.length;
  if (memory.length - base < ROOM_BYTES_MIN) {
    memory = Buffer.allocUnsafeSlow(OUTGOING_BYTES);
    base = 0;
  }
}

function flushScheduled(): void {
  isFlushScheduled = false;
  owner?.flush();
}

/** Gathers what one stream is to write. Only one Output holds bytes at a time; another one's turn flushes the first. */
export class Output {
  /** Set by the last flush: the stream's queue is full, see Duplex.write. */
  isBlocked = false;
  readonly #duplex: Duplex;

  constructor(duplex: Duplex) {
    this.#duplex = duplex;
  }

  /** The memory to encode into after `reserve`. */
  get memory(): Buffer {
    return memory;
  }

  /** Makes room for `bytes` more and returns the offset in `memory` to write them at. Tell the end by `commit`. */
  reserve(bytes: number): number {
    if (owner !== this) {
      owner?.flush();
      owner = this;
      filled = base;
    }
    if (filled + bytes > memory.length) {
      this.flush();
      makeRoom(bytes);
      owner = this;
      filled = base;
    }
    return filled;
  }

  /** Says where the bytes written after `reserve` end. */
  commit(end: number): void {
    filled = end;
  }

  /** Puts the bytes behind what is gathered, or writes both when they are many. */
  append(bytes: Uint8Array): void {
    if (bytes.length > ROOM_BYTES_MIN) {
      this.flush();
      if (!this.#duplex.write(bytes)) this.isBlocked = true;
      return;
    }
    const at = this.reserve(bytes.length);
    memory.set(bytes, at);
    filled = at + bytes.length;
  }

  /** Writes what is gathered. */
  flush(): void {
    if (owner !== this) return;
    owner = null;
    if (filled === base) return;
    const view = memory.subarray(base, filled);
    if (!this.#duplex.write(view)) this.isBlocked = true;
  }

  /** Writes what is gathered at the end of this turn, unless something else does before. */
  flushSoon(): void {
    if (owner !== this || isFlushScheduled) return;
    isFlushScheduled = true;
    queueMicrotask(flushScheduled);
  }

  /** Forgets what is gathered. */
  discard(): void {
    if (owner === this) owner = null;
  }
}
