// Descriptors over Unix stream sockets (SCM_RIGHTS, unix(7)): sendmsg and recvmsg on a raw socket descriptor, never
// blocking. Node's own pipes can hand over handles only to Node, and drop descriptors that come with plain bytes.

import { HeddleError } from './errors.ts';
import { addressOf, allocate, bind, check, close, errno, holding, nameOfErrno } from './libc.ts';
import { SocketLevel } from './tcp-socket.ts';

/** The kernel's own bound per message (SCM_MAX_FD). */
export const DESCRIPTORS_MAX = 253;

const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;

// struct msghdr: name, namelen, iov, iovlen, control, controllen, flags, on 64-bit Linux.
const MSGHDR_BYTES = 56;
const CMSG_HEADER_BYTES = 16;

const sendmsgFn = bind('sendmsg', { arguments: ['i32', 'pointer', 'i32'], return: 'i64' });
const recvmsgFn = bind('recvmsg', { arguments: ['i32', 'pointer', 'i32'], return: 'i64' });

interface Message {
  header: Buffer;
  vector: Buffer;
  data: Buffer;
  control: Buffer;
}

/** CMSG_ALIGN: to the size of a long. */
function align(bytes: number): number {
  return (bytes + 7) & ~7;
}

function message(data: Buffer, controlBytes: number): Message {
  const vector = allocate(16);
  vector.writeBigUInt64LE(addressOf(data), 0);
  vector.writeBigUInt64LE(BigInt(data.length), 8);
  const control = allocate(Math.max(controlBytes, 8));
  const header = allocate(MSGHDR_BYTES);
  header.writeBigUInt64LE(addressOf(vector), 16);
  header.writeBigUInt64LE(1n, 24);
  if (controlBytes > 0) {
    header.writeBigUInt64LE(addressOf(control), 32);
    header.writeBigUInt64LE(BigInt(controlBytes), 40);
  }
  return { header, vector, data, control };
}

/**
 * Sends bytes, and the descriptors with the first of them. Returns how many bytes were taken, or null when the socket
 * is full (EAGAIN): then nothing was sent. When some were taken the descriptors went along: send the rest without.
 */
export function sendDescriptors(fd: number, bytes: Uint8Array, descriptors: readonly number[]): number | null {
  if (bytes.length === 0) {
    throw new HeddleError('bad-message', 'send descriptors: expected at least one byte of data to carry them');
  }
  if (descriptors.length > DESCRIPTORS_MAX) {
    throw new HeddleError(
      'bad-message',
      `send "${descriptors.length}" descriptors: expected at most ${DESCRIPTORS_MAX}`,
    );
  }
  const data = allocate(bytes.length);
  data.set(bytes);
  const used = CMSG_HEADER_BYTES + 4 * descriptors.length;
  const sent = message(data, descriptors.length === 0 ? 0 : align(used));
  if (descriptors.length > 0) {
    sent.control.writeBigUInt64LE(BigInt(used), 0);
    sent.control.writeInt32LE(SocketLevel.socket, 8);
    sent.control.writeInt32LE(SCM_RIGHTS, 12);
    for (const [index, descriptor] of descriptors.entries()) {
      sent.control.writeInt32LE(descriptor, CMSG_HEADER_BYTES + 4 * index);
    }
  }
  const result = holding([sent], () => Number(sendmsgFn(fd, sent.header, MSG_DONTWAIT | MSG_NOSIGNAL)));
  if (result < 0 && isAgain()) return null;
  return check(result, `send ${bytes.length} bytes and ${descriptors.length} descriptors on descriptor "${fd}"`);
}

export interface Received {
  /** Empty when the peer is done sending. */
  bytes: Buffer;
  /** The receiver's own now; it must close them. Close-on-exec is set. */
  descriptors: number[];
}

/**
 * Receives up to `bytesMax` bytes and the descriptors that came with them; null when nothing is there yet (EAGAIN).
 * A message with more than `descriptorsMax` descriptors is refused: those that arrived are closed.
 */
export function receiveDescriptors(fd: number, bytesMax: number, descriptorsMax: number): Received | null {
  const controlBytes = descriptorsMax === 0 ? 0 : align(CMSG_HEADER_BYTES + 4 * descriptorsMax);
  const received = message(allocate(Math.max(1, bytesMax)), controlBytes);
  const result = holding([received], () => Number(recvmsgFn(fd, received.header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)));
  if (result < 0 && isAgain()) return null;
  const length = check(result, `receive from descriptor "${fd}"`);
  const descriptors = parseControl(received.control, Number(received.header.readBigUInt64LE(40)));
  const isTruncated = (received.header.readInt32LE(48) & MSG_CTRUNC) !== 0;
  if (isTruncated || descriptors.length > descriptorsMax) {
    for (const descriptor of descriptors) close(descriptor);
    throw new HeddleError(
      'bad-message',
      `receive from descriptor "${fd}": expected at most ${descriptorsMax} descriptors`,
    );
  }
  return { bytes: received.data.subarray(0, length), descriptors };
}

function isAgain(): boolean {
  const name = nameOfErrno(errno());
  return name === 'EAGAIN' || name === 'EWOULDBLOCK';
}

function parseControl(control: Buffer, length: number): number[] {
  const descriptors: number[] = [];
  let offset = 0;
  while (offset + CMSG_HEADER_BYTES <= length) {
    const size = Number(control.readBigUInt64LE(offset));
    if (size < CMSG_HEADER_BYTES || offset + size > control.length) break;
    if (control.readInt32LE(offset + 8) === SocketLevel.socket && control.readInt32LE(offset + 12) === SCM_RIGHTS) {
      for (let at = offset + CMSG_HEADER_BYTES; at + 4 <= offset + size; at += 4)
        descriptors.push(control.readInt32LE(at));
    }
    offset += align(size);
  }
  return descriptors;
}
