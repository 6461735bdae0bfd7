// A program in a pod, told what to do over IPC: serves, dials through raw system calls so that every socket option and
// every address form can be tried, and reports what it sees. It knows nothing of a mesh, as applications do not.

import dgram from 'node:dgram';
import net from 'node:net';
import { bind, check, close, errno, nameOfErrno, SystemError } from '#lib/libc.ts';
import {
  bindSocket,
  decodeSocketAddress,
  type Endpoint,
  encodeSocketAddress,
  listenSocket,
  localAddress,
  setSocketOption,
  socketOption,
} from '#lib/tcp-socket.ts';
import type { Command, DialOptions, DialResult, FloodResult } from './peer.ts';

const IO_TIMEOUT_S = 5;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_RCVTIMEO = 20;
const SO_SNDTIMEO = 21;
const SO_BINDTODEVICE = 25;
const SO_MARK = 36;
const MSG_FASTOPEN = 0x20000000;
const SHUT_WR = 1;
const IPPROTO_TCP = 6;
const IPPROTO_MPTCP = 262;
const TCP_NODELAY = 1;

const socketFn = bind('socket', { arguments: ['i32', 'i32', 'i32'], return: 'i32' });
const connectFn = bind('connect', { arguments: ['i32', 'pointer', 'u32'], return: 'i32' });
const sendtoFn = bind('sendto', { arguments: ['i32', 'pointer', 'u64', 'i32', 'pointer', 'u32'], return: 'i64' });
const recvFn = bind('recv', { arguments: ['i32', 'pointer', 'u64', 'i32'], return: 'i64' });
const shutdownFn = bind('shutdown', { arguments: ['i32', 'i32'], return: 'i32' });
const getpeernameFn = bind('getpeername', { arguments: ['i32', 'pointer', 'pointer'], return: 'i32' });
const setsockoptFn = bind('setsockopt', { arguments: ['i32', 'i32', 'i32', 'pointer', 'u32'], return: 'i32' });

const servers: net.Server[] = [];
const held: net.Socket[] = [];

/** Answers each connection with one line of JSON about it, then echoes until the end. */
async function serve(command: Extract<Command, { op: 'serve' }>): Promise<Endpoint> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
    const isNoDelay = socketOption(fd, IPPROTO_TCP, TCP_NODELAY) !== 0;
    const seen = { server: command.name, isNoDelay, peer: socket.remoteAddress, localAddress: socket.localAddress };
    socket.write(`${JSON.stringify({ ...seen, peerPort: socket.remotePort, localPort: socket.localPort })}\n`);
    socket.pipe(socket);
  });
  servers.push(server);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port: command.port, host: command.host ?? '::' }, resolve);
  });
  const bound = server.address() as net.AddressInfo;
  return { address: bound.address, port: bound.port };
}

/** Closes the listening sockets; connections go on. */
function stopServing(): void {
  for (const server of servers.splice(0)) server.close();
}

async function serveUdp(port: number): Promise<number> {
  const socket = dgram.createSocket({ type: 'udp6', ipv6Only: false });
  socket.on('message', (message, from) => socket.send(message, from.port, from.address));
  await new Promise<void>((resolve) => socket.bind(port, '::', resolve));
  return socket.address().port;
}

function setTimeouts(fd: number): void {
  const value = Buffer.alloc(16);
  value.writeBigInt64LE(BigInt(IO_TIMEOUT_S), 0);
  for (const option of [SO_RCVTIMEO, SO_SNDTIMEO])
    check(setsockoptFn(fd, SOL_SOCKET, option, value, 16), 'set a timeout');
}

function openSocket(options: DialOptions, isUdp: boolean): number {
  const family = options.host.includes(':') ? 10 : 2;
  const protocol = options.mptcp ? IPPROTO_MPTCP : 0;
  const fd = check(socketFn(family, isUdp ? 2 : 1, protocol), 'open a socket');
  setTimeouts(fd);
  if (options.mark) setSocketOption(fd, SOL_SOCKET, SO_MARK, options.mark);
  if (options.bind) bindSocket(fd, options.bind, options.bindPort ?? 0);
  if (options.device) {
    const name = Buffer.from(`${options.device}\0`);
    check(setsockoptFn(fd, SOL_SOCKET, SO_BINDTODEVICE, name, name.length), 'bind to a device');
  }
  return fd;
}

function connectTo(fd: number, host: string, port: number): void {
  const encoded = encodeSocketAddress(host, port);
  check(connectFn(fd, encoded, encoded.length), 'connect');
}

function peerOf(fd: number): Endpoint | null {
  const bytes = Buffer.alloc(28);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length, 0);
  check(getpeernameFn(fd, bytes, length), 'getpeername');
  return decodeSocketAddress(bytes);
}

function receiveLine(fd: number): string {
  const chunk = Buffer.alloc(4096);
  let text = '';
  while (!text.includes('\n')) {
    const length = check(recvFn(fd, chunk, BigInt(chunk.length), 0), 'receive');
    if (length === 0) break;
    text += chunk.toString('utf8', 0, length);
  }
  return text;
}

function send(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  check(sendtoFn(fd, bytes, BigInt(bytes.length), 0, null, 0), 'send');
}

