import { describe, expect, test } from 'vitest';
import { parseH2load } from './h2load.ts';
import { Http1Response } from './http1-response.ts';
import { parseIperf3 } from './iperf3.ts';
import { Recorder } from './result.ts';

function summary(succeeded: number, failed: number, dataBytes: number): string {
  return `finished in 2.00s, 2.00 req/s, 1.02KB/s
requests: 4 total, 4 started, 4 done, ${succeeded} succeeded, ${failed} failed, ${failed} errored, 0 timeout
status codes: 4 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.20KB (1230) total, 230B (230) headers (space savings 80.10%), ${dataBytes}B (${dataBytes}) data
`;
}

const LOG = ['1', '2', '3', '4'].map((milliseconds) => `17000000\t200\t${milliseconds}000`).join('\n');

describe('h2load', () => {
  test('reads the summary, and percentiles from the log', () => {
    expect(parseH2load(summary(4, 0, 400), LOG, { seconds: 2, responseBytes: 100 })).toEqual({
      requests: 4,
      rps: 2,
      p50Ms: 2,
      p99Ms: 4,
      p999Ms: 4,
      failures: 0,
    });
  });

  test('counts what failed by the summary or by the status in the log', () => {
    const log = `${LOG}\n17000000\t503\t100\n17000000\t-1\t100\n17000000\t502\t100`;
    expect(parseH2load(summary(4, 1, 400), log, { seconds: 2, responseBytes: 100 }).failures).toBe(3);
    expect(parseH2load(summary(4, 1, 400), LOG, { seconds: 2, responseBytes: 100 }).failures).toBe(2);
  });

  test('refuses bodies of another size, no success, and no summary', () => {
    const options = { seconds: 2, responseBytes: 100 };
    expect(() => parseH2load(summary(4, 0, 40), LOG, options)).toThrow('10.0 bytes per response: expected 100');
    expect(() => parseH2load(summary(0, 4, 0), LOG, options)).toThrow('no request succeeded');
    expect(() => parseH2load('', LOG, options)).toThrow('h2load printed no');
  });
});

describe('iperf3', () => {
  test('counts what the receiver saw', () => {
    const report = { end: { sum_sent: { bytes: 9 }, sum_received: { bytes: 2_097_152, bits_per_second: 8_388_608 } } };
    expect(parseIperf3(JSON.stringify(report))).toMatchObject({ requests: 2, rps: 1, gbps: 0.008388608, p50Ms: null });
  });

  test('refuses an error and an empty transfer', () => {
    expect(() => parseIperf3('{"error":"unable to connect"}')).toThrow('iperf3: unable to connect');
    const empty = { end: { sum_received: { bytes: 0, bits_per_second: 0 } } };
    expect(() => parseIperf3(JSON.stringify(empty))).toThrow('nothing arrived');
  });
});

describe('HTTP/1.1 response', () => {
  const right = 'HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 3\r\n\r\nabc';

  test('is complete at its last byte, however it is cut, and the next one follows', () => {
    const response = new Http1Response('abc');
    for (let round = 0; round < 2; round++) {
      const complete = [...right].map((byte) => response.push(Buffer.from(byte)));
      expect(complete.indexOf(true)).toBe(right.length - 1);
    }
    expect(response.push(Buffer.from(right))).toBe(true);
  });

  test.each([
    ['another status', right.replace('200 OK', '503 Unavailable'), 'status line'],
    ['another length', right.replace(': 3', ': 4'), 'content length "4"'],
    ['no length', right.replace('Content-Length: 3\r\n', ''), 'content length "undefined"'],
    ['another body', right.replace('abc', 'abd'), 'another body'],
    ['bytes behind the body', `${right}H`, 'another body'],
  ])('is refused with %s', (_, text, message) => {
    expect(() => new Http1Response('abc').push(Buffer.from(text))).toThrow(message);
  });
});

test('a recorder without a success has no percentiles, and says what failed first', () => {
  const recorder = new Recorder();
  recorder.failed('refused');
  recorder.failed('reset');
  expect(recorder.result(1000)).toEqual({
    requests: 0,
    rps: 0,
    p50Ms: null,
    p99Ms: null,
    p999Ms: null,
    failures: 2,
    failure: 'refused',
  });
});
