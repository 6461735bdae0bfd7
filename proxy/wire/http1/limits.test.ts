import { describe, expect, test } from 'vitest';
import { type LiterateCase, read } from '../../io/testing/literate-http1.ts';
import { HTTP1_LIMITS, type Http1Limits } from './limits.ts';
import { RequestDecoder } from './request-decoder.ts';

const LIMITS: Http1Limits = {
  headBytesMax: 200,
  fieldsMax: 5,
  targetBytesMax: 50,
  chunkExtensionBytesMax: 20,
  trailerBytesMax: 60,
};

function last(text: string, kind: LiterateCase['kind'] = 'request'): string {
  const bytes = Buffer.from(text, 'latin1');
  const one: LiterateCase = {
    name: '',
    line: 0,
    kind,
    method: 'GET',
    mayUpgrade: false,
    atEnd: false,
    bytes,
    reading: [],
  };
  const whole = read(one, [bytes], LIMITS).at(-1);
  const pieces = Array.from(bytes, (_, index) => bytes.subarray(index, index + 1));
  expect(read(one, pieces, LIMITS).at(-1)).toBe(whole);
  return whole ?? 'nothing';
}

const CHUNKED = 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n';

describe('limits', () => {
  test('of a head', () => {
    const head = (length: number): string => {
      const start = 'GET / HTTP/1.1\r\nHost: a\r\nX: ';
      return `${start}${'x'.repeat(length - start.length - 4)}\r\n\r\n`;
    };
    expect(last(head(200))).toBe('end');
    expect(last(head(201))).toBe('error 431 head-too-large');
    // Without an end in sight, too.
    expect(last(head(300).slice(0, -4))).toBe('error 431 head-too-large');
    const response = (length: number): string => `HTTP/1.1 204 R\r\nX: ${'x'.repeat(length - 23)}\r\n\r\n`;
    expect(last(response(200), 'response')).toBe('end');
    expect(last(response(201), 'response')).toBe('error 431 head-too-large');
  });

  test('of the number of fields, those that are not passed on too', () => {
    const fields = (count: number, field: string): string => `GET / HTTP/1.1\r\nHost: a\r\n${field.repeat(count)}\r\n`;
    expect(last(fields(4, 'X: 1\r\n'))).toBe('end');
    expect(last(fields(5, 'X: 1\r\n'))).toBe('error 431 too-many-fields');
    expect(last(fields(5, 'Keep-Alive: 1\r\n'))).toBe('error 431 too-many-fields');
  });

  test('of the target', () => {
    const target = (length: number): string => `GET /${'a'.repeat(length - 1)} HTTP/1.1\r\nHost: a\r\n\r\n`;
    expect(last(target(50))).toBe('end');
    expect(last(target(51))).toBe('error 414 target-too-long');
  });

  test('of chunk extensions, in one message together', () => {
    const message = (lengths: number[]): string =>
      `${CHUNKED}${lengths.map((length) => `1;${'e'.repeat(length - 1)}\r\na\r\n`).join('')}0\r\n\r\n`;
    expect(last(message([10, 10]))).toBe('end');
    expect(last(message([10, 11]))).toBe('error 400 chunk-extensions-too-large');
    expect(last(message([21]))).toBe('error 400 chunk-extensions-too-large');
  });

  test('of trailers', () => {
    const message = (length: number): string => `${CHUNKED}0\r\nX: ${'x'.repeat(length - 7)}\r\n\r\n`;
    expect(last(message(60))).toBe('end');
    expect(last(message(61))).toBe('error 431 head-too-large');
    expect(last(`${CHUNKED}0\r\n${'X: 1\r\n'.repeat(6)}\r\n`)).toBe('error 431 too-many-fields');
  });

  test('as they are by default', () => {
    expect(HTTP1_LIMITS).toEqual({
      headBytesMax: 65_536,
      fieldsMax: 100,
      targetBytesMax: 32_768,
      chunkExtensionBytesMax: 16_384,
      trailerBytesMax: 16_384,
    });
  });
});

describe('cost', () => {
  /** Time to read `text` byte by byte, best of three. */
  function millisecondsOf(text: string): number {
    const bytes = Buffer.from(text, 'latin1');
    const sink = { head() {}, data() {} };
    const times = [1, 2, 3].map(() => {
      const decoder = new RequestDecoder();
      const start = performance.now();
      try {
        for (let at = 0; at < bytes.length; at++) decoder.push(bytes, at, at + 1, sink);
      } catch {
        // Refused at its limit: what it cost until then is what counts.
      }
      return performance.now() - start;
    });
    return Math.min(...times);
  }

  test('grows with the bytes, not with their square, when a head trickles', () => {
    const line = (length: number): string => `GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(length)}`;
    millisecondsOf(line(8_000));
    const short = millisecondsOf(line(8_000));
    const long = millisecondsOf(line(64_000));
    expect(long).toBeLessThan(Math.max(30, short * 40));
  });

  test('of a body in one-byte chunks is linear too', () => {
    const body = (count: number): string => `${CHUNKED}${'1\r\na\r\n'.repeat(count)}`;
    millisecondsOf(body(2_000));
    const short = millisecondsOf(body(2_000));
    const long = millisecondsOf(body(16_000));
    expect(long).toBeLessThan(Math.max(30, short * 40));
  });
});
