import { describe, expect, test } from 'vitest';
import { FakeClock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import type { RouteRecorder } from '../observe/recorder.ts';
import { requestHead } from '../policy/testing.ts';
import type { RetryPolicy } from './policy.ts';
import { retryLayer } from './retry.ts';
import { policyRetryRule } from './retry-rule.ts';
import { EXCHANGE, headersOf, ManualUpstream, RecordedResponse, responseHead } from './testing-http.ts';

function setUp(part: Partial<RetryPolicy> = {}, head = requestHead({ method: 'POST', bodyBytes: 'unknown' })) {
  const clock = new FakeClock();
  const upstream = new ManualUpstream();
  const response = new RecordedResponse();
  const told: string[] = [];
  const recorder: RouteRecorder = {
    response: () => {},
    retry: () => told.push('retry'),
    retrySuccess: () => told.push('success'),
    retryLimitExceeded: () => told.push('limit'),
    retryOverflow: () => told.push('overflow'),
  };
  const policy: RetryPolicy = {
    maxRetries: 1,
    maxRequestBytes: 10,
    statuses: [[500, 599]],
    grpcCodes: new Set([14]),
    perTryMs: null,
    backoff: { minMs: 100, maxMs: 1_000, jitter: 0 },
    ...part,
  };
  const layer = retryLayer(
    policyRetryRule(policy, recorder, () => 0),
    clock,
  );
  const request = layer(upstream).call(head, EXCHANGE, response);
  return { clock, upstream, response, request, told };
}

const bytes = (text: string) => Buffer.from(text);
const GRPC = { 'content-type': 'application/grpc' };

describe('what is thrown away', () => {
  test('a failing answer is, with its body, and the client sees the next one only', () => {
    const { clock, upstream, response, request, told } = setUp();
    request.data(bytes('body'));
    request.end(null);
    const [first] = upstream.calls;
    first!.response.head(responseHead(503));
    first!.response.data(bytes('sorry'));
    first!.response.end(null);
    expect(first!.resetBy).toBeNull();
    clock.advance(100);
    const second = upstream.calls[1]!;
    expect([second.body, second.isEnded]).toEqual(['body', true]);
    second.response.head(responseHead(200));
    second.response.data(bytes('fine'));
    second.response.end(null);
    expect(response.events).toEqual(['head 200', 'data fine', 'end']);
    expect(told).toEqual(['retry', 'success']);
  });

  test('with the request still under way the attempt is cut', () => {
    const { clock, upstream, request } = setUp();
    request.data(bytes('half'));
    upstream.calls[0]!.response.head(responseHead(503));
    expect(upstream.calls[0]!.resetBy?.code).toBe('retried');
    // Nobody takes it now: it is kept, and the client told to wait.
    expect(request.data(bytes('more'))).toBe(false);
    clock.advance(100);
    expect(upstream.calls[1]!.body).toBe('halfmore');
    request.end(null);
    expect(upstream.calls[1]!.isEnded).toBe(true);
  });

  test('the client that had to wait goes on when the next attempt takes more', () => {
    const { clock, upstream, response, request } = setUp();
    request.data(bytes('half'));
    upstream.calls[0]!.response.head(responseHead(503));
    request.data(bytes('more'));
    clock.advance(100);
    expect(response.events).toEqual(['resume']);
  });

  test('each attempt gets the original head', () => {
    const { clock, upstream, request } = setUp();
    request.end(null);
    upstream.calls[0]!.head.headers.add('x-changed', 'by the first attempt');
    upstream.calls[0]!.response.head(responseHead(503));
    clock.advance(100);
    expect(upstream.calls[1]!.head.headers.has('x-changed')).toBe(false);
  });
});

describe('what is not retried', () => {
  test('a body above the bound', () => {
    const { clock, upstream, response, request, told } = setUp();
    request.data(bytes('12345678901'));
    request.end(null);
    upstream.calls[0]!.response.head(responseHead(503));
    clock.advance(10_000);
    expect(upstream.calls).toHaveLength(1);
    expect(response.events).toEqual(['head 503']);
    expect(told).toEqual(['overflow']);
  });

  test('more than the limit', () => {
    const { clock, upstream, response, request, told } = setUp();
    request.end(null);
    for (const index of [0, 1]) {
      upstream.calls[index]!.response.head(responseHead(503));
      clock.advance(1_000);
    }
    expect(upstream.calls).toHaveLength(2);
    expect(response.events).toEqual(['head 503']);
    expect(told).toEqual(['retry', 'limit']);
  });

  test('an upgrade', () => {
    const { upstream, response } = setUp({}, requestHead({ upgrade: 'websocket' }));
    upstream.calls[0]!.response.head(responseHead(503));
    expect(response.events).toEqual(['head 503']);
  });

  test.each([
    ['load-shed', 'yes', false],
    ['failfast', 'yes', true],
    ['response-headers-timeout', 'yes', true],
    ['connection-reset', 'no', false],
  ] as const)('errors: %s', (code, retry, isRetried) => {
    const { clock, upstream, response, request } = setUp();
    request.end(null);
    upstream.calls[0]!.response.fail(new HeddleError(code, code, { retry }));
    clock.advance(100);
    expect(upstream.calls).toHaveLength(isRetried ? 2 : 1);
    expect(response.events).toEqual(isRetried ? [] : [`fail ${code}`]);
  });

  test('a failure behind the head: the client has it already', () => {
    const { clock, upstream, response, request } = setUp();
    request.end(null);
    upstream.calls[0]!.response.head(responseHead(200));
    upstream.calls[0]!.response.fail(new HeddleError('failfast', 'x', { retry: 'yes' }));
    clock.advance(1_000);
    expect(response.events).toEqual(['head 200', 'fail failfast']);
  });
});

describe('gRPC', () => {
  test('trailers behind nothing but a head decide', () => {
    const { clock, upstream, response, request } = setUp();
    request.end(null);
    upstream.calls[0]!.response.head(responseHead(200, GRPC, 'HTTP/2'));
    expect(response.events).toEqual([]);
    upstream.calls[0]!.response.end(headersOf({ 'grpc-status': '14' }));
    clock.advance(100);
    upstream.calls[1]!.response.head(responseHead(200, GRPC, 'HTTP/2'));
    upstream.calls[1]!.response.end(headersOf({ 'grpc-status': '0' }));
    expect(response.events).toEqual(['head 200', 'end 0']);
  });

  test('the first message lets the answer through', () => {
    const { upstream, response, request } = setUp();
    request.end(null);
    const [call] = upstream.calls;
    call!.response.head(responseHead(200, GRPC, 'HTTP/2'));
    call!.response.data(bytes('message'));
    call!.response.end(headersOf({ 'grpc-status': '14' }));
    expect(response.events).toEqual(['head 200', 'data message', 'end 14']);
    expect(upstream.calls).toHaveLength(1);
  });
});

describe('time', () => {
  test('an attempt whose head does not come in time is given up, the last one is not', () => {
    const { clock, upstream, response, request } = setUp({ perTryMs: 50, backoff: null });
    request.end(null);
    clock.advance(50);
    expect(upstream.calls[0]!.resetBy?.code).toBe('response-headers-timeout');
    return Promise.resolve().then(() => {
      expect(upstream.calls).toHaveLength(2);
      clock.advance(10_000);
      expect(response.events).toEqual([]);
    });
  });

  test('a client that goes away during the back-off ends it', () => {
    const { clock, upstream, request } = setUp();
    request.end(null);
    upstream.calls[0]!.response.head(responseHead(503));
    request.reset(new HeddleError('client-gone', 'closed'));
    clock.advance(10_000);
    expect(upstream.calls).toHaveLength(1);
  });
});
