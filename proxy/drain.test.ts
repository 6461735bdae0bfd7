import { describe, expect, test } from 'vitest';
import { FakeClock } from '#lib/clock.ts';
import { silentLog } from '#lib/log.ts';
import { Drain } from './drain.ts';
import { LiveConnections } from './live-connections.ts';

function make() {
  const clock = new FakeClock();
  const live = new LiveConnections();
  const events: string[] = [];
  const drain = new Drain({
    clock,
    log: silentLog,
    live,
    stopAccepting: () => events.push('stop'),
    finish: () => events.push(`finish at ${clock.nowMs()}`),
  });
  const connect = (name: string) =>
    live.enter({ drain: () => events.push(`drain ${name}`), cut: () => events.push(`cut ${name}`) });
  return { clock, live, events, drain, connect };
}

describe('drain', () => {
  test('without connections ends at once', () => {
    const { drain, events } = make();
    drain.begin({ graceMs: 1000, reason: 'successor' });
    expect(events).toEqual(['stop', 'finish at 0']);
    expect(drain.hasBegun).toBe(true);
  });

  test('tells connections, and ends with the last of them', () => {
    const { clock, drain, events, connect } = make();
    const leave = [connect('a'), connect('b')];
    drain.begin({ graceMs: 1000, reason: 'successor' });
    clock.advance(100);
    leave[0]!();
    clock.advance(100);
    leave[1]!();
    clock.advance(5000);
    expect(events).toEqual(['stop', 'drain a', 'drain b', 'finish at 200']);
  });

  test('waits for what was accepted and is not served yet', () => {
    const { clock, live, drain, events, connect } = make();
    const release = live.hold({ cut: () => events.push('cut accepted') });
    drain.begin({ graceMs: 1000, reason: 'successor' });
    clock.advance(10);
    const leave = connect('a');
    release();
    clock.advance(10);
    leave();
    expect(events).toEqual(['stop', 'finish at 20']);
  });

  test('cuts what is open when the grace is over', () => {
    const { clock, drain, events, connect } = make();
    connect('a');
    drain.begin({ graceMs: 1000, reason: 'shutdown' });
    clock.advance(999);
    expect(events).toEqual(['stop', 'drain a']);
    clock.advance(1);
    expect(events).toEqual(['stop', 'drain a', 'cut a', 'finish at 1000']);
  });

  test('asked for again: the earlier end holds, and it begins once', () => {
    const { clock, drain, events, connect } = make();
    connect('a');
    drain.begin({ graceMs: 1000, reason: 'successor' });
    drain.begin({ graceMs: 5000, reason: 'shutdown' });
    drain.begin({ graceMs: 200, reason: 'shutdown' });
    clock.advance(10_000);
    expect(events).toEqual(['stop', 'drain a', 'cut a', 'finish at 200']);
  });
});
