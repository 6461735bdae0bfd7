import { describe, expect, test } from 'vitest';
import { FakeClock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import type { HeddleError } from '#lib/errors.ts';
import { memoryPair } from '#lib/memory-duplex.ts';
import { HALF_CLOSED_TIMEOUT_MS, type Pump, type PumpOptions, pump } from './pump.ts';
import { pattern, Recorder, turns, until } from './testing/recorder.ts';
import { tcpPair } from './testing/tcp-pair.ts';

type MakePair = () => Promise<[Duplex, Duplex]>;

interface World {
  /** The ends that the pump joins, from outside. */
  client: Recorder;
  server: Recorder;
  pumped: Pump;
  clock: FakeClock;
  done: (HeddleError | null)[];
  /** The pump's own ends. */
  near: Duplex;
  far: Duplex;
}

async function setUp(makePair: MakePair, options: Partial<PumpOptions> = {}): Promise<World> {
  const [outerLeft, near] = await makePair();
  const [far, outerRight] = await makePair();
  const client = new Recorder(outerLeft);
  const server = new Recorder(outerRight);
  const clock = new FakeClock();
  const done: (HeddleError | null)[] = [];
  const pumped = pump(near, far, { clock, onDone: (error) => done.push(error), ...options });
  outerLeft.resume();
  outerRight.resume();
  return { client, server, pumped, clock, done, near, far };
}

const kinds: [string, MakePair][] = [
  ['memory', async () => memoryPair()],
  ['TCP', tcpPair],
];

describe.each(kinds)('a pump over %s', (_name, makePair) => {
  test('copies both ways and counts', async () => {
    const { client, server, pumped } = await setUp(makePair);
    client.stream.write(pattern(300_000, 1));
    server.stream.write(pattern(200_000, 2));
    await until(() => server.bytes === 300_000 && client.bytes === 200_000);
    expect(server.received.equals(pattern(300_000, 1))).toBe(true);
    expect(client.received.equals(pattern(200_000, 2))).toBe(true);
    expect([pumped.bytesLeftToRight, pumped.bytesRightToLeft]).toEqual([300_000, 200_000]);
    pumped.close();
    await turns(3);
  });

  test('passes half-closes on, and ends in order', async () => {
    const { client, server, done } = await setUp(makePair);
    client.stream.write(Buffer.from('question'));
    client.stream.end();
    await until(() => server.isEnded);
    expect(client.isEnded).toBe(false);
    server.stream.write(pattern(100_000));
    server.stream.end();
    await until(() => client.isEnded && done.length === 1);
    expect(client.bytes).toBe(100_000);
    expect(done).toEqual([null]);
  });

  test.each(['client', 'server'] as const)('passes a reset by the %s on as a reset', async (who) => {
    const world = await setUp(makePair);
    const other = who === 'client' ? world.server : world.client;
    world[who].stream.write(Buffer.from('half a mess'));
    await until(() => other.bytes > 0);
    world[who].stream.reset();
    await until(() => other.closedWith !== undefined && world.done.length === 1);
    expect(other.closedWith?.code).toBe('connection-reset');
    expect(other.isEnded).toBe(false);
    expect(world.done[0]?.code).toBe('connection-reset');
  });

  test('a slow reader holds up the writer, with little in between', async () => {
    const { client, server, near, far, pumped } = await setUp(makePair);
    server.stream.pause();
    const piece = pattern(50_000);
    let sent = 0;
    for (let quiet = 0; quiet < 20 && sent < 64 << 20; ) {
      if (client.stream.bytesQueued > 0) quiet++;
      else {
        client.stream.write(piece);
        sent += piece.length;
        quiet = 0;
      }
      await turns(1);
    }
    expect(sent).toBeLessThan(64 << 20);
    expect(far.bytesQueued).toBeLessThan(512 * 1024);
    expect(near.bytesQueued).toBe(0);
    server.stream.resume();
    await until(() => server.bytes === sent);
    pumped.close();
    await turns(3);
  });

  test('sends first what was read before', async () => {
    const { client, server, pumped } = await setUp(makePair, {
      receivedFromLeft: Buffer.from('hello '),
      receivedFromRight: Buffer.from('banner '),
    });
    client.stream.write(Buffer.from('world'));
    server.stream.write(Buffer.from('rest'));
    await until(() => server.bytes === 11 && client.bytes === 11);
    expect(server.received.toString()).toBe('hello world');
    expect(client.received.toString()).toBe('banner rest');
    pumped.close();
    await turns(3);
  });

  test('is closed from outside, both ways at once', async () => {
    const { client, server, pumped, done } = await setUp(makePair);
    pumped.close();
    pumped.close();
    await until(() => client.closedWith !== undefined && server.closedWith !== undefined && done.length === 1);
    expect(done[0]?.code).toBe('pump-closed');
  });
});

describe('idle rules', () => {
  const memory: MakePair = async () => memoryPair();

  test('without one, silence is fine', async () => {
    const { clock, done } = await setUp(memory);
    clock.advance(10 * HALF_CLOSED_TIMEOUT_MS);
    await turns(2);
    expect(done).toEqual([]);
  });

  test('a pair that is silent for too long is cut; any byte either way counts', async () => {
    const { client, server, clock, done } = await setUp(memory, { idleTimeoutMs: 1000 });
    for (const side of [client, server, client]) {
      clock.advance(900);
      side.stream.write(Buffer.from('.'));
      await turns(2);
      expect(done).toEqual([]);
    }
    clock.advance(1000);
    await until(() => done.length === 1);
    expect(done[0]?.code).toBe('idle-timeout');
    expect(client.closedWith?.code).toBe('connection-reset');
  });

  test('a half-closed pair has a time of its own', async () => {
    const { client, server, clock, done } = await setUp(memory, { halfClosedTimeoutMs: 1000 });
    client.stream.end();
    await until(() => server.isEnded);
    clock.advance(900);
    server.stream.write(Buffer.from('.'));
    await turns(2);
    clock.advance(900);
    await turns(2);
    expect(done).toEqual([]);
    clock.advance(200);
    await until(() => done.length === 1);
  });
});
