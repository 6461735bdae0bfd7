// Network interfaces of the namespace the thread is in, set up by ioctl (netdevice(7)): enough for a namespace of our
// own, without an `ip` binary.

import { HeddleError } from './errors.ts';
import { allocate, bind, check, close } from './libc.ts';
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
