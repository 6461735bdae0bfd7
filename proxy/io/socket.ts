// A Duplex over a TCP socket. Bytes are read into one buffer that all sockets of the process share, and written from
// memory that is handed to the kernel at once; only what the kernel does not take is kept.

import type net from 'node:net';
import type { DuplexListener } from '#lib/duplex.ts';
import { assert, type HeddleError } from '#lib/errors.ts';
import { copyOutgoing, isOutgoing, keepOutgoing, OUTGOING_BYTES } from './outgoing.ts';
import { resetError, socketError, wrapSocketError } from './socket-error.ts';
import { NO_LISTENER, plainAddress, type SocketDuplex } from './socket-parts.ts';
import { canUseHandles, handleOf, lastRead, type StreamHandle, UV_EOF, type WriteRequest } from './stream-handle.ts';
import { StreamSocket } from './stream-socket.ts';

export type { SocketDuplex } from './socket-parts.ts';

/** One read takes at most this much. */
export const READ_BYTES_MAX = 65_536;
/** A write that leaves this much queued returns false. */
export const WRITE_QUEUE_HIGH_WATER_BYTES = 131_072;
/** `onDrain` follows when less than this is left. */
const WRITE_QUEUE_LOW_WATER_BYTES = 65_536;
const QUEUE_BYTES_INITIAL = 16_384;

/** Valid during `onData` only, so one serves all. */
const readBuffer = Buffer.allocUnsafeSlow(READ_BYTES_MAX);

let queuedBytes = 0;

/** Bytes that wait in the write queues of all sockets of this process. */
export function queuedBytesTotal(): number {
  return queuedBytes;
}

/** Takes over an established socket: nobody else may read, write or listen to it from now on. It starts paused. */
export function wrapSocket(socket: net.Socket): SocketDuplex {
  const handle = canUseHandles() ? handleOf(socket) : null;
  return handle === null ? new StreamSocket(socket) : new HandleSocket(socket, handle);
}

class HandleSocket implements SocketDuplex {
  listener: DuplexListener = NO_LISTENER;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
  bytesRead = 0;
  bytesWritten = 0;
  readonly #socket: net.Socket;
  readonly #handle: StreamHandle;
  #isReading = false;
  #hasReadEnd = false;
  #isEnding = false;
  #hasShut = false;
  #isAbandoned = false;
  #isClosed = false;
  #closeError: HeddleError | null = null;
  #writeError: HeddleError | null = null;
  #isDrainDue = false;
  /** The write under way, and how much of it waits. */
  #pending: WriteRequest | null = null;
  #pendingBytes = 0;
  /** What waits behind it. */
  #queue: Buffer | null = null;
  #queueBytes = 0;
  readonly #onError = (error: Error): void => this.#fail(wrapSocketError(error));
  readonly #onClosed = (): void => {
    this.#isClosed = true;
    this.#queue = null;
    this.#count(0, 0);
    this.listener.onClose(this.#closeError);
  };

