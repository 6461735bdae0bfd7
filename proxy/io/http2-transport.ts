// Moves bytes between an HTTP/2 connection and its Duplex. Frames of one turn of the event loop leave in one write: one
// TLS record and one system call are then shared by every exchange in flight.

import type { Clock, Timer } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Http2Connection } from '../wire/http2/connection.ts';
import { ErrorCode } from '../wire/http2/constants.ts';

/** Above this the output does not wait for the end of the turn. */
const FLUSH_BYTES = 64 * 1024;
/**
 * Bytes that wait for a peer that does not read. DATA stops long before; what comes on top are heads and replies, which
 * no window bounds: a peer that asks on and on without reading would otherwise fill the worker's memory.
 */
const UNREAD_BYTES_MAX = 4 * 1024 * 1024;
/** From the first frame of a header block to its last. */
const HEADER_TIMEOUT_MS = 10_000;
/** How long a connection that is over may take to send its last bytes. */
const LINGER_MS = 1_000;

export interface KeepAlive {
  intervalMs: number;
  /** Without an answer to a PING for this long the connection is over. */
  timeoutMs: number;
  whileIdle: boolean;
}

export interface TransportOptions {
  duplex: Duplex;
  clock: Clock;
  /** Bytes that were read from the stream before. */
  received?: Uint8Array | undefined;
  keepAlive?: KeepAlive | null | undefined;
  /** The stream is gone; the connection was told. */
  onClose(error: HeddleError | null): void;
}

export class Http2Transport<User> {
  readonly #connection: Http2Connection<User>;
  readonly #duplex: Duplex;
  readonly #clock: Clock;
  readonly #options: TransportOptions;
  #isFlushDue = false;
  /** One for all turns: a closure for each would be garbage of the busiest path. */
  readonly #flushDue = (): void => {
    this.#isFlushDue = false;
    this.#flush();
  };
  #isClosed = false;
  #isEnding = false;
  #headerTimer: Timer | null = null;
  #keepAliveTimer: Timer | null = null;
  #pongTimer: Timer | null = null;

  constructor(connection: Http2Connection<User>, options: TransportOptions) {
    this.#connection = connection;
    this.#duplex = options.duplex;
    this.#clock = options.clock;
    this.#options = options;
  }

  /** Takes the stream's listener and starts reading. */
  start(): void {
    this.#duplex.listener = {
      onData: (buffer, start, end) => this.#onBytes(buffer, start, end),
      onEnd: () => this.#close(null),
      onDrain: () => {
        this.#connection.setWritable(true);
        this.flushSoon();
      },
      onClose: (error) => this.#onStreamClose(error),
    };
    this.#armKeepAlive();
    this.flushSoon();
    const { received } = this.#options;
    if (received !== undefined && received.length > 0) this.#onBytes(received, 0, received.length);
    this.#duplex.resume();
  }

  #onBytes(bytes: Uint8Array, start: number, end: number): void {
    // Behind our FIN nothing can be answered any more.
    if (this.#isEnding) return;
    this.#connection.receive(bytes, start, end, this.#clock.nowMs());
    this.#watchHeaders();
    this.flushSoon();
  }

  /** Sends what is in the output at the end of this turn. */
  flushSoon(): void {
    if (this.#connection.output.length >= FLUSH_BYTES) this.#flush();
    if (this.#isFlushDue || this.#isClosed) return;
    this.#isFlushDue = true;
    setImmediate(this.#flushDue);
  }

  #flush(): void {
    const connection = this.#connection;
    while (!this.#isClosed && !this.#isEnding && connection.output.length > 0) {
      const isWritable = this.#duplex.write(connection.output.view());
      // Before `taken`, which moves more bytes from the streams into the output.
      if (!isWritable) connection.setWritable(false);
      connection.taken();
    }
    if (!this.#isClosed && this.#duplex.bytesQueued > UNREAD_BYTES_MAX) {
      this.close(new HeddleError('peer-stalled', `send frames: more than ${UNREAD_BYTES_MAX} bytes wait to be read`));
      return;
    }
    if (connection.fault !== null || connection.isFinished) this.#end();
  }

  /** A block that is begun must be finished: a peer that trickles CONTINUATION holds memory for nothing. */
  #watchHeaders(): void {
    if (this.#connection.hasOpenBlock === (this.#headerTimer !== null)) return;
    this.#headerTimer?.cancel();
    this.#headerTimer = null;
    if (!this.#connection.hasOpenBlock) return;
    this.#headerTimer = this.#clock.after(HEADER_TIMEOUT_MS, () => {
      this.#connection.abort(ErrorCode.ENHANCE_YOUR_CALM, 'the header block took too long');
      this.#flush();
    });
  }

  #armKeepAlive(): void {
    const keepAlive = this.#options.keepAlive;
    if (keepAlive === undefined || keepAlive === null || this.#isClosed) return;
    this.#keepAliveTimer = this.#clock.after(keepAlive.intervalMs, () => {
      if (this.#pongTimer === null && (keepAlive.whileIdle || this.#connection.openStreams > 0)) {
        this.#connection.ping();
        this.#pongTimer = this.#clock.after(keepAlive.timeoutMs, () => {
          this.close(new HeddleError('keep-alive-timeout', 'no answer to a keep-alive PING', { source: 'upstream' }));
        });
        this.flushSoon();
      }
      this.#armKeepAlive();
    });
  }

  /** The peer answered a keep-alive PING. */
  pong(): void {
    this.#pongTimer?.cancel();
    this.#pongTimer = null;
  }

  /** Everything was said: FIN behind it, and an end to a peer that does not answer it. */
  #end(): void {
    if (this.#isEnding || this.#isClosed) return;
    this.#isEnding = true;
    this.#duplex.end();
    this.#clock.after(LINGER_MS, () => this.#duplex.reset());
  }

  /** Cuts the connection now. */
  close(error?: HeddleError): void {
    this.#duplex.reset(error);
    this.#close(error ?? null);
  }

  /** The peer will send no more: with HTTP/2 nothing can be finished then (RFC 9113 section 9.1). */
  #close(error: HeddleError | null): void {
    if (this.#isClosed) return;
    this.#flush();
    this.#isClosed = true;
    for (const timer of [this.#headerTimer, this.#keepAliveTimer, this.#pongTimer]) timer?.cancel();
    this.#connection.abort(ErrorCode.NO_ERROR, 'the transport is gone');
    if (!this.#isEnding) this.#duplex.end();
    this.#options.onClose(error);
  }

  #onStreamClose(error: HeddleError | null): void {
    this.#close(error);
  }
}
