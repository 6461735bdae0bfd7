// The one place that knows Node's stream handles. Sockets read and write through them directly: no stream objects per
// read, one shared buffer, and the kernel's answer to a write at once. Tried once at the start;
// a Node on which it does not behave as expected is served by the public stream interface instead (socket.ts).

import { randomUUID } from 'node:crypto';
import net from 'node:net';

/** What libuv reports through `onread`: bytes read, 0, or a negative error; UV_EOF at the end. */
export const UV_EOF = -4095;

/** A write that the kernel did not take at once. Its bytes must stay untouched until `oncomplete`. */
export interface WriteRequest {
  oncomplete: (status: number) => void;
  /** Set when it completed before `oncomplete` was. */
  writeStatus: number | null;
  /** Keeps the memory alive. */
  buffer?: Uint8Array;
}

/** The handle below a net.Socket or TLSSocket, as far as it is used here. */
export interface StreamHandle {
  readonly fd: number;
  onread: (unused?: ArrayBuffer) => Uint8Array | undefined;
  readStart(): number;
  readStop(): number;
  /** Reads go to this memory from now on. */
  useUserBuffer(buffer: Uint8Array): void;
  /** 0: written. Negative: failed. Else the request that completes later. */
  writeBuffer(request: null, bytes: Uint8Array): number | WriteRequest;
  /** Bytes that libuv holds. */
  readonly writeQueueSize: number;
}

interface StreamWrapBinding {
  streamBaseState: Int32Array;
  kReadBytesOrError: number;
}

/** Node versions whose handles were read and tried; others take the public interface. */
const NODE_MAJOR = 26;

let state: Int32Array | null = null;
let readBytesIndex = 0;

/** What the last `onread` call reported. */
export function lastRead(): number {
  return state![readBytesIndex]!;
}

function loadBinding(): boolean {
  if (Number(process.versions.node.split('.')[0]) !== NODE_MAJOR) return false;
  const { binding } = process as unknown as { binding?: (name: string) => Partial<StreamWrapBinding> };
  const wrap = binding?.call(process, 'stream_wrap');
  if (!(wrap?.streamBaseState instanceof Int32Array) || typeof wrap.kReadBytesOrError !== 'number') return false;
  state = wrap.streamBaseState;
  readBytesIndex = wrap.kReadBytesOrError;
  return true;
}

/** The handle of an open socket, or null where it is not what is expected. */
export function handleOf(socket: net.Socket): StreamHandle | null {
  const handle = (socket as unknown as { _handle: Partial<StreamHandle> | null })._handle;
  if (handle === null || handle === undefined) return null;
  const methods = ['readStart', 'readStop', 'useUserBuffer', 'writeBuffer'] as const;
  return methods.every((method) => typeof handle[method] === 'function') ? (handle as StreamHandle) : null;
}

/** Null until `canUseHandles` was asked. */
let isUsable: boolean | null = null;

/** True when this Node's handles may be used. */
export function canUseHandles(): boolean {
  isUsable ??= loadBinding();
  return isUsable;
}

/** Turns the handles off for the process, or back on where the self-test allows it: tests run both ways. */
export function useHandles(enabled: boolean): void {
  isUsable = enabled && loadBinding();
}

/**
 * Sends bytes to itself through handles, both the quick way and with a full socket buffer. On any surprise handles are
 * not used in this process. Call once at the start; resolves to whether they are used. Takes at most `timeoutMs`. The
 * connection is a Unix socket of the abstract kind: its buffers are small, and a pod's loopback is not touched.
 */
export async function selfTestHandles(timeoutMs = 2000): Promise<boolean> {
  if (!canUseHandles()) return false;
  isUsable = await echoThroughHandles(timeoutMs).catch(() => false);
  return isUsable;
}

/** More than a Unix socket's buffer takes, net.core.wmem_default. */
const PROBE_BYTES = 1 << 20;

function echoThroughHandles(timeoutMs: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const sockets: net.Socket[] = [];
  const server = net.createServer({ pauseOnConnect: true });
  const timer = setTimeout(() => finish(false), timeoutMs);
  const finish = (isGood: boolean): void => {
    clearTimeout(timer);
    for (const socket of sockets) socket.destroy();
    server.close();
    resolve(isGood);
  };
  server.on('error', () => finish(false));
  server.on('connection', (socket) => {
    sockets.push(socket);
    socket.on('error', () => finish(false));
    const handle = handleOf(socket);
    if (handle === null) return finish(false);
    countReads(handle, (isGood) => finish(isGood));
  });
  const path = `\0heddle-self-test-${randomUUID()}`;
  server.listen({ path }, () => {
    const client = net.connect({ path });
    client.pause();
    sockets.push(client);
    client.on('error', () => finish(false));
    client.on('connect', () => {
      const handle = handleOf(client);
      if (handle === null || !writeProbe(handle)) finish(false);
      else client.end();
    });
  });
  return promise;
}

/** One write the kernel takes, one it cannot. */
function writeProbe(handle: StreamHandle): boolean {
  const probe = Buffer.alloc(PROBE_BYTES, 7);
  if (handle.writeBuffer(null, probe.subarray(0, 100)) !== 0) return false;
  const request = handle.writeBuffer(null, probe);
  if (typeof request === 'number') return request === 0;
  request.buffer = probe;
  request.oncomplete = () => {};
  return handle.writeQueueSize > 0;
}

function countReads(handle: StreamHandle, finish: (isGood: boolean) => void): void {
  const buffer = Buffer.alloc(65_536);
  let bytes = 0;
  handle.useUserBuffer(buffer);
  handle.onread = () => {
    const count = lastRead();
    if (count > 0) {
      bytes += count;
      if (count > buffer.length || buffer[count - 1] !== 7) finish(false);
    } else if (count !== 0) finish(count === UV_EOF && bytes === 100 + PROBE_BYTES);
    return undefined;
  };
  if (handle.readStart() !== 0) finish(false);
}
