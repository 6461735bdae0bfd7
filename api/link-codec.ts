// Framing of the link between agent and worker (worker-link.ts): bytes to frames and back, without any socket, so that
// both ends and every test share one reading of it. A decoder holds at most one frame.

import { HeddleError } from '#lib/errors.ts';
import { LINK_FRAME_BYTES_MAX } from './worker-link.ts';

/** Bytes of a frame before its payload: u32 length, u8 type, u32 stream. */
export const LINK_HEADER_BYTES = 9;
/** The part of the header that the length field counts. */
const COUNTED_HEADER_BYTES = LINK_HEADER_BYTES - 4;

/**
 * Takes one frame. `type` is not checked against the known ones: an unknown type is the receiver's to ignore.
 * `payload` is a view that is valid during the call only.
 */
export type LinkFrameHandler = (type: number, stream: number, payload: Buffer) => void;

const EMPTY = new Uint8Array(0);

/** One whole frame as bytes. Throws `link-frame-too-large` where the payload does not fit a frame. */
export function encodeLinkFrame(type: number, stream: number, payload: Uint8Array = EMPTY): Buffer {
  const countedBytes = COUNTED_HEADER_BYTES + payload.length;
  if (countedBytes > LINK_FRAME_BYTES_MAX) throw tooLarge(countedBytes);
  const frame = Buffer.allocUnsafe(LINK_HEADER_BYTES + payload.length);
  frame.writeUInt32BE(countedBytes, 0);
  frame.writeUInt8(type, 4);
  frame.writeUInt32BE(stream, 5);
  frame.set(payload, LINK_HEADER_BYTES);
  return frame;
}

/** A frame whose payload is `value` as JSON. */
export function encodeLinkJson(type: number, stream: number, value: unknown): Buffer {
  return encodeLinkFrame(type, stream, Buffer.from(JSON.stringify(value)));
}

/**
 * The JSON object in a payload. Throws `link-json` when it is not a JSON object; its fields are the caller's to check.
 */
export function parseLinkJson(payload: Uint8Array): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(payload.buffer, payload.byteOffset, payload.length).toString('utf8'));
  } catch (cause) {
    throw new HeddleError('link-json', `parse a link payload of "${payload.length}" bytes: expected JSON`, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new HeddleError('link-json', `parse a link payload "${JSON.stringify(value)}": expected a JSON object`);
  }
  return value as Record<string, unknown>;
}

/**
 * Cuts a byte stream into frames. A length that no frame can have means that the other end does not speak this
 * protocol: `push` throws (`link-frame-too-large`, `link-frame-too-short`) and the connection is of no further use.
 */
export class LinkDecoder {
  readonly #bytesMax: number;
  readonly #header = Buffer.alloc(LINK_HEADER_BYTES);
  #headerBytes = 0;
  #payload: Buffer | null = null;
  #payloadBytes = 0;

  constructor(bytesMax: number = LINK_FRAME_BYTES_MAX) {
    this.#bytesMax = bytesMax;
  }

  /** True between two frames: nothing is half read. */
  get isIdle(): boolean {
    return this.#headerBytes === 0;
  }

  /** Reads all of `bytes`, calling `onFrame` for every frame that is complete, in order. */
  push(bytes: Uint8Array, onFrame: LinkFrameHandler): void {
    const input = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    let at = 0;
    while (at < input.length) {
      if (this.#payload === null) {
        at = this.#readHeader(input, at);
        if (this.#headerBytes < LINK_HEADER_BYTES) return;
        const wanted = this.#wantedBytes();
        if (input.length - at >= wanted) {
          // The whole payload is here: hand out a view instead of a copy.
          this.#emit(input.subarray(at, at + wanted), onFrame);
          at += wanted;
          continue;
        }
        this.#payload = Buffer.allocUnsafe(wanted);
        this.#payloadBytes = 0;
      }
      const copied = input.copy(this.#payload, this.#payloadBytes, at);
      at += copied;
      this.#payloadBytes += copied;
      if (this.#payloadBytes === this.#payload.length) this.#emit(this.#payload, onFrame);
    }
  }

  #readHeader(input: Buffer, at: number): number {
    const copied = input.copy(this.#header, this.#headerBytes, at);
    this.#headerBytes += copied;
    return at + copied;
  }

  #wantedBytes(): number {
    const countedBytes = this.#header.readUInt32BE(0);
    if (countedBytes > this.#bytesMax) throw tooLarge(countedBytes, this.#bytesMax);
    if (countedBytes < COUNTED_HEADER_BYTES) {
      throw new HeddleError(
        'link-frame-too-short',
        `read a link frame of "${countedBytes}" bytes: expected at least ${COUNTED_HEADER_BYTES}`,
      );
    }
    return countedBytes - COUNTED_HEADER_BYTES;
  }

  #emit(payload: Buffer, onFrame: LinkFrameHandler): void {
    const type = this.#header.readUInt8(4);
    const stream = this.#header.readUInt32BE(5);
    this.#headerBytes = 0;
    this.#payload = null;
    onFrame(type, stream, payload);
  }
}

function tooLarge(countedBytes: number, bytesMax: number = LINK_FRAME_BYTES_MAX): HeddleError {
  return new HeddleError(
    'link-frame-too-large',
    `frame of "${countedBytes}" bytes on the link: expected at most ${bytesMax}`,
  );
}
