// Where a redirected connection was going. Inbound connections are steered without translation (sk_lookup), so the
// local address of the accepted socket is the answer; for outbound ones the kernel keeps it (SO_ORIGINAL_DST).

import type { ListenerName } from '#api/worker-link.ts';
import { originalDestination as readOriginalDestination } from '#lib/tcp-socket.ts';
import type { Target } from './inbound/labels.ts';
import type { AcceptedSocket } from './io/listen.ts';

/** Null for an outbound connection that was not redirected: somebody in the pod dialled the listener itself. */
export function originalDestination(name: ListenerName, connection: AcceptedSocket): Target | null {
  switch (name) {
    case 'inbound4':
    case 'inbound6':
      return { address: connection.localAddress, port: connection.localPort };
    case 'outbound4':
      return readOriginalDestination(connection.fd, 4);
    case 'outbound6':
      return readOriginalDestination(connection.fd, 6);
  }
}
