// What the layers above see of a connection that speaks HTTP, whichever version: HTTP/1.1 and HTTP/2 both implement
// these, so that accept, pools and drain know only one shape.

import type { HeddleError } from '#lib/errors.ts';
import type { HttpService } from '../http.ts';

/** The server's side of a connection: it reads requests and calls a service. */
export interface HttpServerConnection {
  /** Exchanges that have begun and not ended. */
  readonly activeExchanges: number;
  /** True when no exchange is under way and no part of a request has arrived. */
  readonly isIdle: boolean;
  /**
   * Ends the connection in order: exchanges under way finish, and so do requests that were on their way; the peer is
   * told (`Connection: close`, GOAWAY); a connection that stays idle closes soon. Idempotent.
   */
  drain(): void;
  /** Cuts the connection now; every exchange under way is reset. Idempotent. */
  close(error?: HeddleError): void;
}

export type HttpClientState = 'idle' | 'busy' | 'closed';

/** The client's side of a connection to one upstream. */
export interface HttpClientConnection extends HttpService {
  /** `idle`: takes an exchange. `busy`: takes none now. `closed`: never again. */
  readonly state: HttpClientState;
  /** Cuts the connection now; an exchange under way fails. Idempotent. */
  close(error?: HeddleError): void;
}
