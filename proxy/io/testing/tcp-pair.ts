// Connected TCP streams on loopback, made the way the worker makes them: a listening descriptor and a connect.

import { localAddress, openTcpListener } from '#lib/tcp-socket.ts';
import { connectTcp } from '../connect.ts';
import { type AcceptedSocket, type Listener, type ListenOptions, listenFd } from '../listen.ts';
import type { SocketDuplex } from '../socket.ts';

/** A listener on a free port of loopback, over a descriptor as a worker inherits one. */
export function listenLoopback(
  onConnection: (connection: AcceptedSocket) => void,
  options: ListenOptions & { address?: string } = {},
): { listener: Listener; port: number } {
  const fd = openTcpListener({ address: options.address ?? '127.0.0.1', port: 0, backlog: 128 });
  return { listener: listenFd(fd, onConnection, options), port: localAddress(fd)!.port };
}

/** Two ends of one TCP connection: connecting end, accepting end. */
export async function tcpPair(): Promise<[SocketDuplex, SocketDuplex]> {
  const accepted = Promise.withResolvers<SocketDuplex>();
  const { port, listener } = listenLoopback(accepted.resolve);
  const client = await connectTcp({ address: '127.0.0.1', port, timeoutMs: 2000 });
  const server = await accepted.promise;
  listener.close();
  return [client, server];
}
