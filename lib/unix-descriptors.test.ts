import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { close, isOpen } from './libc.ts';
import { DESCRIPTORS_MAX, receiveDescriptors, sendDescriptors } from './unix-descriptors.ts';

let directory: string;
let server: net.Server;
let client: net.Socket;
let accepted: net.Socket;

function fdOf(socket: net.Socket): number {
  return (socket as unknown as { _handle: { fd: number } })._handle.fd;
}

beforeEach(async () => {
  directory = mkdtempSync(path.join(os.tmpdir(), 'heddle-descriptors-'));
  server = net.createServer({ pauseOnConnect: true }).listen(path.join(directory, 's'));
  const connected = new Promise<net.Socket>((resolve) => server.once('connection', resolve));
  client = net.connect(path.join(directory, 's'));
  accepted = await connected;
});

afterEach(async () => {
  client.destroy();
  accepted.destroy();
  await new Promise((resolve) => server.close(resolve));
  rmSync(directory, { recursive: true });
});

test('a descriptor arrives with its bytes and means the same file', () => {
  const file = path.join(directory, 'file');
  writeFileSync(file, 'warp and weft');
  const sent = openSync(file, 'r');
  expect(receiveDescriptors(fdOf(accepted), 64, 4)).toBe(null);
  expect(sendDescriptors(fdOf(client), Buffer.from('hello'), [sent, sent])).toBe(5);
  closeSync(sent);
  const received = receiveDescriptors(fdOf(accepted), 64, 4)!;
  expect(received.bytes.toString()).toBe('hello');
  expect(received.descriptors).toHaveLength(2);
  const content = Buffer.alloc(32);
  expect(readSync(received.descriptors[0]!, content, 0, 32, 0)).toBe(13);
  expect(content.subarray(0, 13).toString()).toBe('warp and weft');
  for (const descriptor of received.descriptors) close(descriptor);
});

test('bytes without descriptors, then the end', () => {
  expect(sendDescriptors(fdOf(client), Buffer.from('plain'), [])).toBe(5);
  expect(receiveDescriptors(fdOf(accepted), 3, 0)).toEqual({ bytes: Buffer.from('pla'), descriptors: [] });
  expect(receiveDescriptors(fdOf(accepted), 64, 0)).toEqual({ bytes: Buffer.from('in'), descriptors: [] });
  client.destroy();
  return new Promise<void>((resolve) => client.once('close', () => resolve())).then(() => {
    expect(receiveDescriptors(fdOf(accepted), 64, 0)).toEqual({ bytes: Buffer.alloc(0), descriptors: [] });
  });
});

test('more descriptors than allowed are refused and none stays open', () => {
  const sent = openSync('/proc/self/stat', 'r');
  const lowest = openSync('/proc/self/stat', 'r');
  closeSync(lowest);
  sendDescriptors(fdOf(client), Buffer.from('x'), [sent, sent, sent]);
  expect(() => receiveDescriptors(fdOf(accepted), 64, 1)).toThrow('expected at most 1 descriptors');
  expect(isOpen(lowest)).toBe(false);
  expect(isOpen(lowest + 1)).toBe(false);
  closeSync(sent);
});

test('a full socket says so instead of blocking, and then nothing went', () => {
  const chunk = Buffer.alloc(64 * 1024);
  let sends = 0;
  while (sendDescriptors(fdOf(client), chunk, []) !== null) {
    sends++;
    expect(sends).toBeLessThan(10_000);
  }
  expect(sends).toBeGreaterThan(0);
});

test('what can never be sent is refused with the reason', () => {
  expect(() => sendDescriptors(fdOf(client), Buffer.alloc(0), [0])).toThrow('at least one byte');
  const many = new Array<number>(DESCRIPTORS_MAX + 1).fill(0);
  expect(() => sendDescriptors(fdOf(client), Buffer.from('x'), many)).toThrow(`at most ${DESCRIPTORS_MAX}`);
});
