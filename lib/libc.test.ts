import { closeSync, mkdtempSync, openSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  allocate,
  capabilities,
  close,
  duplicate,
  hasBoundingCapability,
  isDumpable,
  isErrno,
  isOpen,
  nameOfErrno,
  openPidfd,
  Resource,
  resourceLimit,
  SystemError,
  setns,
  setResourceLimit,
  signalPidfd,
} from './libc.ts';
import {
  decodeSocketAddress,
  encodeSocketAddress,
  isListening,
  localAddress,
  netnsCookie,
  openTcpListener,
  originalDestination,
  peerCredentials,
  SocketLevel,
  SocketOption,
  socketOption,
} from './tcp-socket.ts';

function failure(run: () => unknown): SystemError {
  try {
    run();
  } catch (error) {
    if (error instanceof SystemError) return error;
    throw error;
  }
  throw new Error('expected a system call to fail');
}

describe('errors', () => {
  test('carry the number, its name and what was tried', () => {
    const error = failure(() => close(1_000_000));
    expect(error.errno).toBe(9);
    expect(error.errnoName).toBe('EBADF');
    expect(error.message).toBe('close descriptor "1000000": EBADF');
    expect(isErrno(error, 'EBADF')).toBe(true);
    expect(isErrno(error, 'ENOENT')).toBe(false);
  });

  test('an unknown number keeps its digits', () => {
    expect(nameOfErrno(4242)).toBe('errno 4242');
  });
});

describe('descriptors', () => {
  test('a copy stays open when the original closes', () => {
    const original = openSync('/proc/self/stat', 'r');
    const copy = duplicate(original, 50);
    closeSync(original);
    expect(copy).toBeGreaterThanOrEqual(50);
    expect(isOpen(copy)).toBe(true);
    close(copy);
    expect(isOpen(copy)).toBe(false);
  });
});

describe('processes', () => {
  test('capabilities agree with /proc', () => {
    const status = readFileSync('/proc/thread-self/status', 'utf8');
    const of = (field: string) => BigInt(`0x${new RegExp(`^${field}:\\s*(\\w+)`, 'm').exec(status)![1]}`);
    const own = capabilities();
    expect(own.effective).toBe(of('CapEff'));
    expect(own.permitted).toBe(of('CapPrm'));
    expect(own.inheritable).toBe(of('CapInh'));
    const bounding = of('CapBnd');
    for (const capability of [0, 7, 12, 21, 24, 40]) {
      expect(hasBoundingCapability(capability)).toBe(((bounding >> BigInt(capability)) & 1n) === 1n);
    }
  });

  test('a limit that was set reads back', () => {
    const before = resourceLimit(0, Resource.core);
    setResourceLimit(0, Resource.core, 0n, before.hard);
    expect(resourceLimit(0, Resource.core)).toEqual({ soft: 0n, hard: before.hard });
    setResourceLimit(0, Resource.core, before.soft, before.hard);
  });

  test('a pidfd asks whether its process lives, and one of nobody cannot be had', () => {
    const pidfd = openPidfd(process.pid);
    signalPidfd(pidfd, 0);
    close(pidfd);
    expect(failure(() => openPidfd(0x3fffff)).errnoName).toBe('ESRCH');
  });

  test('dumpable is what the kernel started the process with', () => {
    expect(isDumpable()).toBe(true);
  });
});

describe.runIf(process.getuid?.() === 0)('namespaces', () => {
  test('entering the own namespace changes nothing, and a file that is none is refused', () => {
    const before = readlinkSync('/proc/thread-self/ns/net');
    const own = openSync('/proc/thread-self/ns/net', 'r');
    setns(own);
    closeSync(own);
    expect(readlinkSync('/proc/thread-self/ns/net')).toBe(before);
    const file = openSync('/proc/self/stat', 'r');
    expect(failure(() => setns(file)).errnoName).toBe('EINVAL');
    closeSync(file);
  });
});

describe('sockets', () => {
  test.each([
    { address: '127.0.0.1', family: 4 },
    { address: '::1', family: 6 },
  ] as const)('a listener on $address is what was asked for', ({ address, family }) => {
    const fd = openTcpListener({ address, port: 0, backlog: 16 });
    const local = localAddress(fd)!;
    expect(local.address).toBe(address);
    expect(local.port).toBeGreaterThan(0);
    expect(isListening(fd)).toBe(true);
    expect(socketOption(fd, SocketLevel.socket, SocketOption.reuseAddress)).toBe(1);
    expect(netnsCookie(fd)).toBeGreaterThan(0n);
    expect(originalDestination(fd, family)).toBe(null);
    close(fd);
    expect(isListening(fd)).toBe(false);
  });

  test('a port that is taken is named in the error', () => {
    const first = openTcpListener({ address: '127.0.0.1', port: 0, backlog: 1 });
    const { port } = localAddress(first)!;
    const error = failure(() => openTcpListener({ address: '127.0.0.1', port, backlog: 1 }));
    expect(error.message).toBe(`bind "127.0.0.1" port "${port}": EADDRINUSE`);
    close(first);
  });

  test('addresses survive the round trip', () => {
    for (const address of ['10.1.2.3', '::1', 'fd00::12:3', '::ffff:10.1.2.3']) {
      expect(decodeSocketAddress(encodeSocketAddress(address, 4143))).toEqual({ address, port: 4143 });
    }
    expect(() => encodeSocketAddress('pod.example', 1)).toThrow('encode address "pod.example"');
    expect(decodeSocketAddress(allocate(16))).toBe(null);
  });

  test('the peer of a Unix socket is this process', async () => {
    const directory = mkdtempSync(path.join(os.tmpdir(), 'heddle-libc-'));
    const server = net.createServer().listen(path.join(directory, 's'));
    const client = net.connect(path.join(directory, 's'));
    await new Promise((resolve) => client.once('connect', resolve));
    const { fd } = (client as unknown as { _handle: { fd: number } })._handle;
    expect(peerCredentials(fd)).toEqual({ pid: process.pid, uid: process.getuid!(), gid: process.getgid!() });
    client.destroy();
    await new Promise((resolve) => server.close(resolve));
    rmSync(directory, { recursive: true });
  });
});
