// The one suite that every Duplex passes (lib/duplex.ts): sockets both ways they are driven, TLS, memory.

import { afterEach, describe, expect, test } from 'vitest';
import type { Duplex } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import { pattern, Recorder, turns, until } from './recorder.ts';

/** Two ends of one connection, both paused. */
export type PairMaker = () => Promise<[Duplex, Duplex]>;

const LARGE_BYTES = 8 << 20;
/** What may wait in one stream's queue: the high-water mark and one write beyond it. */
const QUEUED_BYTES_MAX = 512 * 1024;

type MakeRecorders = (options?: { keepsBytes: boolean }) => Promise<[Recorder, Recorder]>;

export function duplexCompliance(name: string, makePair: PairMaker): void {
  describe(`${name} as a Duplex`, () => {
    const open: Duplex[] = [];
    const makeRecorders: MakeRecorders = async (options) => {
      const [left, right] = await makePair();
      open.push(left, right);
      return [new Recorder(left, options), new Recorder(right, options)];
    };
    afterEach(async () => {
      for (const stream of open.splice(0)) stream.reset();
      await turns(3);
    });
    testFlow(makeRecorders);
    testEndings(makeRecorders);
    testLosses(makeRecorders);
  });
}

function testFlow(makeRecorders: MakeRecorders): void {
  test('carries bytes both ways, in order', async () => {
    const [left, right] = await makeRecorders();
    left.stream.resume();
    right.stream.resume();
    for (let index = 0; index < 100; index++) {
      left.inside(() => left.stream.write(Buffer.from(`left ${index};`)));
      right.inside(() => right.stream.write(Buffer.from(`right ${index};`)));
    }
    const expected = (side: string): string => Array.from({ length: 100 }, (_, index) => `${side} ${index};`).join('');
    await until(() => right.bytes === expected('left').length && left.bytes === expected('right').length);
    expect(right.received.toString()).toBe(expected('left'));
    expect(left.received.toString()).toBe(expected('right'));
    expect([...left.faults, ...right.faults]).toEqual([]);
  });

  test('lets the caller reuse the memory of a write', async () => {
    const [left, right] = await makeRecorders();
    const memory = Buffer.alloc(40_000);
    for (let index = 0; index < 200; index++) {
      memory.fill(index);
      left.stream.write(memory);
    }
    memory.fill(255);
    right.stream.resume();
    await until(() => right.bytes === 200 * memory.length);
    const { received } = right;
    for (let index = 0; index < 200; index++) {
      const part = received.subarray(index * memory.length, (index + 1) * memory.length);
      expect(part.equals(Buffer.alloc(memory.length, index))).toBe(true);
    }
  });

  test('pushes back on a fast writer, and says when to go on', async () => {
    const [left, right] = await makeRecorders();
    const bytes = pattern(LARGE_BYTES);
    let sent = 0;
    let queuedMax = 0;
    const send = (): void => {
      for (let goesOn = true; goesOn && sent < bytes.length; ) {
        const part = bytes.subarray(sent, sent + 30_000);
        goesOn = left.inside(() => left.stream.write(part));
        sent += part.length;
        queuedMax = Math.max(queuedMax, left.stream.bytesQueued);
      }
    };
    left.onDrain = () => {
      left.drains++;
      send();
    };
    send();
    await turns(5);
    expect(sent).toBeLessThan(bytes.length);
    right.stream.resume();
    await until(() => right.bytes === bytes.length);
    expect(right.received.equals(bytes)).toBe(true);
    expect(left.drains).toBeGreaterThan(0);
    expect(queuedMax).toBeLessThanOrEqual(QUEUED_BYTES_MAX);
    await until(() => left.stream.bytesQueued === 0);
  });

  test('delivers nothing while paused, also when paused from inside a delivery', async () => {
    const [left, right] = await makeRecorders();
    left.stream.write(pattern(100_000));
    await turns(10);
    expect(right.bytes).toBe(0);
    right.onDelivery = () => right.stream.pause();
    right.stream.resume();
    await until(() => right.chunks.length === 1);
    await turns(10);
    expect(right.chunks.length).toBe(1);
    right.onDelivery = null;
    right.stream.resume();
    await until(() => right.bytes === 100_000);
    expect(right.received.equals(pattern(100_000))).toBe(true);
    expect(right.faults).toEqual([]);
  });
}

