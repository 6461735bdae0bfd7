// The client's side of an HTTP/1.1 connection (RFC 9112): one exchange at a time over a Duplex.

import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import type { HttpClientConnection } from './http-connection.ts';

export interface Http1ClientOptions {
  clock: Clock;
  /** The exchange ended and the connection can take another. */
  onIdle?(): void;
  /** The connection is gone or takes no further exchange. Called once. */
  onClosed?(): void;
}

/** Speaks HTTP/1.1 on the stream from now on: takes its listener and resumes it. `call` while not idle fails the exchange. */
export declare function connectHttp1(duplex: Duplex, options: Http1ClientOptions): HttpClientConnection;
