// The first bytes of a connection, read before anybody owns it: enough to decide who should. What was read is handed
// on, never lost.

import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';

export interface PeekOptions {
  clock: Clock;
  /** What was read before. */
  received?: Uint8Array;
  /** Reading ends when this many bytes are there, decided or not. */
  bytesMax: number;
  timeoutMs: number;
  /** True when the bytes so far decide. Asked after each read. */
  isEnough(bytes: Uint8Array): boolean;
}

export interface Peeked {
  /** All bytes so far, a copy. */
  bytes: Buffer;
  /** `enough` also where `bytesMax` was reached. `end`: the client finished sending. */
  reason: 'enough' | 'timeout' | 'end';
}

/**
 * Reads until enough is there. The stream is paused afterwards, and whoever takes it next sets its listener before
 * anything else happens to it (the promise resolves in the turn of the read). Rejects with `client-gone` when the
 * stream closes first.
 */
export function peek(stream: Duplex, options: PeekOptions): Promise<Peeked> {
  const { clock, received, bytesMax, timeoutMs, isEnough } = options;
  const { promise, resolve, reject } = Promise.withResolvers<Peeked>();
  let bytes: Buffer = received ? Buffer.from(received) : Buffer.alloc(0);
  if (bytes.length > 0 && (bytes.length >= bytesMax || isEnough(bytes))) {
    resolve({ bytes, reason: 'enough' });
    return promise;
  }
  const timer = clock.after(timeoutMs, () => settle('timeout'));
  const settle = (reason: Peeked['reason']): void => {
    timer.cancel();
    stream.pause();
    resolve({ bytes, reason });
  };
  stream.listener = {
    onData: (buffer, start, end) => {
      const more = buffer.subarray(start, end);
      bytes = bytes.length === 0 ? Buffer.from(more) : Buffer.concat([bytes, more]);
      if (bytes.length >= bytesMax || isEnough(bytes)) settle('enough');
    },
    onEnd: () => settle('end'),
    onDrain: () => {},
    onClose: (error) => {
      timer.cancel();
      reject(
        new HeddleError('client-gone', 'read from the client: connection closed', {
          source: 'downstream',
          cause: error,
        }),
      );
    },
  };
  stream.resume();
  return promise;
}

/** What `work` gives, unless the paused stream closes first: then it rejects with `client-gone`. */
export function unlessGone<T>(stream: Duplex, work: Promise<T>): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  stream.listener = {
    onData: () => {},
    onEnd: () => {},
    onDrain: () => {},
    onClose: (cause) => {
      reject(new HeddleError('client-gone', 'wait for a client: connection closed', { source: 'downstream', cause }));
    },
  };
  work.then(resolve, reject);
  return promise;
}

/**
 * Watches a paused stream that waits for something else, such as the connection to the application: `controller`
 * aborts when it closes. Setting another listener ends the watch.
 */
export function abortOnClose(stream: Duplex, controller: AbortController): void {
  stream.listener = {
    onData: () => {},
    onEnd: () => {},
    onDrain: () => {},
    onClose: (error) => controller.abort(error ?? new HeddleError('client-gone', 'client closed the connection')),
  };
}
