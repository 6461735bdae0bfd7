// One connection of an agent to the worker's control socket: bytes to frames, frames to bytes, and descriptors in their
// right place between them. What the frames mean is agent-link.ts.

import type { Socket } from 'node:net';
import { encodeLinkFrame, encodeLinkJson, LinkDecoder } from '#api/link-codec.ts';
import type { Clock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { sendDescriptors } from '#lib/unix-descriptors.ts';

/** Bytes that wait for an agent that does not read; beyond it the connection is given up. */
export const LINK_QUEUE_BYTES_MAX = 16 * 1024 * 1024;
/** A socket that takes no byte at all for this long while descriptors wait is given up. */
const DESCRIPTORS_RETRY_MS = 5;
const DESCRIPTORS_RETRIES_MAX = 400;

export interface LinkConnectionListener {
  /** `payload` is valid during the call only. */
  onFrame(type: number, stream: number, payload: Buffer): void;
  /** Bytes that waited have left. */
  onDrain(): void;
  /** The connection is gone; nothing follows. Null: the agent ended it in order. */
  onClose(error: HeddleError | null): void;
}

export class LinkConnection {
  readonly #socket: Socket;
  readonly #listener: LinkConnectionListener;
  readonly #clock: Clock;
  readonly #decoder = new LinkDecoder();
  /** Frames behind a message with descriptors that the socket has not taken yet. */
  #held: Buffer[] | null = null;
  #error: HeddleError | null = null;
  #isClosed = false;

  constructor(socket: Socket, listener: LinkConnectionListener, clock: Clock) {
    this.#socket = socket;
    this.#listener = listener;
    this.#clock = clock;
    socket.on('data', (chunk) => this.#receive(chunk as Buffer));
    socket.on('drain', () => listener.onDrain());
    socket.on('error', (cause) => {
      this.#error ??= new HeddleError('link-failed', 'talk to the agent: connection failed', { cause });
    });
    socket.on('close', () => {
      this.#isClosed = true;
      listener.onClose(this.#error);
    });
  }

  get isOpen(): boolean {
    return !this.#isClosed && !this.#socket.destroyed;
  }

  /** False: bytes wait, so what is not urgent should wait for `onDrain`. */
  send(type: number, stream: number, payload?: Uint8Array): boolean {
    return this.#write(encodeLinkFrame(type, stream, payload));
  }

  sendJson(type: number, stream: number, value: unknown): boolean {
    return this.#write(encodeLinkJson(type, stream, value));
  }

  /** Sends a frame whose first byte carries copies of the descriptors (SCM_RIGHTS). Frames sent later come later. */
  sendWithDescriptors(frame: Buffer, descriptors: readonly number[]): void {
    if (!this.isOpen) return;
    this.#held ??= [];
    this.#sendDescriptors(frame, descriptors, 0);
  }

  /** Ends the connection now. `onClose` follows. */
  close(error?: HeddleError): void {
    this.#error ??= error ?? null;
    this.#socket.destroy();
  }

  #write(frame: Buffer): boolean {
    if (!this.isOpen) return true;
    if (this.#held) {
      this.#held.push(frame);
      return false;
    }
    const hasRoom = this.#socket.write(frame);
    if (this.#socket.writableLength > LINK_QUEUE_BYTES_MAX) {
      this.close(
        new HeddleError('link-overflow', `agent reads too slowly: more than ${LINK_QUEUE_BYTES_MAX} bytes wait`),
      );
    }
    return hasRoom;
  }

  /**
   * Node cannot pass descriptors with plain bytes, so this message goes by sendmsg on the raw descriptor, once nothing
   * that Node queued is before it.
   */
  #sendDescriptors(frame: Buffer, descriptors: readonly number[], tries: number): void {
    if (!this.isOpen) return;
    let taken: number | null = null;
    try {
      if (this.#socket.writableLength === 0) taken = sendDescriptors(this.#descriptor(), frame, descriptors);
    } catch (cause) {
      this.close(new HeddleError('link-failed', 'hand the listeners to the agent', { cause }));
      return;
    }
    if (taken === null) {
      if (tries >= DESCRIPTORS_RETRIES_MAX) {
        this.close(new HeddleError('link-overflow', 'hand the listeners to the agent: expected it to read'));
        return;
      }
      this.#clock.after(DESCRIPTORS_RETRY_MS, () => this.#sendDescriptors(frame, descriptors, tries + 1));
      return;
    }
    const held = this.#held ?? [];
    this.#held = null;
    if (taken < frame.length) this.#write(frame.subarray(taken));
    for (const later of held) this.#write(later);
    if (this.isOpen && this.#socket.writableLength === 0) this.#listener.onDrain();
  }

  #descriptor(): number {
    const { _handle: handle } = this.#socket as unknown as { _handle: { fd?: number } | null };
    const fd = handle?.fd ?? -1;
    if (fd < 0) throw new HeddleError('link-failed', 'find the descriptor of the link: expected an open socket');
    return fd;
  }

  #receive(chunk: Buffer): void {
    try {
      this.#decoder.push(chunk, (type, stream, payload) => {
        // One that was given up may still hold frames that were read with the last one.
        if (this.isOpen) this.#listener.onFrame(type, stream, payload);
      });
    } catch (cause) {
      this.close(new HeddleError('link-garbage', 'read from the agent: expected frames of the link', { cause }));
    }
  }
}
