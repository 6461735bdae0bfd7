import { describe, expect, test } from 'vitest';
import { HeddleError } from '#lib/errors.ts';
import { answerError, classifyError, isGrpc } from './error-response.ts';
import type { RequestHead, ResponseHead, ResponseStream } from './http.ts';
import { requestHead } from './policy/testing.ts';

function answer(request: RequestHead, error: HeddleError, withDetails = true): ResponseHead {
  let sent: ResponseHead | null = null;
  let ended = 0;
  const response: ResponseStream = {
    informational: () => {},
    head: (head) => {
      sent = head;
    },
    data: () => true,
    end: () => ended++,
    fail: () => {},
    resumeRequest: () => {},
  };
  answerError(request, error, response, { withDetails });
  expect(ended).toBe(1);
  return sent!;
}

describe('the table', () => {
  test.each([
    ['failfast', 504, 4, true, 'failfast'],
    ['connect-timeout', 504, 4, true, 'connect timeout'],
    ['profile-timeout', 504, 4, true, 'response timeout'],
    ['request-timeout', 504, 4, false, 'response timeout'],
    ['load-shed', 503, 14, true, 'loadshed'],
    ['identity-required', 502, 14, true, 'identity required'],
    ['no-route', 404, 5, false, 'route not found'],
    ['unauthorized', 403, 7, false, 'unauthorized'],
    ['rate-limited', 429, 8, false, 'rate limited'],
    ['gateway-loop', 508, 10, true, 'gateway loop'],
    ['invalid-policy', 500, 13, true, 'unexpected'],
    ['something-else', 500, 13, true, 'unexpected'],
  ])('%s', (code, status, grpcStatus, isClosing, label) => {
    expect(classifyError(new HeddleError(code, 'x'))).toEqual({ status, grpcStatus, isClosing, label });
  });

  test('what went wrong upstream is a bad gateway', () => {
    const error = new HeddleError('connect-refused', 'connect', { source: 'upstream' });
    expect(classifyError(error)).toMatchObject({ status: 502, grpcStatus: 14, isClosing: true });
  });

  test('the cause decides where the wrapper says nothing', () => {
    const cause = new HeddleError('connect-timeout', 'connect to "10.0.0.1:80": expected an answer within 1000 ms');
    expect(classifyError(new HeddleError('endpoint', 'endpoint', { cause, source: 'upstream' })).status).toBe(504);
  });
});

describe('the answer', () => {
  const cause = new HeddleError('connect-refused', 'connect to "10.0.0.1:80": connection refused');
  const error = new HeddleError('endpoint', 'endpoint\r\n"web"', { cause, source: 'upstream' });

  test('HTTP/1 says why in one line and closes', () => {
    const head = answer(requestHead(), error);
    expect(head.status).toBe(502);
    expect(head.bodyBytes).toBe(0);
    expect(head.headers.get('content-length')).toBe('0');
    expect(head.closesConnection).toBe(true);
    expect(head.headers.get('l5d-proxy-connection')).toBe('close');
    expect(head.headers.get('l5d-proxy-error')).toBe('endpoint  "web": connect to "10.0.0.1:80": connection refused');
  });

  test('keeps the reason and the connection to itself where it is told to', () => {
    const head = answer(requestHead(), new HeddleError('unauthorized', 'x'), false);
    expect(head.status).toBe(403);
    expect(head.headers.has('l5d-proxy-error')).toBe(false);
    expect(head.headers.has('l5d-proxy-connection')).toBe(false);
    expect(head.closesConnection).toBeUndefined();
  });

  test('gRPC gets trailers only with an encoded message', () => {
    const request = requestHead({ version: 'HTTP/2', method: 'POST' }, [['content-type', 'application/grpc+proto']]);
    const head = answer(request, new HeddleError('failfast', 'größer 100 %'));
    expect(head.status).toBe(200);
    expect(head.headers.get('grpc-status')).toBe('4');
    expect(head.headers.get('grpc-message')).toBe('gr%C3%B6%C3%9Fer 100 %25');
  });

  test('gRPC-Web and HTTP/1 are not gRPC', () => {
    expect(isGrpc(requestHead({ version: 'HTTP/2' }, [['content-type', 'application/grpc-web']]))).toBe(false);
    expect(isGrpc(requestHead({}, [['content-type', 'application/grpc']]))).toBe(false);
    expect(isGrpc(requestHead({ version: 'HTTP/2' }, [['content-type', 'application/grpc']]))).toBe(true);
  });
});
