// Unix stream sockets as raw descriptors (unix(7)), and named pipes (fifo(7)): what a child inherits, and what passed
// descriptors are read from. Node's own sockets own their descriptor and cannot give it away.

import { HeddleError } from './errors.ts';
import { allocate, bind, check, close } from './libc.ts';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
/** sizeof(sun_path) less the closing zero. */
export const UNIX_PATH_BYTES_MAX = 107;

const socketFn = bind('socket', { arguments: ['i32', 'i32', 'i32'], return: 'i32' });
const bindFn = bind('bind', { arguments: ['i32', 'pointer', 'u32'], return: 'i32' });
const listenFn = bind('listen', { arguments: ['i32', 'i32'], return: 'i32' });
const connectFn = bind('connect', { arguments: ['i32', 'pointer', 'u32'], return: 'i32' });
const mkfifoFn = bind('mkfifo', { arguments: ['pointer', 'u32'], return: 'i32' });

function encodePath(path: string): Buffer {
  const bytes = Buffer.byteLength(path);
  if (bytes > UNIX_PATH_BYTES_MAX) {
    throw new HeddleError(
      'path-too-long',
      `use the socket path "${path}": expected at most ${UNIX_PATH_BYTES_MAX} bytes`,
    );
  }
  const address = allocate(2 + bytes + 1);
  address.writeUInt16LE(AF_UNIX, 0);
  address.write(path, 2);
  return address;
}

function openSocket(): number {
  return check(socketFn(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'open a Unix socket');
}

/** A listening, non-blocking socket at `path`, which must not exist. Its mode follows the umask: chmod it. */
export function openUnixListener(path: string, backlog = 16): number {
  const address = encodePath(path);
  const fd = openSocket();
  try {
    check(bindFn(fd, address, address.length), `bind the socket "${path}"`);
    check(listenFn(fd, backlog), `listen on the socket "${path}"`);
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

/** A connected, non-blocking socket. Throws at once when nobody listens (ECONNREFUSED) or the backlog is full (EAGAIN). */
export function connectUnix(path: string): number {
  const address = encodePath(path);
  const fd = openSocket();
  try {
    check(connectFn(fd, address, address.length), `connect to the socket "${path}"`);
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

/** Makes a named pipe. */
export function makeFifo(path: string, mode: number): void {
  const name = allocate(Buffer.byteLength(path) + 1);
  name.write(path);
  check(mkfifoFn(name, mode), `make the named pipe "${path}"`);
}
