// Sockets below Node: listeners made by hand (net.Server creates its socket too late to choose the namespace), socket
// options that Node does not offer, and the original destination of a redirected connection. socket(7), tcp(7).

import { HeddleError } from './errors.ts';
import { formatIpv4, formatIpv6, isIpv4, parseIp } from './ip-address.ts';
import { addressOf, allocate, bind, check, close, errno, isErrno, nameOfErrno, SystemError } from './libc.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;

export const SocketLevel = { ip: 0, socket: 1, tcp: 6, ipv6: 41 } as const;
export const SocketOption = {
  reuseAddress: 2,
  error: 4,
  acceptsConnections: 30,
  peerCredentials: 17,
  cookie: 57,
  netnsCookie: 71,
  ipTransparent: 19,
  ipv6Only: 26,
  ipv6Transparent: 75,
  originalDestination: 80,
} as const;

const socketFn = bind('socket', { arguments: ['i32', 'i32', 'i32'], return: 'i32' });
const bindFn = bind('bind', { arguments: ['i32', 'pointer', 'u32'], return: 'i32' });
const connectFn = bind('connect', { arguments: ['i32', 'pointer', 'u32'], return: 'i32' });
const acceptFn = bind('accept4', { arguments: ['i32', 'pointer', 'pointer', 'i32'], return: 'i32' });
const pollFn = bind('poll', { arguments: ['pointer', 'u64', 'i32'], return: 'i32' });
const listenFn = bind('listen', { arguments: ['i32', 'i32'], return: 'i32' });
const getsocknameFn = bind('getsockname', { arguments: ['i32', 'pointer', 'pointer'], return: 'i32' });
const getsockoptFn = bind('getsockopt', { arguments: ['i32', 'i32', 'i32', 'pointer', 'pointer'], return: 'i32' });
const setsockoptFn = bind('setsockopt', { arguments: ['i32', 'i32', 'i32', 'pointer', 'u32'], return: 'i32' });

export interface Endpoint {
  address: string;
  port: number;
}

/** `struct sockaddr_in` or `sockaddr_in6` of an address; throws on what is not an IP address. */
export function encodeSocketAddress(address: string, port: number): Buffer {
  const ip = parseIp(address);
  if (!ip) throw new HeddleError('bad-address', `encode address "${address}": expected an IPv4 or IPv6 address`);
  const isV6 = address.includes(':');
  const bytes = allocate(isV6 ? 28 : 16);
  bytes.writeUInt16LE(isV6 ? AF_INET6 : AF_INET, 0);
  bytes.writeUInt16BE(port, 2);
  if (isV6) ip.copy(bytes, 8);
  else ip.copy(bytes, 4, 12);
  return bytes;
}

/**
 * The address in a `sockaddr_in` or `sockaddr_in6`; null for other families. IPv4 on an IPv6 socket is written
 * `::ffff:10.1.2.3`, as Node does.
 */
export function decodeSocketAddress(bytes: Buffer): Endpoint | null {
  const family = bytes.readUInt16LE(0);
  if (family === AF_INET) return { address: formatIpv4(bytes, 4), port: bytes.readUInt16BE(2) };
  if (family !== AF_INET6) return null;
  const address = isIpv4(bytes, 8) ? `::ffff:${formatIpv4(bytes, 20)}` : formatIpv6(bytes, 8);
  return { address, port: bytes.readUInt16BE(2) };
}

/** A non-blocking TCP socket, closed in children that are not handed it. */
export function openTcpSocket(family: 4 | 6): number {
  const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  return check(socketFn(family === 6 ? AF_INET6 : AF_INET, type, 0), `open an IPv${family} TCP socket`);
}

export function bindSocket(fd: number, address: string, port: number): void {
  const encoded = encodeSocketAddress(address, port);
  check(bindFn(fd, encoded, encoded.length), `bind "${address}" port "${port}"`);
}

export function listenSocket(fd: number, backlog: number): void {
  check(listenFn(fd, backlog), `listen on descriptor "${fd}"`);
}

/**
 * A listening TCP socket in the namespace the thread is in. SO_REUSEADDR is always set: a steered connection shares
 * the bind bucket of the application's port, and without it the application could not bind again.
 */
