import { describe, expect, test } from 'vitest';
import { FakeClock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { memoryPair } from '#lib/memory-duplex.ts';
import { abortOnClose, peek } from './peek.ts';

function make(isEnough: (bytes: Uint8Array) => boolean, received?: Buffer) {
  const clock = new FakeClock();
  const [client, server] = memoryPair();
  const result = peek(server, { clock, bytesMax: 10, timeoutMs: 1_000, isEnough, ...(received && { received }) });
  return { clock, client, server, result };
}

/** What is read from a stream until its end. */
function readAll(stream: Duplex): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let text = '';
  stream.listener = {
    onData: (buffer, start, end) => {
      text += buffer.toString('latin1', start, end);
    },
    onEnd: () => resolve(text),
    onDrain: () => {},
    onClose: () => resolve(text),
  };
  stream.resume();
  return promise;
}

describe('peek', () => {
  test('ends with the read that is enough, and loses nothing behind it', async () => {
    const { client, server, result } = make((bytes) => bytes.length >= 4);
    client.write(Buffer.from('ab'));
    client.write(Buffer.from('cd'));
    client.write(Buffer.from('ef'));
    client.end();
    const { bytes, reason } = await result;
    expect([bytes.toString(), reason]).toEqual(['abcd', 'enough']);
    expect(await readAll(server)).toBe('ef');
  });

  test('ends at the most bytes, decided or not', async () => {
    const { client, result } = make(() => false);
    client.write(Buffer.from('0123456789abc'));
    expect((await result).bytes.toString()).toBe('0123456789abc');
  });

  test('asks nothing where what was read before is enough', async () => {
    const { result } = make((bytes) => bytes.length >= 2, Buffer.from('ab'));
    expect(await result).toEqual({ bytes: Buffer.from('ab'), reason: 'enough' });
  });

  test('puts what was read before in front', async () => {
    const { client, result } = make((bytes) => bytes.length >= 4, Buffer.from('ab'));
    client.write(Buffer.from('cd'));
    expect((await result).bytes.toString()).toBe('abcd');
  });

  test("ends in time, and with the client's last byte", async () => {
    const silent = make(() => false);
    silent.client.write(Buffer.from('x'));
    await Promise.resolve();
    await Promise.resolve();
    silent.clock.advance(1_000);
    expect(await silent.result).toEqual({ bytes: Buffer.from('x'), reason: 'timeout' });
    const ended = make(() => false);
    ended.client.end();
    expect(await ended.result).toEqual({ bytes: Buffer.alloc(0), reason: 'end' });
  });

  test('fails when the client is gone', async () => {
    const { client, result } = make(() => false);
    client.reset();
    await expect(result).rejects.toMatchObject({ code: 'client-gone', source: 'downstream' });
  });
});

test('who waits for something else learns that the client is gone', async () => {
  const [client, server] = memoryPair();
  const controller = new AbortController();
  abortOnClose(server, controller);
  client.reset();
  await new Promise((resolve) => controller.signal.addEventListener('abort', resolve));
  expect(controller.signal.aborted).toBe(true);
});