/** One connection from start to end; errors become their names. */
function dial(options: DialOptions): DialResult {
  const result: DialResult = { error: null, peer: null, local: null, isNoDelay: null, reply: null, echo: null };
  let fd = -1;
  try {
    fd = openSocket(options, false);
    if (options.first) {
      const { host, port } = options.first;
      const encoded = encodeSocketAddress(host, port);
      const failed = connectFn(fd, encoded, encoded.length) < 0;
      result.firstError = failed ? nameOfErrno(errno()) : null;
      // AF_UNSPEC dissolves the association; the socket may connect again.
      if (!failed) check(connectFn(fd, Buffer.alloc(16), 16), 'disconnect');
    }
    if (options.fastOpen) {
      const encoded = encodeSocketAddress(options.host, options.port);
      check(sendtoFn(fd, Buffer.from('tfo'), 3n, MSG_FASTOPEN, encoded, encoded.length), 'send with fast open');
    } else connectTo(fd, options.host, options.port);
    result.peer = peerOf(fd);
    result.local = localAddress(fd);
    result.isNoDelay = socketOption(fd, IPPROTO_TCP, TCP_NODELAY) !== 0;
    const line = receiveLine(fd);
    result.reply = line === '' ? null : JSON.parse(line.slice(0, line.indexOf('\n')));
    if (options.echo !== undefined) {
      send(fd, options.echo);
      check(shutdownFn(fd, SHUT_WR), 'shut down');
      result.echo = line.slice(line.indexOf('\n') + 1) + receiveLine(fd);
    }
  } catch (error) {
    result.error = error instanceof SystemError ? error.errnoName : String(error);
  } finally {
    if (fd >= 0) close(fd);
  }
  return result;
}

function udp(options: DialOptions): string | null {
  const fd = openSocket(options, true);
  try {
    connectTo(fd, options.host, options.port);
    send(fd, 'ping');
    const chunk = Buffer.alloc(64);
    return chunk.toString('utf8', 0, check(recvFn(fd, chunk, 64n, 0), 'receive'));
  } catch (error) {
    return error instanceof SystemError ? error.errnoName : String(error);
  } finally {
    close(fd);
  }
}

/** Many short connections with one echo each, without retries. */
async function flood(command: Extract<Command, { op: 'flood' }>): Promise<FloodResult> {
  const result: FloodResult = { complete: 0, failures: [] };
  let left = command.connections;
  const one = (number: number) =>
    new Promise<void>((resolve) => {
      const payload = `payload-${number}`;
      let text = '';
      const socket = net.connect({ host: command.host, port: command.port, allowHalfOpen: true });
      socket.setTimeout(IO_TIMEOUT_S * 1000, () => socket.destroy(new Error('timeout')));
      socket.on('connect', () => socket.end(payload));
      socket.on('data', (chunk) => {
        text += chunk;
      });
      socket.on('error', (error) => result.failures.push(error.message));
      socket.on('close', (hadError) => {
        if (!hadError && text.slice(text.indexOf('\n') + 1) === payload) result.complete++;
        else if (!hadError) result.failures.push(`short answer "${text}"`);
        resolve();
      });
    });
  const run = async () => {
    while (left > 0) await one(left--);
  };
  await Promise.all(Array.from({ length: command.parallel }, run));
  return result;
}

/** Binds and listens as programs do, with or without SO_REUSEADDR. Says which call failed and why. */
function bindAndListen(command: Extract<Command, { op: 'bindAndListen' }>): string | null {
  const fd = check(socketFn(command.host.includes(':') ? 10 : 2, 1, 0), 'open a socket');
  try {
    if (command.reuse) setSocketOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    bindSocket(fd, command.host, command.port);
    listenSocket(fd, 8);
    return null;
  } catch (error) {
    return error instanceof SystemError ? error.errnoName : String(error);
  } finally {
    close(fd);
  }
}

/** Opens connections that stay open until `release`. */
async function hold(command: Extract<Command, { op: 'hold' }>): Promise<void> {
  const socket = net.connect({ host: command.host, port: command.port });
  held.push(socket);
  await new Promise<void>((resolve, reject) => {
    socket.once('data', () => resolve());
    socket.once('error', reject);
  });
  socket.on('error', () => {});
}

function release(): void {
  for (const socket of held.splice(0)) socket.end();
}

/** Echoes on every held connection; the number that answered. */
async function touchHeld(): Promise<number> {
  const answers = held.map(
    (socket) =>
      new Promise<number>((resolve) => {
        if (socket.destroyed) resolve(0);
        socket.once('data', () => resolve(1));
        socket.once('close', () => resolve(0));
        socket.write('still there?');
      }),
  );
  return (await Promise.all(answers)).reduce((sum, answer) => sum + answer, 0);
}

async function run(command: Command): Promise<unknown> {
  switch (command.op) {
    case 'serve':
      return serve(command);
    case 'stopServing':
      return stopServing();
    case 'serveUdp':
      return serveUdp(command.port);
    case 'dial':
      return dial(command);
    case 'udp':
      return udp(command);
    case 'flood':
      return flood(command);
    case 'bindAndListen':
      return bindAndListen(command);
    case 'hold':
      return hold(command);
    case 'touchHeld':
      return touchHeld();
    case 'release':
      return release();
    case 'setUid':
      return process.setuid!(command.uid);
  }
}

process.on('disconnect', () => process.exit(0));
process.on('message', (message: { id: number; command: Command }) => {
  const answer = (value: object) => process.send!({ id: message.id, ...value });
  run(message.command).then(
    (result) => answer({ result: result ?? null }),
    (error: Error) => answer({ failure: error.message }),
  );
});
process.send!({ id: 0, result: null });
