// The memory that bytes are written from. Messages are encoded into it one behind the other while a turn of the event
// loop lasts, and leave at its end, each in one write: reading and encoding stay together and so do the writes, which
// saves the processor's caches and wakes each peer once for many messages. The kernel takes a write at once nearly
// always, and the same memory serves the next turn. Only what the kernel did not take keeps its place until it is gone.

import type { Duplex } from '#lib/duplex.ts';

/** Holds a head of the largest size and a read's worth of body. */
export const OUTGOING_BYTES = 262_144;
/** When less than this is left behind kept bytes, new memory is taken. */
const ROOM_BYTES_MIN = 131_072;
/** A body part above this is written from where it lies. */
const GATHERED_BYTES_MAX = 65_536;
/** Messages that wait for the end of the turn: more, and they leave before. */
const PARTS_MAX = 64;

let memory = Buffer.allocUnsafeSlow(OUTGOING_BYTES);
/** Bytes before this are kept by a socket. */
let base = 0;
/** Where free room begins: behind what waits. */
let filled = 0;

/** What waits to be written, in order: whose it is, and where it lies. Null: forgotten. */
const owners: (Output | null)[] = [];
const memories: Buffer[] = [];
const starts: number[] = [];
const ends: number[] = [];
let isFlushScheduled = false;

/** Makes free room of `bytes` at `filled`. What waits keeps its place, if need be in the memory before. */
function makeRoom(bytes: number): void {
  if (filled + bytes <= memory.length) return;
  memory = Buffer.allocUnsafeSlow(Math.max(OUTGOING_BYTES, bytes));
  base = 0;
  filled = 0;
}

/** True when `bytes` lie in the outgoing memory and stay untouched until they are sent or kept. */
export function isOutgoing(bytes: Uint8Array): boolean {
  return bytes.buffer === memory.buffer && bytes.byteOffset >= base;
}

/** Copies at most OUTGOING_BYTES into the outgoing memory; the view is good until the next call of anything here. */
export function copyOutgoing(bytes: Uint8Array): Buffer {
  makeRoom(bytes.length);
  memory.set(bytes, filled);
  return memory.subarray(filled, filled + bytes.length);
}

const room = { memory, start: 0 };

/** Room of `bytes` for what is not an Output's; good until the next call of anything here. The result is reused. */
export function outgoingRoom(bytes: number): { memory: Buffer; start: number } {
  makeRoom(bytes);
  room.memory = memory;
  room.start = filled;
  return room;
}

/** Reserves an outgoing view for good: it is in use until the write behind it completes. */
export function keepOutgoing(bytes: Uint8Array): void {
  const end = bytes.byteOffset + bytes.length;
  base = Math.max(base, end);
  filled = Math.max(filled, end);
  if (memory.length - filled >= ROOM_BYTES_MIN) return;
  memory = Buffer.allocUnsafeSlow(OUTGOING_BYTES);
  base = 0;
  filled = 0;
}

/** Writes everything that waits. A stream's `write` calls nobody back, so nothing is added meanwhile. */
function flushAll(): void {
  isFlushScheduled = false;
  try {
    for (let index = 0; index < owners.length; index++) {
      const start = starts[index]!;
      const end = ends[index]!;
      if (end > start) owners[index]?.send(memories[index]!.subarray(start, end));
    }
  } finally {
    // Whatever happened, nothing is written twice.
    owners.length = 0;
    memories.length = 0;
    starts.length = 0;
    ends.length = 0;
    filled = base;
  }
}

/** Gathers what one stream is to write. */
export class Output {
  /** Set by the last write: the stream's queue is full, see Duplex.write. */
  isBlocked = false;
  readonly #duplex: Duplex;

  constructor(duplex: Duplex) {
    this.#duplex = duplex;
  }

  /** The memory to encode into after `reserve`. */
  get memory(): Buffer {
    return memory;
  }

  /** Makes room for `bytes` more and returns the offset in `memory` to write them at. `commit` tells their end. */
  reserve(bytes: number): number {
    if (filled + bytes > memory.length) {
      flushAll();
      makeRoom(bytes);
    }
    const last = owners.length - 1;
    if (last >= 0 && owners[last] === this && ends[last] === filled && memories[last] === memory) return filled;
    if (owners.length === PARTS_MAX) flushAll();
    owners.push(this);
    memories.push(memory);
    starts.push(filled);
    ends.push(filled);
    return filled;
  }

  /** Says where the bytes written after `reserve` end. They leave with `flush`, or after `flushSoon`. */
  commit(end: number): void {
    ends[ends.length - 1] = end;
    filled = end;
  }

  /** Puts the bytes behind what is gathered; many are written at once. */
  append(bytes: Uint8Array): void {
    if (bytes.length > GATHERED_BYTES_MAX) {
      flushAll();
      this.send(bytes);
      return;
    }
    const at = this.reserve(bytes.length);
    memory.set(bytes, at);
    this.commit(at + bytes.length);
  }

  /** Writes what is gathered, of other streams too, now. */
  flush(): void {
    flushAll();
  }

  /** Writes what is gathered at the end of this turn of the event loop. */
  flushSoon(): void {
    if (isFlushScheduled) return;
    isFlushScheduled = true;
    setImmediate(flushAll);
  }

  /** Forgets what is gathered. */
  discard(): void {
    for (let index = 0; index < owners.length; index++) if (owners[index] === this) owners[index] = null;
  }

  send(bytes: Uint8Array): void {
    if (!this.#duplex.write(bytes)) this.isBlocked = true;
  }
}
