import { describe, expect, test } from 'vitest';
import { WatchKind } from '#api/worker-link.ts';
import { FakeClock } from '#lib/clock.ts';
import { silentLog } from '#lib/log.ts';
import { FakeTransport } from './testing.ts';
import { Watch } from './watch.ts';

const bytes = (text: string) => new TextEncoder().encode(text);

function setUp(options: { idleMs?: number } = {}) {
  const clock = new FakeClock();
  const transport = new FakeTransport();
  let idled = 0;
  const watch = new Watch<string>({
    transport,
    kind: WatchKind.profile,
    request: bytes('question'),
    reduce: (payload, previous, isFirst) => {
      const text = new TextDecoder().decode(payload);
      if (text === 'garbage') throw new Error('cannot be read');
      return isFirst ? text : `${previous}+${text}`;
    },
    clock,
    log: silentLog,
    random: () => 0,
    onIdle: () => idled++,
    ...options,
  });
  return { clock, transport, watch, idled: () => idled };
}

describe('Watch', () => {
  test('folds updates and tells its subscribers', () => {
    const { transport, watch } = setUp();
    const seen: (string | undefined)[] = [];
    watch.subscribe(({ value }) => seen.push(value));
    expect(watch.isSettled).toBe(false);
    transport.streams[0]!.listener.update(bytes('a'));
    transport.streams[0]!.listener.update(bytes('b'));
    expect(seen).toEqual(['a', 'a+b']);
    expect(watch.isSettled).toBe(true);
  });

  test('keeps the last value while it reconnects with growing delays, and starts anew with the first update', () => {
    const { clock, transport, watch } = setUp();
    transport.streams[0]!.listener.update(bytes('a'));
    clock.advance(1_000);
    transport.end(transport.streams[0]!, { code: 14, message: 'agent is gone' });
    expect(watch.value).toBe('a');
    expect(watch.staleSinceMs).toBe(1_000);
    for (const [index, delayMs] of [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000].entries()) {
      clock.advance(delayMs - 1);
      expect(transport.streams).toHaveLength(index + 1);
      clock.advance(1);
      expect(transport.streams).toHaveLength(index + 2);
      transport.end(transport.streams.at(-1)!, { code: 14, message: 'still gone' });
    }
    clock.advance(10_000);
    transport.streams.at(-1)!.listener.update(bytes('c'));
    expect(watch.value).toBe('c');
    expect(watch.staleSinceMs).toBeNull();
    expect(watch.status).toBeNull();
    const streams = transport.streams.length;
    transport.end(transport.streams.at(-1)!, { code: 0, message: '' });
    clock.advance(100);
    expect(transport.streams).toHaveLength(streams + 1);
  });

  test('asks again at once when the transport is up again', () => {
    const { clock, transport } = setUp();
    transport.end(transport.streams[0]!, { code: 14, message: 'agent is gone' });
    transport.up();
    expect(transport.streams).toHaveLength(2);
    clock.advance(60_000);
    transport.up();
    expect(transport.streams).toHaveLength(2);
  });

  test.each([3, 9])('status %i is final', (code) => {
    const { clock, transport, watch } = setUp();
    let calls = 0;
    watch.subscribe(() => calls++);
    transport.end(transport.streams[0]!, { code, message: 'wrong question' });
    clock.advance(600_000);
    expect(transport.streams).toHaveLength(1);
    expect(watch.isTerminal).toBe(true);
    expect(watch.isSettled).toBe(true);
    expect(calls).toBe(1);
  });

  test('a stale mark keeps value and stream', () => {
    const { clock, transport, watch } = setUp();
    transport.streams[0]!.listener.update(bytes('a'));
    clock.advance(50);
    transport.streams[0]!.listener.stale({ code: 14, message: 'control plane is gone' });
    expect(watch.staleSinceMs).toBe(50);
    expect(watch.value).toBe('a');
    transport.streams[0]!.listener.update(bytes('b'));
    expect(watch.staleSinceMs).toBeNull();
    expect(watch.value).toBe('a+b');
    expect(transport.streams).toHaveLength(1);
  });

  test('a message that cannot be read costs the stream, not the value', () => {
    const { clock, transport, watch } = setUp();
    transport.streams[0]!.listener.update(bytes('a'));
    transport.streams[0]!.listener.update(bytes('garbage'));
    expect(transport.streams[0]!.isOpen).toBe(false);
    expect(watch.value).toBe('a');
    clock.advance(100);
    expect(transport.streams).toHaveLength(2);
    transport.streams[0]!.listener.update(bytes('late'));
    expect(watch.value).toBe('a');
  });

  test('closes itself after the idle time without subscribers', () => {
    const { clock, transport, watch, idled } = setUp({ idleMs: 5_000 });
    const unsubscribe = watch.subscribe(() => {});
    transport.streams[0]!.listener.update(bytes('a'));
    clock.advance(60_000);
    expect(idled()).toBe(0);
    unsubscribe();
    clock.advance(4_999);
    watch.subscribe(() => {})();
    clock.advance(4_999);
    expect(idled()).toBe(0);
    clock.advance(1);
    expect(idled()).toBe(1);
    expect(transport.streams[0]!.isOpen).toBe(false);
  });

  test('never forgets the last answer while nobody can give another one', () => {
    const { clock, transport, watch, idled } = setUp({ idleMs: 5_000 });
    transport.streams[0]!.listener.update(bytes('a'));
    transport.streams[0]!.listener.stale({ code: 14, message: 'control plane is gone' });
    clock.advance(60_000);
    expect(idled()).toBe(0);
    expect(watch.value).toBe('a');
    transport.streams[0]!.listener.update(bytes('b'));
    clock.advance(5_000);
    expect(idled()).toBe(1);
  });

  test('close silences everything', () => {
    const { clock, transport, watch } = setUp();
    let calls = 0;
    watch.subscribe(() => calls++);
    transport.end(transport.streams[0]!, { code: 14, message: 'gone' });
    watch.close();
    clock.advance(60_000);
    expect(transport.streams).toHaveLength(1);
    expect(calls).toBe(1);
  });
});
