// A Duplex over a TCP socket. Bytes are read into one buffer that all sockets of the process share, and written from
// memory that is handed to the kernel at once; only what the kernel does not take is kept.

import type net from 'node:net';
import type { Duplex } from '#lib/duplex.ts';

/** A Duplex over an established TCP connection. */
export interface SocketDuplex extends Duplex {
  /** The descriptor, for socket options; -1 once closed. */
  readonly fd: number;
}

/** Takes over an established socket: nobody else may read, write or listen to it from now on. It starts paused. */
export declare function wrapSocket(socket: net.Socket): SocketDuplex;
