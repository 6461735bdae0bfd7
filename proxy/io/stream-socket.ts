// A Duplex over a socket by Node's public stream interface alone: what serves where handles cannot be used.

import type net from 'node:net';
import type { DuplexListener } from '#lib/duplex.ts';
import { assert, type HeddleError } from '#lib/errors.ts';
import { resetError, wrapSocketError } from './socket-error.ts';
import { NO_LISTENER, plainAddress, type SocketDuplex } from './socket-parts.ts';

export class StreamSocket implements SocketDuplex {
  listener: DuplexListener = NO_LISTENER;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
  bytesRead = 0;
  bytesWritten = 0;
  readonly #socket: net.Socket;
  #isEnding = false;
  #hasShut = false;
  #isAbandoned = false;
  #hasReadEnd = false;
  #isClosed = false;
  #closeError: HeddleError | null = null;
  #isDrainDue = false;
  readonly #handlers: [event: string, handler: (...values: never[]) => void][] = [
    ['data', (chunk: Buffer) => this.#onData(chunk)],
    ['end', () => this.#onReadEnd()],
    ['drain', () => this.#onDrain()],
    ['error', (error: Error) => this.#fail(wrapSocketError(error))],
    ['close', () => this.#onClosed()],
  ];

  constructor(socket: net.Socket) {
    this.#socket = socket;
    this.remoteAddress = plainAddress(socket.remoteAddress);
    this.remotePort = socket.remotePort ?? 0;
    this.localAddress = plainAddress(socket.localAddress);
    this.localPort = socket.localPort ?? 0;
    for (const [event, handler] of this.#handlers) socket.on(event, handler as () => void);
    // A handler for `data` sets a stream flowing.
    socket.pause();
  }

  get fd(): number {
    const { _handle: handle } = this.#socket as unknown as { _handle: { fd?: number } | null };
    return this.#isClosed ? -1 : (handle?.fd ?? -1);
  }

  get bytesQueued(): number {
    return this.#isClosed ? 0 : this.#socket.writableLength;
  }

  write(bytes: Uint8Array): boolean {
    assert(!this.#isEnding || this.#isClosed, 'write after end');
    if (this.#isClosed || bytes.length === 0) return true;
    this.bytesWritten += bytes.length;
    // The stream may keep what it is given, and the caller may reuse it.
    const isBelowMark = this.#socket.write(Buffer.from(bytes));
    if (!isBelowMark) this.#isDrainDue = true;
    return isBelowMark;
  }

  end(): void {
    if (this.#isEnding || this.#isClosed) return;
    this.#isEnding = true;
    this.#socket.end(() => {
      this.#hasShut = true;
      this.#closeWhenEnded();
    });
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
    const isShutting = this.#isEnding && !this.#hasShut && this.#socket.writableLength === 0;
    if (isShutting) setImmediate(() => this.#socket.resetAndDestroy());
    else this.#socket.resetAndDestroy();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#isClosed && !this.#isAbandoned) this.#socket.resume();
  }

  #onData(chunk: Buffer): void {
    this.bytesRead += chunk.length;
    this.listener.onData(chunk, 0, chunk.length);
  }

  #onDrain(): void {
    if (!this.#isDrainDue || this.#isClosed) return;
    this.#isDrainDue = false;
    this.listener.onDrain();
  }

  #onReadEnd(): void {
    this.#hasReadEnd = true;
    if (this.#isClosed) return;
    this.listener.onEnd();
    this.#closeWhenEnded();
  }

  #closeWhenEnded(): void {
    if (!(this.#hasReadEnd || this.#isAbandoned) || !this.#hasShut || this.#isClosed) return;
    this.#isClosed = true;
    this.#socket.destroy();
  }

  #fail(error: HeddleError): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closeError = error;
  }

  #onClosed(): void {
    this.#isClosed = true;
    this.listener.onClose(this.#closeError);
  }
}
