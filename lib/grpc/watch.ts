// A server stream that is opened again whenever it ends, with back-off: what every subscriber of the control plane does
// (linkerd2-proxy-api: all ends but INVALID_ARGUMENT and FAILED_PRECONDITION are followed by a new subscription).

import type { Backoff } from '../backoff.ts';
import type { Clock, Timer } from '../clock.ts';
import type { OpenStream, StreamListener } from './client.ts';
import { Status } from './status.ts';

export interface WatchOptions<T> {
  /** Opens the stream once more. */
  open(listener: StreamListener<T>): OpenStream;
  onMessage(message: T): void;
  /** The stream ended; `willRetry` is false when it will not be opened again. */
  onEnd(status: Status, details: string, willRetry: boolean): void;
  clock: Clock;
  backoff: Backoff;
}

/** The server says that the question itself is wrong: asking again cannot help. */
export function isTerminal(status: Status): boolean {
  return status === Status.invalidArgument || status === Status.failedPrecondition;
}

/** Watches until closed or refused for good. The back-off starts again with each message. */
export function watch<T>(options: WatchOptions<T>): OpenStream {
  let isClosed = false;
  let stream: OpenStream | null = null;
  let timer: Timer | null = null;
  const open = () => {
    timer = null;
    stream = options.open({
      message: (message) => {
        options.backoff.reset();
        options.onMessage(message);
      },
      end: (status, details) => {
        if (isClosed) return;
        stream = null;
        const willRetry = !isTerminal(status);
        if (willRetry) timer = options.clock.after(options.backoff.next(), open);
        else isClosed = true;
        options.onEnd(status, details, willRetry);
      },
    });
  };
  open();
  return {
    close: () => {
      isClosed = true;
      timer?.cancel();
      stream?.close();
    },
  };
}
