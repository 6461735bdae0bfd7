// What the two kinds of socket streams share: their contract, and what they are before anybody uses them.

import type { Duplex, DuplexListener } from '#lib/duplex.ts';
import { assert } from '#lib/errors.ts';

/** A Duplex over an established TCP connection. */
export interface SocketDuplex extends Duplex {
  /** The descriptor, for socket options; -1 once closed. */
  readonly fd: number;
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

/** IPv4 addresses as such, also where a dual-stack socket shows them as IPv6. */
export function plainAddress(address: string | undefined): string {
  if (address === undefined) return '';
  return address.startsWith('::ffff:') ? address.slice(7) : address;
}
