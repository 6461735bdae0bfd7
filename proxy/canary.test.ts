import { describe, expect, test } from 'vitest';
import { CANARY } from '#api/worker-link.ts';
import { FakeClock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { memoryPair } from '#lib/memory-duplex.ts';
import { CANARIES_MAX, Canaries, isCanary } from './canary.ts';

const token = (byte: number) => Buffer.alloc(CANARY.tokenBytes, byte);

function setUp() {
  const clock = new FakeClock();
  const canaries = new Canaries(clock);
  const seen: number[] = [];
  /** Makes a connection that sends the bytes; resolves when the worker has closed it. */
  const connect = async (bytes: Buffer, isFinished = false): Promise<void> => {
    const [client, server] = memoryPair();
    const closed = new Promise<void>((resolve) => {
      client.listener = { onData() {}, onEnd() {}, onDrain() {}, onClose: () => resolve() };
    });
    client.resume();
    const accepted = canaries.accept(server as Duplex);
    client.write(bytes);
    if (isFinished) client.end();
    await Promise.all([accepted, closed]);
  };
  const expectToken = (byte: number) => canaries.expect(token(byte), () => seen.push(byte));
  return { clock, canaries, seen, connect, expectToken };
}

describe('canaries', () => {
  test('only the reserved addresses at the reserved port are theirs', () => {
    expect(isCanary({ address: CANARY.ipv4, port: CANARY.port })).toBe(true);
    expect(isCanary({ address: CANARY.ipv6, port: CANARY.port })).toBe(true);
    expect(isCanary({ address: CANARY.ipv4, port: 80 })).toBe(false);
    expect(isCanary({ address: '169.254.7.2', port: CANARY.port })).toBe(false);
  });

  test('one with the token of the agent is told of, once, and closed', async () => {
    const { seen, connect, expectToken } = setUp();
    expectToken(1);
    expectToken(2);
    await connect(token(2));
    expect(seen).toEqual([2]);
    await connect(token(2));
    expect(seen).toEqual([2]);
    await connect(token(1));
    expect(seen).toEqual([2, 1]);
  });

  test('a pod that dials the address is reset: at once, by a wrong token, by half of one, by silence', async () => {
    const { clock, canaries, seen, connect, expectToken } = setUp();
    await connect(token(1));
    expectToken(1);
    await connect(token(7));
    await connect(token(1).subarray(0, 8), true);
    const silent = connect(Buffer.alloc(0));
    expectToken(3);
    clock.advance(CANARY.timeoutMs);
    await silent;
    expect(seen).toEqual([]);
    expect(() => canaries.expect(Buffer.alloc(3), () => {})).toThrow('expected a token of 16 bytes');
  });

  test('a token counts for its time only, and few are remembered', async () => {
    const { clock, seen, connect, expectToken } = setUp();
    expectToken(1);
    clock.advance(CANARY.timeoutMs - 1);
    expectToken(2);
    clock.advance(1);
    await connect(token(1));
    await connect(token(2));
    expect(seen).toEqual([2]);
    for (let byte = 10; byte <= 10 + CANARIES_MAX; byte++) expectToken(byte);
    await connect(token(10));
    await connect(token(11));
    expect(seen).toEqual([2, 11]);
  });

  test('connections that say nothing do not add up', async () => {
    const { clock, canaries, expectToken } = setUp();
    expectToken(1);
    const pairs = Array.from({ length: CANARIES_MAX + 1 }, () => memoryPair());
    const done: number[] = [];
    const all = pairs.map(([, server], index) => canaries.accept(server).then(() => done.push(index)));
    await all.at(-1);
    expect(done).toEqual([CANARIES_MAX]);
    clock.advance(CANARY.timeoutMs);
    await Promise.all(all);
  });
});
