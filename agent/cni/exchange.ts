// One connection of the plugin: receive a request and its descriptor, call the handler within its deadline, answer.
// The descriptor is received by recvmsg on the socket's own descriptor, which Node has not begun to read: Node's read
// would drop it. Node has no readiness event without a read, so the first milliseconds are polled; a plugin sends at
// once, and a silent peer is cut off after REQUEST_MS.

import type { Socket } from 'node:net';
import { CniCode, type CniOperation, type CniReply, type CniRequest } from '#api/cni-message.ts';
import type { Clock, Timer } from '#lib/clock.ts';
import { describeError, HeddleError } from '#lib/errors.ts';
import { close } from '#lib/libc.ts';
import { receiveDescriptors } from '#lib/unix-descriptors.ts';
import { type CniHandler, cniFailed } from './handler.ts';
import { checkNetns } from './netns-descriptor.ts';
import { encodeReply, FRAME_HEADER_BYTES, frameLength, parseRequest } from './request.ts';

/** How long a peer may take to send its whole request. */
export const REQUEST_MS = 2_000;
const CHUNK_BYTES = 64 * 1024;
const POLL_MS_MIN = 1;
const POLL_MS_MAX = 10;

export interface ExchangeOptions {
  socket: Socket;
  fd: number;
  handler: CniHandler;
  clock: Clock;
}

export interface ExchangeResult {
  /** null when no request was understood. */
  op: CniOperation | null;
  reply: CniReply;
}

/** Runs the exchange to its end. Resolves when the handler is done too, even one that overran its deadline. */
export async function runExchange(options: ExchangeOptions): Promise<ExchangeResult> {
  const { socket } = options;
  const received = await receiveRequest(options);
  if ('refusal' in received) {
    socket.end(encodeReply(received.refusal));
    return { op: null, reply: received.refusal };
  }
  const { request, descriptor } = received;
  try {
    const refusal = descriptor === null ? null : checkNetns(request, descriptor);
    if (refusal) {
      socket.end(encodeReply(refusal));
      return { op: request.op, reply: refusal };
    }
    return { op: request.op, reply: await handle(options, request, descriptor ?? -1) };
  } finally {
    if (descriptor !== null) close(descriptor);
  }
}

type Received = { request: CniRequest; descriptor: number | null } | { refusal: CniReply };

async function receiveRequest(options: ExchangeOptions): Promise<Received> {
  const descriptors: number[] = [];
  const refuse = (refusal: CniReply): Received => {
    for (const descriptor of descriptors) close(descriptor);
    return { refusal };
  };
  let body: Buffer | CniReply;
  try {
    body = await receiveBody(options, descriptors);
  } catch (error) {
    return refuse(cniFailed(CniCode.decodeFailure, `receive the request: ${describeError(error)}`));
  }
  if (!Buffer.isBuffer(body)) return refuse(body);
  const parsed = parseRequest(body);
  if ('refusal' in parsed) return refuse(parsed.refusal);
  const { request } = parsed;
  const expected = request.op === 'ADD' || request.op === 'CHECK' ? 1 : 0;
  if (descriptors.length !== expected) {
    const message = `${request.op} came with ${descriptors.length} descriptors: expected ${expected}`;
    return refuse(cniFailed(CniCode.decodeFailure, message));
  }
  return { request, descriptor: descriptors[0] ?? null };
}

/** The body of the one frame; descriptors that arrive are put into `descriptors` at once, so that none is lost. */
async function receiveBody(options: ExchangeOptions, descriptors: number[]): Promise<Buffer | CniReply> {
  const { socket, fd, clock } = options;
  const deadlineMs = clock.nowMs() + REQUEST_MS;
  const chunks: Buffer[] = [];
  let bytes = 0;
  let wanted = FRAME_HEADER_BYTES;
  let length: number | null = null;
  let pollMs = POLL_MS_MIN;
  while (bytes < wanted) {
    if (socket.destroyed) return cniFailed(CniCode.ioFailure, 'the plugin closed the connection');
    const part = receiveDescriptors(fd, CHUNK_BYTES, 1);
    if (part === null) {
      if (clock.nowMs() >= deadlineMs) {
        return cniFailed(CniCode.decodeFailure, `request incomplete after ${REQUEST_MS} ms: got ${bytes} bytes`);
      }
      await after(clock, pollMs);
      pollMs = Math.min(POLL_MS_MAX, pollMs * 2);
      continue;
    }
    descriptors.push(...part.descriptors);
    if (part.bytes.length === 0) {
      return cniFailed(CniCode.decodeFailure, `request ends after ${bytes} bytes: expected ${wanted}`);
    }
    pollMs = POLL_MS_MIN;
    chunks.push(part.bytes);
    bytes += part.bytes.length;
    if (length === null && bytes >= FRAME_HEADER_BYTES) {
      const announced = frameLength(Buffer.concat(chunks).subarray(0, FRAME_HEADER_BYTES));
      if (typeof announced !== 'number') return announced;
      length = announced;
      wanted = FRAME_HEADER_BYTES + length;
    }
  }
  if (bytes > wanted) {
    return cniFailed(CniCode.decodeFailure, `${bytes - wanted} bytes after the request: expected one request only`);
  }
  return Buffer.concat(chunks).subarray(FRAME_HEADER_BYTES);
}

function after(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => {
    clock.after(delayMs, resolve);
  });
}

/** Says "accepted", calls the handler, and answers once: with its reply, or with code 104 at the deadline. */
async function handle(options: ExchangeOptions, request: CniRequest, netnsFd: number): Promise<CniReply> {
  const { socket, clock } = options;
  const abort = new AbortController();
  let isAnswered = false;
  const answer = (reply: CniReply): void => {
    isAnswered = true;
    socket.end(encodeReply(reply));
  };
  const gone = (): void => {
    if (!isAnswered) abort.abort(new HeddleError('plugin-gone', 'the runtime gave up waiting for the plugin'));
  };
  socket.once('end', gone);
  socket.once('close', gone);
  // From here on nothing is expected but the end of the connection.
  socket.resume();
  socket.write(encodeReply(null));

  const overdue = cniFailed(
    CniCode.deadline,
    `${request.op} took longer than the plugin waits: ${request.deadlineMs} ms`,
  );
  let isOverdue = false;
  const timer: Timer = clock.after(request.deadlineMs, () => {
    isOverdue = true;
    answer(overdue);
    abort.abort(new HeddleError('deadline', overdue.message));
  });
  try {
    const reply = await dispatch(options.handler, request, netnsFd, abort.signal);
    if (isOverdue) return overdue;
    answer(reply);
    return reply;
  } catch (error) {
    const reply = cniFailed(CniCode.internal, `${request.op} failed: ${describeError(error)}`);
    if (isOverdue) return overdue;
    answer(reply);
    return reply;
  } finally {
    timer.cancel();
  }
}

function dispatch(handler: CniHandler, request: CniRequest, netnsFd: number, signal: AbortSignal): Promise<CniReply> {
  switch (request.op) {
    case 'ADD':
      return handler.add(request, netnsFd, signal);
    case 'CHECK':
      return handler.check(request, netnsFd, signal);
    case 'DEL':
      return handler.del(request, signal);
    case 'GC':
      return handler.gc(request, signal);
    case 'STATUS':
      return handler.status(request, signal);
  }
}