  constructor(socket: net.Socket, handle: StreamHandle) {
    this.#socket = socket;
    this.#handle = handle;
    this.remoteAddress = plainAddress(socket.remoteAddress);
    this.remotePort = socket.remotePort ?? 0;
    this.localAddress = plainAddress(socket.localAddress);
    this.localPort = socket.localPort ?? 0;
    handle.onread = () => this.#onRead();
    handle.useUserBuffer(readBuffer);
    socket.on('error', this.#onError);
    socket.on('close', this.#onClosed);
  }

  get fd(): number {
    return this.#isClosed ? -1 : this.#handle.fd;
  }

  get bytesQueued(): number {
    return this.#pendingBytes + this.#queueBytes;
  }

  write(bytes: Uint8Array): boolean {
    assert(!this.#isEnding || this.#isClosed, 'write after end');
    let rest = bytes;
    if (this.#writeError !== null) return true;
    while (rest.length > 0 && !this.#isClosed) {
      if (this.#pending !== null) {
        this.#enqueue(rest);
        break;
      }
      const length = Math.min(rest.length, OUTGOING_BYTES);
      const piece = this.#stable(length === rest.length ? rest : rest.subarray(0, length));
      // Gathering the piece may have flushed earlier bytes of this very stream, and filled it.
      if (this.#pending !== null) continue;
      this.#writeNow(piece);
      rest = length === rest.length ? EMPTY : rest.subarray(length);
    }
    if (this.#isClosed || this.bytesQueued < WRITE_QUEUE_HIGH_WATER_BYTES) return true;
    this.#isDrainDue = true;
    return false;
  }

  end(): void {
    if (this.#isEnding || this.#isClosed) return;
    this.#isEnding = true;
    this.#shutWhenWritten();
  }

  abandon(): void {
    this.#isAbandoned = true;
    this.pause();
    this.end();
    this.#closeWhenEnded();
  }

  reset(error: HeddleError = resetError()): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closeError = error;
    this.#count(0, 0);
    // libuv cannot reset a socket whose shutdown is under way, which it is for one turn at most.
    if (this.#isEnding && !this.#hasShut && this.#pending === null) setImmediate(() => this.#socket.resetAndDestroy());
    else this.#socket.resetAndDestroy();
  }

  pause(): void {
    if (!this.#isReading) return;
    this.#isReading = false;
    if (!this.#isClosed) this.#handle.readStop();
  }

  resume(): void {
    if (this.#isReading || this.#hasReadEnd || this.#isAbandoned || this.#isClosed) return;
    this.#isReading = true;
    const status = this.#handle.readStart();
    if (status < 0) process.nextTick(() => this.#fail(socketError(status, 'read')));
  }

  /** Memory that stays as it is while the kernel needs it. */
  #stable(bytes: Uint8Array): Uint8Array {
    return isOutgoing(bytes) ? bytes : copyOutgoing(bytes);
  }

  #writeNow(bytes: Uint8Array): void {
    const result = this.#handle.writeBuffer(null, bytes);
    if (result === 0) {
      this.bytesWritten += bytes.length;
      return;
    }
    if (typeof result === 'number') {
      process.nextTick(() => this.#writeFailed(result));
      return;
    }
    this.bytesWritten += bytes.length;
    keepOutgoing(bytes);
    result.buffer = bytes;
    this.#await(result);
  }

  #await(request: WriteRequest): void {
    this.#pending = request;
    this.#count(this.#handle.writeQueueSize, this.#queueBytes);
    request.oncomplete = (status) => this.#onWritten(status);
    const status = request.writeStatus;
    if (status !== null && status !== undefined) setImmediate(() => this.#onWritten(status));
  }

  #enqueue(bytes: Uint8Array): void {
    const needed = this.#queueBytes + bytes.length;
    if (this.#queue === null || needed > this.#queue.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(QUEUE_BYTES_INITIAL, needed, 2 * this.#queueBytes));
      if (this.#queue !== null) grown.set(this.#queue.subarray(0, this.#queueBytes));
      this.#queue = grown;
    }
    this.#queue.set(bytes, this.#queueBytes);
    this.#count(this.#pendingBytes, needed);
  }

  #onWritten(status: number): void {
    this.#pending = null;
    if (this.#isClosed) return;
    if (status < 0) {
      this.#writeFailed(status);
      return;
    }
    this.#count(0, this.#queueBytes);
    if (this.#queue !== null) this.#flushQueue(this.#queue.subarray(0, this.#queueBytes));
    if (this.#isClosed) return;
    if (this.#isDrainDue && this.bytesQueued < WRITE_QUEUE_LOW_WATER_BYTES) {
      this.#isDrainDue = false;
      this.listener.onDrain();
    }
    if (this.#isEnding) this.#shutWhenWritten();
  }

  #flushQueue(bytes: Buffer): void {
    this.#queue = null;
    this.#count(0, 0);
    const result = this.#handle.writeBuffer(null, bytes);
    if (typeof result === 'number') {
      if (result < 0) process.nextTick(() => this.#writeFailed(result));
      else this.bytesWritten += bytes.length;
      return;
    }
    this.bytesWritten += bytes.length;
    result.buffer = bytes;
    this.#await(result);
  }

  #count(pendingBytes: number, queueBytes: number): void {
    queuedBytes += pendingBytes + queueBytes - this.#pendingBytes - this.#queueBytes;
    this.#pendingBytes = pendingBytes;
    this.#queueBytes = queueBytes;
  }

  #onRead(): undefined {
    const count = lastRead();
    if (this.#isClosed || !this.#isReading) return;
    if (count > 0) {
      this.bytesRead += count;
      this.listener.onData(readBuffer, 0, count);
    } else if (count === UV_EOF) this.#onReadEnd();
    else if (count < 0) this.#fail(socketError(count, 'read'));
  }

  #onReadEnd(): void {
    if (this.#hasReadEnd || this.#isClosed) return;
    this.pause();
    // The reset was told to the writer; the reader sees it as an end, which it is not.
    if (this.#writeError !== null) {
      this.#fail(this.#writeError);
      return;
    }
    this.#hasReadEnd = true;
    this.listener.onEnd();
    this.#closeWhenEnded();
  }

  #shutWhenWritten(): void {
    if (this.#pending !== null || this.#isClosed) return;
    this.#socket.end(() => {
      this.#hasShut = true;
      this.#closeWhenEnded();
    });
  }

  #closeWhenEnded(): void {
    if (!(this.#hasReadEnd || this.#isAbandoned) || !this.#hasShut || this.#isClosed) return;
    this.#isClosed = true;
    this.#socket.destroy();
  }

  /**
   * The peer takes no more. What it said before it closed may still be there to read, such as an early answer, so the
   * stream lives until the reader has seen its end; further writes go nowhere.
   */
  #writeFailed(status: number): void {
    const error = socketError(status, 'write');
    this.#writeError ??= error;
    this.#queue = null;
    this.#count(0, 0);
    if (!this.#isReading) this.#fail(error);
  }

  #fail(error: HeddleError): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closeError = error;
    this.#socket.destroy();
  }
}

const EMPTY = new Uint8Array(0);
