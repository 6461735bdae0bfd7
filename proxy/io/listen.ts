// Accepting on a listening socket that somebody else made: the agent opens listeners inside the pod's network
// namespace and the worker inherits them as descriptors.

import net from 'node:net';
import { HeddleError } from '#lib/errors.ts';
import { type SocketDuplex, wrapSocket } from './socket.ts';

/** An accepted connection. It is paused: set `listener`, then `resume`. `fd` serves SO_ORIGINAL_DST. */
export type AcceptedSocket = SocketDuplex;

export interface Listener {
  /** Stops accepting; connections live on. Idempotent. */
  close(): void;
  /** Accepted connections that are open. */
  readonly connections: number;
  /** Connections that were closed at once because there were too many. */
  readonly refused: number;
}

export interface ListenOptions {
  /** Connections above this many are closed as soon as they are accepted. */
  connectionsMax?: number;
  /** TCP keep-alive on accepted sockets; 0 turns it off. Linkerd's chart: 10 s. */
  keepAliveMs?: number;
  /** Accepting failed for good. The listener is closed. */
  onError?(error: HeddleError): void;
}

export const CONNECTIONS_MAX = 16_384;
const KEEP_ALIVE_MS = 10_000;
/** As the agent opened the listeners; the kernel takes the least of this and net.core.somaxconn. */
const BACKLOG = 4_096;

/**
 * Accepts connections on the listening descriptor `fd`, which becomes the listener's, until `close`. Connections that
 * wait in the backlog are accepted from the next turn on.
 */
export function listenFd(
  fd: number,
  onConnection: (connection: AcceptedSocket) => void,
  options: ListenOptions = {},
): Listener {
  const keepAliveMs = options.keepAliveMs ?? KEEP_ALIVE_MS;
  const server = net.createServer({
    allowHalfOpen: true,
    pauseOnConnect: true,
    noDelay: true,
    keepAlive: keepAliveMs > 0,
    keepAliveInitialDelay: keepAliveMs,
  });
  server.maxConnections = options.connectionsMax ?? CONNECTIONS_MAX;
  let connections = 0;
  let refused = 0;
  server.on('connection', (socket) => {
    connections++;
    socket.on('close', () => connections--);
    onConnection(wrapSocket(socket));
  });
  server.on('drop', () => refused++);
  server.on('error', (cause) => {
    server.close();
    options.onError?.(new HeddleError('listen-failed', `accept on descriptor "${fd}": ${cause.message}`, { cause }));
  });
  // Node calls listen(2) again, which would shrink the backlog: what waits there while one worker replaces another.
  server.listen({ fd }, BACKLOG);
  return {
    close: () => void server.close(),
    get connections() {
      return connections;
    },
    get refused() {
      return refused;
    },
  };
}
