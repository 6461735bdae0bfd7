// The one contract for byte streams. Sockets, TLS sessions and memory pipes all implement it, and everything above
// them is written against it. Backpressure is one rule: a `write` that returns false pauses the reader on the other
// side until `onDrain`.

import type { HeddleError } from './errors.ts';

/** What a byte stream tells its user. Calls come in order and never from inside a call of the user's own. */
export interface DuplexListener {
  /**
   * Bytes `buffer[start..end)` arrived. They are valid during the call only: the buffer is reused for the next read.
   * A listener that keeps bytes copies them.
   */
  onData(buffer: Buffer, start: number, end: number): void;
  /** The peer finished sending (FIN, close_notify). Writing may go on. */
  onEnd(): void;
  /** A `write` returned false before, and the bytes have left since. */
  onDrain(): void;
  /** The stream is gone; nothing follows. `error` is null when both directions ended in order. */
  onClose(error: HeddleError | null): void;
}

/** A bidirectional stream of bytes with half-close. */
export interface Duplex {
  /** Set once by whoever owns the stream now; a protocol switch (detection, upgrade) replaces it. */
  listener: DuplexListener;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
  /** Bytes accepted by `write` that have not left the process. */
  readonly bytesQueued: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  /**
   * Sends the bytes. The caller may reuse the memory when the call returns. Returns false when the queue is at or
   * above the high-water mark: stop until `onDrain`. Bytes are never dropped while the stream is open.
   */
  write(bytes: Uint8Array): boolean;
  /** Half-close: FIN after the queued bytes. Idempotent. */
  end(): void;
  /**
   * `end`, and no interest in what the peer still sends: the stream closes as soon as its queued bytes have left,
   * without waiting for the peer to finish. `onClose` follows. Idempotent.
   */
  abandon(): void;
  /** Drop the stream now; a TCP peer sees RST. `onClose` follows. Idempotent. */
  reset(error?: HeddleError): void;
  pause(): void;
  resume(): void;
}
