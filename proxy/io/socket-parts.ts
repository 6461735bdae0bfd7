// What the two kinds of socket streams share: the contract, the sockets they are made of, and how these are cut.

import type net from 'node:net';
import type { Duplex, DuplexListener } from '#lib/duplex.ts';
import { assert } from '#lib/errors.ts';

/** A Duplex over an established TCP connection. */
export interface SocketDuplex extends Duplex {
  /** The descriptor, for socket options; -1 once closed. */
  readonly fd: number;
}

/** The parts of an established connection that a socket is made of. */
export interface SocketParts {
  /** Read and written. */
  socket: net.Socket;
  /** Below a TLS socket; the same otherwise. */
  transport: net.Socket;
  /** Bytes given to the handle are taken at once, whatever it returns: TLS encrypts them into memory of its own. */
  copiesWrites: boolean;
}

/** What a stream has before its user sets a listener. */
export const NO_LISTENER: DuplexListener = {
  onData() {
    assert(false, 'a stream was resumed without a listener');
  },
  onEnd() {},
  onDrain() {},
  onClose() {},
};

/** Closes with RST. A TLS session goes with the socket below it. */
export function cut({ socket, transport }: SocketParts): void {
  transport.resetAndDestroy();
  if (socket !== transport) socket.destroy();
}

/** IPv4 addresses as such, also where a dual-stack socket shows them as IPv6. */
export function plainAddress(address: string | undefined): string {
  if (address === undefined) return '';
  return address.startsWith('::ffff:') ? address.slice(7) : address;
}
