import { describe, expect, test } from 'vitest';
import { judgeHead, judgeTrailers, readRetryAfterMs } from './classify.ts';
import type { HttpVersion, ResponseHead } from './http.ts';
import { requestHead } from './policy/testing.ts';

const headersOf = (fields: [string, string][]) => requestHead({}, fields).headers;
const response = (
  status: number,
  version: HttpVersion = 'HTTP/1.1',
  fields: [string, string][] = [],
): ResponseHead => ({
  status,
  reason: '',
  version,
  headers: headersOf(fields),
  bodyBytes: 0,
});
const grpc: [string, string] = ['content-type', 'application/grpc'];

describe('by the head', () => {
  test.each([
    [200, 'success', 'success'],
    [404, 'success', 'success'],
    [429, 'success', 'limited'],
    [500, 'failure', 'failure'],
    [599, 'failure', 'failure'],
  ])('HTTP %i', (status, classification, outcome) => {
    expect(judgeHead(response(status), null)).toMatchObject({ classification, outcome });
  });

  test('a profile comes first', () => {
    expect(judgeHead(response(500), () => 'success')?.classification).toBe('success');
    expect(judgeHead(response(404), () => 'failure')?.classification).toBe('failure');
    expect(judgeHead(response(500), () => null)?.classification).toBe('failure');
  });

  test('gRPC without a status in its head waits for the trailers', () => {
    expect(judgeHead(response(200, 'HTTP/2', [grpc]), null)).toBeNull();
    expect(judgeHead(response(200, 'HTTP/2', [grpc, ['grpc-status', '14']]), null)).toMatchObject({
      classification: 'failure',
      grpcStatus: 14,
    });
  });
});

describe('gRPC codes', () => {
  test.each([0, 1, 3, 5, 6, 8, 9, 10, 11, 12, 16])('%i is a success', (code) => {
    expect(judgeTrailers(headersOf([['grpc-status', String(code)]])).classification).toBe('success');
  });

  test.each([2, 4, 7, 13, 14, 15])('%i is a failure', (code) => {
    expect(judgeTrailers(headersOf([['grpc-status', String(code)]]))).toMatchObject({
      classification: 'failure',
      outcome: 'failure',
      grpcStatus: code,
    });
  });

  test('RESOURCE_EXHAUSTED counts against the success rate of the breaker', () => {
    expect(judgeTrailers(headersOf([['grpc-status', '8']])).outcome).toBe('limited');
  });

  test('a stream that ends without a status is a success', () => {
    expect(judgeTrailers(null)).toMatchObject({ classification: 'success', grpcStatus: -1 });
    expect(judgeTrailers(headersOf([['grpc-status', 'garbage']])).grpcStatus).toBe(-1);
  });
});

test.each([
  [[['retry-after', '3']], 3_000],
  [[['grpc-retry-pushback-ms', '250']], 250],
  [[['retry-after', 'Wed, 21 Oct 2026 07:28:00 GMT']], null],
  [[], null],
] as [[string, string][], number | null][])('wait that the server asks for: %j', (fields, expected) => {
  expect(readRetryAfterMs(headersOf(fields))).toBe(expected);
});
