// Accepting on a listening socket that somebody else made: the agent opens listeners inside the pod's network
// namespace and the worker inherits them as descriptors.

import type { SocketDuplex } from './socket.ts';

/** An accepted connection. It is paused: set `listener`, then `resume`. `fd` serves SO_ORIGINAL_DST. */
export type AcceptedSocket = SocketDuplex;

export interface Listener {
  /** Stops accepting; connections live on. Idempotent. */
  close(): void;
  /** Accepted connections that are open. */
  readonly connections: number;
}

export interface ListenOptions {
  /** Connections above this many are closed as soon as they are accepted. */
  connectionsMax?: number;
  /** TCP keep-alive on accepted sockets; 0 turns it off. */
  keepAliveMs?: number;
}

/** Accepts connections on the listening descriptor `fd` until `close`. Throws HeddleError `listen-failed`. */
export declare function listenFd(
  fd: number,
  onConnection: (connection: AcceptedSocket) => void,
  options?: ListenOptions,
): Listener;
