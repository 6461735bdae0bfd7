// Where a redirected connection was going. Steered inbound connections (sk_lookup, tproxy) keep the address they were
// made to as their local one; where the node can only rewrite addresses (nftables redirect) they arrive at the
// listener's own port, and the kernel keeps the destination, as it does for outbound ones (SO_ORIGINAL_DST).

import { LISTENER_FIRST_FD, LISTENER_NAMES, type ListenerName } from '#api/worker-link.ts';
import { localAddress, originalDestination as readOriginalDestination } from '#lib/tcp-socket.ts';
import type { Target } from './inbound/labels.ts';
import type { AcceptedSocket } from './io/listen.ts';

const listenerPorts = new Map<ListenerName, number>();

/** The port of an inherited listener; it never changes. */
function listenerPort(name: ListenerName): number {
  let port = listenerPorts.get(name);
  if (port === undefined) {
    port = localAddress(LISTENER_FIRST_FD + LISTENER_NAMES.indexOf(name))?.port ?? 0;
    listenerPorts.set(name, port);
  }
  return port;
}

/** Null for a connection that was not redirected: somebody in the pod dialled the listener itself. */
export function originalDestination(name: ListenerName, connection: AcceptedSocket): Target | null {
  const { localAddress: address, localPort: port } = connection;
  const isInbound = name === 'inbound4' || name === 'inbound6';
  if (isInbound && port !== listenerPort(name)) return { address, port };
  const isIpv6 = name === 'inbound6' || name === 'outbound6';
  const original = readOriginalDestination(connection.fd, isIpv6 ? 6 : 4);
  // Connection tracking says of a connection that nobody rewrote that it was going where it is: to this worker.
  return original?.address === address && original.port === port ? null : original;
}
