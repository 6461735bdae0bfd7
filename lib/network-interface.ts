// Network interfaces of the namespace the thread is in, by ioctl (netdevice(7)) and netlink (rtnetlink(7)): enough to
// furnish a namespace of our own, without an `ip` binary.

import { HeddleError } from './errors.ts';
import { allocate, bind, check, close, SystemError } from './libc.ts';
import { encodeSocketAddress, openTcpSocket } from './tcp-socket.ts';

const SIOCGIFFLAGS = 0x8913n;
const SIOCSIFFLAGS = 0x8914n;
const SIOCSIFADDR = 0x8916n;
const IFF_UP = 1;

// struct ifreq: a name of 16 bytes, then a union of 24.
const IFREQ_BYTES = 40;
const NAME_BYTES = 16;

const ioctlFn = bind('ioctl', { arguments: ['i32', 'u64', 'pointer'], return: 'i32' });

/** Brings an interface up. */
export function setInterfaceUp(name: string): void {
  const request = interfaceRequest(name);
  withSocket((fd) => {
    check(ioctlFn(fd, SIOCGIFFLAGS, request), `read the flags of interface "${name}"`);
    request.writeInt16LE(request.readInt16LE(NAME_BYTES) | IFF_UP, NAME_BYTES);
    check(ioctlFn(fd, SIOCSIFFLAGS, request), `bring interface "${name}" up`);
  });
}

/** Gives an interface, or an alias of it such as `lo:0`, an IPv4 address. */
export function setInterfaceAddress(name: string, ipv4: string): void {
  const request = interfaceRequest(name);
  encodeSocketAddress(ipv4, 0).copy(request, NAME_BYTES);
  withSocket((fd) => check(ioctlFn(fd, SIOCSIFADDR, request), `give interface "${name}" the address "${ipv4}"`));
}

const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const RTM_NEWLINK = 16;
const NLM_F_REQUEST_ACK_EXCL_CREATE = 0x1 | 0x4 | 0x200 | 0x400;
const IFLA_IFNAME = 3;
const IFLA_LINKINFO = 18;
const IFLA_INFO_KIND = 1;
const NLMSG_HEADER_BYTES = 16;
const IFINFO_BYTES = 16;

const socketFn = bind('socket', { arguments: ['i32', 'i32', 'i32'], return: 'i32' });
const sendFn = bind('send', { arguments: ['i32', 'pointer', 'u64', 'i32'], return: 'i64' });
const recvFn = bind('recv', { arguments: ['i32', 'pointer', 'u64', 'i32'], return: 'i64' });

/** Makes a pair of connected Ethernet interfaces, `name` and one that the kernel names; both are down. */
export function createVethPair(name: string): void {
  const kind = netlinkAttribute(IFLA_INFO_KIND, Buffer.from('veth\0'));
  const attributes = Buffer.concat([
    netlinkAttribute(IFLA_IFNAME, Buffer.from(`${name}\0`)),
    netlinkAttribute(IFLA_LINKINFO, kind),
  ]);
  const message = allocate(NLMSG_HEADER_BYTES + IFINFO_BYTES + attributes.length);
  message.writeUInt32LE(message.length, 0);
  message.writeUInt16LE(RTM_NEWLINK, 4);
  message.writeUInt16LE(NLM_F_REQUEST_ACK_EXCL_CREATE, 6);
  attributes.copy(message, NLMSG_HEADER_BYTES + IFINFO_BYTES);
  const action = `make interface "${name}"`;
  const fd = check(socketFn(AF_NETLINK, SOCK_RAW_CLOEXEC, 0), action);
  try {
    check(sendFn(fd, message, BigInt(message.length), 0), action);
    // The answer is there when send returns: rtnetlink works in the sender's own time.
    const answer = allocate(1024);
    check(recvFn(fd, answer, BigInt(answer.length), 0), action);
    const error = -answer.readInt32LE(NLMSG_HEADER_BYTES);
    if (error !== 0) throw new SystemError(error, action);
  } finally {
    close(fd);
  }
}

function netlinkAttribute(type: number, value: Buffer): Buffer {
  const attribute = Buffer.alloc((4 + value.length + 3) & ~3);
  attribute.writeUInt16LE(4 + value.length, 0);
  attribute.writeUInt16LE(type, 2);
  value.copy(attribute, 4);
  return attribute;
}

function interfaceRequest(name: string): Buffer {
  if (Buffer.byteLength(name) >= NAME_BYTES) {
    throw new HeddleError('bad-interface', `use interface "${name}": expected a name of less than ${NAME_BYTES} bytes`);
  }
  const request = allocate(IFREQ_BYTES);
  request.write(name);
  return request;
}

function withSocket(run: (fd: number) => void): void {
  const fd = openTcpSocket(4);
  try {
    run(fd);
  } finally {
    close(fd);
  }
}