export function openTcpListener(options: { address: string; port: number; backlog: number }): number {
  const { address, port, backlog } = options;
  const isV6 = address.includes(':');
  const fd = openTcpSocket(isV6 ? 6 : 4);
  try {
    setSocketOption(fd, SocketLevel.socket, SocketOption.reuseAddress, 1);
    if (isV6) setSocketOption(fd, SocketLevel.ipv6, SocketOption.ipv6Only, 1);
    bindSocket(fd, address, port);
    listenSocket(fd, backlog);
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

/** Starts to connect; the end of it, good or bad, is for {@link waitForSocket} and {@link socketError} to tell. */
export function startConnect(fd: number, address: string, port: number): void {
  const encoded = encodeSocketAddress(address, port);
  const result = connectFn(fd, encoded, encoded.length);
  if (result < 0 && nameOfErrno(errno()) === 'EINPROGRESS') return;
  check(result, `connect to "${address}" port "${port}"`);
}

/** The pending error of a socket, and clears it; null when there is none. */
export function socketError(fd: number): string | null {
  const value = socketOption(fd, SocketLevel.socket, SocketOption.error);
  return value === 0 ? null : nameOfErrno(value);
}

const POLLIN = 1;
const POLLOUT = 4;

/** Blocks the whole thread until the socket can be read or accepts (`in`), or has connected (`out`); false when not. */
export function waitForSocket(fd: number, what: 'in' | 'out', timeoutMs: number): boolean {
  const poll = allocate(8);
  poll.writeInt32LE(fd, 0);
  poll.writeInt16LE(what === 'in' ? POLLIN : POLLOUT, 4);
  return check(pollFn(poll, 1n, timeoutMs), `wait for descriptor "${fd}"`) === 1;
}

/** The next waiting connection, non-blocking and close-on-exec; null when there is none. */
export function acceptSocket(fd: number): number | null {
  const result = acceptFn(fd, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (result < 0 && ['EAGAIN', 'ECONNABORTED'].includes(nameOfErrno(errno()))) return null;
  return check(result, `accept on descriptor "${fd}"`);
}

/** The local address of a socket; null when it is not an IP socket. */
export function localAddress(fd: number): Endpoint | null {
  const bytes = allocate(28);
  const length = allocate(4);
  length.writeUInt32LE(bytes.length, 0);
  check(getsocknameFn(fd, bytes, length), `read the local address of descriptor "${fd}"`);
  return decodeSocketAddress(bytes);
}

/** Sets an integer option. */
export function setSocketOption(fd: number, level: number, option: number, value: number): void {
  const bytes = allocate(4);
  bytes.writeInt32LE(value, 0);
  check(setsockoptFn(fd, level, option, bytes, 4), `set option "${level}/${option}" of descriptor "${fd}"`);
}

/** Reads `size` bytes of an option. */
export function readSocketOption(fd: number, level: number, option: number, size: number): Buffer {
  const bytes = allocate(size);
  const length = allocate(4);
  length.writeUInt32LE(size, 0);
  check(getsockoptFn(fd, level, option, bytes, length), `read option "${level}/${option}" of descriptor "${fd}"`);
  return bytes.subarray(0, length.readUInt32LE(0));
}

export function socketOption(fd: number, level: number, option: number): number {
  return readSocketOption(fd, level, option, 4).readInt32LE(0);
}

/** True when the descriptor is a socket that listens. */
export function isListening(fd: number): boolean {
  try {
    return socketOption(fd, SocketLevel.socket, SocketOption.acceptsConnections) === 1;
  } catch (error) {
    if (isErrno(error, 'EBADF', 'ENOTSOCK')) return false;
    throw error;
  }
}

/** The kernel's number of the namespace the socket was made in; never reused while the kernel runs. Linux 5.14. */
export function netnsCookie(fd: number): bigint {
  return readSocketOption(fd, SocketLevel.socket, SocketOption.netnsCookie, 8).readBigUInt64LE(0);
}

/** The kernel's number of a socket (SO_COOKIE); the same for every descriptor of it. */
export function socketCookie(fd: number): bigint {
  return readSocketOption(fd, SocketLevel.socket, SocketOption.cookie, 8).readBigUInt64LE(0);
}

export interface PeerCredentials {
  pid: number;
  uid: number;
  gid: number;
}

/** Who connected to a Unix socket, as the kernel saw it (SO_PEERCRED). */
export function peerCredentials(fd: number): PeerCredentials {
  const bytes = readSocketOption(fd, SocketLevel.socket, SocketOption.peerCredentials, 12);
  return { pid: bytes.readInt32LE(0), uid: bytes.readUInt32LE(4), gid: bytes.readUInt32LE(8) };
}

// One call per accepted connection: the memory and its addresses are made once.
const destination = allocate(28);
const destinationLength = allocate(4);
let destinationAddress = 0n;
let destinationLengthAddress = 0n;

/**
 * Where a redirected connection was going before (SO_ORIGINAL_DST; IP6T_SO_ORIGINAL_DST has the same number). Null
 * when the connection was not redirected. `family` is that of the accepted socket's listener.
 */
export function originalDestination(fd: number, family: 4 | 6): Endpoint | null {
  if (destinationAddress === 0n) {
    destinationAddress = addressOf(destination);
    destinationLengthAddress = addressOf(destinationLength);
  }
  destinationLength.writeUInt32LE(family === 6 ? 28 : 16, 0);
  const level = family === 6 ? SocketLevel.ipv6 : SocketLevel.ip;
  const option = SocketOption.originalDestination;
  const result = getsockoptFn(fd, level, option, destinationAddress, destinationLengthAddress);
  if (result >= 0) return decodeSocketAddress(destination);
  const error = new SystemError(errno(), `read the original destination of descriptor "${fd}"`);
  // ENOPROTOOPT: no such option without a redirection; ENOENT: conntrack knows no translation; EOPNOTSUPP: no conntrack.
  if (isErrno(error, 'ENOPROTOOPT', 'ENOENT', 'EOPNOTSUPP')) return null;
  throw error;
}
