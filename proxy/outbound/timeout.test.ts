import { describe, expect, test } from 'vitest';
import { FakeClock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { requestHead } from '../policy/testing.ts';
import { EXCHANGE, ManualUpstream, RecordedResponse, responseHead } from './testing-http.ts';
import { type TimeoutOptions, timeoutLayer } from './timeout.ts';

function setUp(part: Partial<TimeoutOptions>) {
  const clock = new FakeClock();
  const upstream = new ManualUpstream();
  const response = new RecordedResponse();
  const layer = timeoutLayer({
    clock,
    requestMs: null,
    responseMs: null,
    idleMs: null,
    requestCode: 'request-timeout',
    ...part,
  });
  const request = layer(upstream).call(requestHead(), EXCHANGE, response);
  return { clock, upstream, response, request, call: upstream.calls[0]! };
}

const bytes = (text: string) => Buffer.from(text);

describe('request', () => {
  test('bounds everything, resets the upstream and is heard once', () => {
    const { clock, response, request, call } = setUp({ requestMs: 1_000 });
    clock.advance(900);
    call.response.head(responseHead(200));
    clock.advance(100);
    expect(response.events).toEqual(['head 200', 'fail request-timeout']);
    expect(call.resetBy?.code).toBe('request-timeout');
    expect(request.data(bytes('late'))).toBe(true);
    request.end(null);
    expect([call.body, call.isEnded]).toEqual(['', false]);
  });

  test('an answer in time ends it', () => {
    const { clock, response, call } = setUp({ requestMs: 1_000 });
    call.response.head(responseHead(200));
    call.response.end(null);
    clock.advance(10_000);
    expect(response.events).toEqual(['head 200', 'end']);
  });

  test('a tunnel is not bound', () => {
    const { clock, response, call } = setUp({ requestMs: 1_000, idleMs: 100 });
    call.response.head(responseHead(101));
    clock.advance(60_000);
    expect(response.events).toEqual(['head 101']);
  });

  test('a client that goes away stops the clock', () => {
    const { clock, response, request } = setUp({ requestMs: 1_000 });
    request.reset(new HeddleError('client-gone', 'closed'));
    clock.advance(10_000);
    expect(response.events).toEqual([]);
  });
});

describe('response', () => {
  test('counts from the end of the request', () => {
    const { clock, response, request } = setUp({ responseMs: 1_000 });
    clock.advance(5_000);
    request.data(bytes('slow client'));
    clock.advance(5_000);
    request.end(null);
    clock.advance(999);
    expect(response.events).toEqual([]);
    clock.advance(1);
    expect(response.events).toEqual(['fail response-timeout']);
  });

  test('or from the head of the response, if that comes first', () => {
    const { clock, response, request, call } = setUp({ responseMs: 1_000 });
    call.response.head(responseHead(200));
    clock.advance(500);
    request.end(null);
    clock.advance(500);
    expect(response.events).toEqual(['head 200', 'fail response-timeout']);
  });
});

describe('idle', () => {
  test('any byte either way starts it anew', () => {
    const { clock, response, request, call } = setUp({ idleMs: 1_000 });
    clock.advance(900);
    request.data(bytes('up'));
    clock.advance(900);
    call.response.head(responseHead(200));
    clock.advance(900);
    call.response.data(bytes('down'));
    clock.advance(999);
    expect(response.events).toEqual(['head 200', 'data down']);
    clock.advance(1);
    expect(response.events.at(-1)).toBe('fail idle-timeout');
  });
});
