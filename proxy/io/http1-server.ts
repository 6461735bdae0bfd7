// The server's side of an HTTP/1.1 connection (RFC 9112): drives the codec over a Duplex and calls a service for each
// request.

import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import type { HeddleError } from '#lib/errors.ts';
import type { HttpService } from '../http.ts';
import type { HttpServerConnection } from './http-connection.ts';

export interface Http1ServerOptions {
  service: HttpService;
  clock: Clock;
  /** The peer's mesh identity, or null. */
  clientIdentity: string | null;
  /** What was read from the stream before, such as for detection. */
  received?: Uint8Array;
  /** From the first byte of a request head to its end; a new connection's first byte included. */
  headerTimeoutMs?: number;
  /** Between the end of an exchange and the next request's first byte; 0: never. */
  idleTimeoutMs?: number;
  /** The request was refused by the codec and answered with `status`. */
  onBadRequest?(status: number, error: Error): void;
  /** The connection is gone. Null: in order. */
  onClose?(error: HeddleError | null): void;
}

/** Serves HTTP/1.1 on the stream from now on: takes its listener and resumes it. */
export declare function serveHttp1(duplex: Duplex, options: Http1ServerOptions): HttpServerConnection;
