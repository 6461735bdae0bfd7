import { expect, test } from 'vitest';
import { parseWrk } from './wrk.ts';

const OUTPUT = `Running 1s test @ http://127.0.0.1:8080/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   310.10us  402.91us   8.60ms   89.50%
    Req/Sec    63.70k     2.31k   66.00k    80.00%
  Latency Distribution
     50%  120.00us
     75%  410.00us
     90%  780.00us
     99%    1.90ms
  63410 requests in 1.00s, 15.42MB read
Requests/sec:  63395.12
Transfer/sec:     15.41MB
`;

test('reads counts and latencies of wrk', () => {
  expect(parseWrk(OUTPUT)).toEqual({ requests: 63410, rps: 63395.12, p50Ms: 0.12, p99Ms: 1.9, failures: 0 });
});

test('counts wrong answers and failed sockets', () => {
  const failed = `${OUTPUT}  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 5\n`;
  expect(parseWrk(failed).failures).toBe(15);
});

test('refuses an output without the numbers', () => {
  expect(() => parseWrk('unable to connect to 127.0.0.1:8080')).toThrow('wrk printed no');
});