function testEndings(makeRecorders: MakeRecorders): void {
  test('half-closes: the other direction goes on, and both ends close in order', async () => {
    const [left, right] = await makeRecorders();
    left.stream.resume();
    right.stream.resume();
    left.stream.write(Buffer.from('question'));
    left.inside(() => left.stream.end());
    left.inside(() => left.stream.end());
    await until(() => right.isEnded);
    expect(right.received.toString()).toBe('question');
    expect(right.closedWith).toBeUndefined();
    right.stream.write(pattern(300_000));
    right.stream.end();
    await until(() => left.isEnded && left.closedWith !== undefined && right.closedWith !== undefined);
    expect(left.bytes).toBe(300_000);
    expect([left.closedWith, right.closedWith]).toEqual([null, null]);
    expect([...left.faults, ...right.faults]).toEqual([]);
  });

  test('sends what is queued before it ends', async () => {
    const [left, right] = await makeRecorders({ keepsBytes: false });
    left.stream.resume();
    let written = 0;
    for (let goesOn = true; goesOn; written += 100_000) goesOn = left.stream.write(Buffer.alloc(100_000));
    left.stream.end();
    await turns(3);
    right.stream.resume();
    await until(() => right.isEnded);
    expect(right.bytes).toBe(written);
  });

  test('closes without waiting for the peer when abandoned', async () => {
    const [left, right] = await makeRecorders({ keepsBytes: false });
    left.stream.write(Buffer.alloc(2_000_000));
    left.inside(() => left.stream.abandon());
    right.stream.resume();
    await until(() => left.closedWith !== undefined && right.isEnded);
    expect(left.closedWith).toBeNull();
    expect(right.bytes).toBe(2_000_000);
  });
}

function testLosses(makeRecorders: MakeRecorders): void {
  test('resets: the peer sees an error, the user its own', async () => {
    const [left, right] = await makeRecorders();
    left.stream.resume();
    right.stream.resume();
    left.stream.write(Buffer.from('x'));
    await until(() => right.bytes === 1);
    const error = new HeddleError('test-reset', 'because');
    left.inside(() => left.stream.reset(error));
    left.inside(() => left.stream.reset());
    await until(() => left.closedWith !== undefined && right.closedWith !== undefined);
    expect(left.closedWith).toBe(error);
    expect(right.closedWith?.code).toBe('connection-reset');
    expect(right.isEnded).toBe(false);
    expect([...left.faults, ...right.faults]).toEqual([]);
  });

  test('resets with bytes in its queue', async () => {
    const [left, right] = await makeRecorders();
    while (left.stream.write(Buffer.alloc(65_536)));
    left.stream.end();
    left.stream.reset();
    right.stream.resume();
    await until(() => left.closedWith !== undefined && right.closedWith !== undefined);
    expect(right.closedWith?.code).toBe('connection-reset');
    expect(right.isEnded).toBe(false);
    expect(left.stream.bytesQueued).toBe(0);
  });

  test('takes writes after the peer has gone, and reports the loss once', async () => {
    const [left, right] = await makeRecorders();
    left.stream.resume();
    right.stream.reset();
    for (let index = 0; index < 20 && left.closedWith === undefined; index++) {
      left.inside(() => left.stream.write(Buffer.alloc(1000)));
      await turns(2);
    }
    await until(() => left.closedWith !== undefined);
    expect(left.closedWith?.code).toBe('connection-reset');
    left.stream.write(Buffer.alloc(10));
    left.stream.end();
    left.stream.resume();
    await turns(3);
    expect(left.faults).toEqual([]);
  });

  test('counts bytes and knows its addresses', async () => {
    const [left, right] = await makeRecorders();
    right.stream.resume();
    left.stream.write(Buffer.alloc(1234));
    await until(() => right.bytes === 1234);
    expect(left.stream.bytesWritten).toBe(1234);
    expect(right.stream.bytesRead).toBe(1234);
    expect(right.stream.remoteAddress).toBe(left.stream.localAddress);
    expect(right.stream.remotePort).toBe(left.stream.localPort);
    expect(left.stream.remotePort).toBe(right.stream.localPort);
    expect(left.stream.localAddress).toMatch(/^[\d.:a-f]+$/);
  });
}
