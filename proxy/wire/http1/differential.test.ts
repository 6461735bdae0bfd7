import http from 'node:http';
import { type Duplex, duplexPair } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { RequestHead } from '../../http.ts';
import { mutated } from '../../io/testing/mutated-http1.ts';
import { Http1Error } from './error.ts';
import { RequestDecoder } from './request-decoder.ts';

/** One request as either reader understood it. */
interface Reading {
  method: string;
  target: string;
  host: string;
  body: string;
}

/** Node's own parser, over a stream in memory. */
async function readByNode(bytes: Buffer): Promise<Reading[]> {
  const readings: Reading[] = [];
  const server = http.createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('error', () => {});
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const { method = '', url = '', headersDistinct } = request;
      const host = headersDistinct.host?.join('+') ?? '';
      readings.push({ method, target: url, host, body: Buffer.concat(chunks).toString('latin1') });
      response.end();
    });
  });
  const drop = (_event: unknown, socket: Duplex): void => void socket.destroy();
  for (const event of ['upgrade', 'connect', 'clientError']) server.on(event, drop);
  const [near, far] = duplexPair();
  const closed = Promise.withResolvers<void>();
  for (const event of ['close', 'end']) near.on(event, () => closed.resolve());
  near.on('error', () => {});
  near.resume();
  server.emit('connection', far);
  near.end(bytes);
  await closed.promise;
  near.destroy();
  far.destroy();
  return readings;
}

class Reader {
  readonly whole: Reading[] = [];
  #current: Reading = { method: '', target: '', host: '', body: '' };

  head(head: RequestHead): void {
    const target = head.isAbsoluteForm ? 'absolute' : head.path;
    this.#current = { method: head.method, target, host: head.headers.get('host') ?? '', body: '' };
  }

  data(bytes: Uint8Array, start: number, end: number): void {
    this.#current.body += Buffer.from(bytes.subarray(start, end)).toString('latin1');
  }

  end(): void {
    this.whole.push(this.#current);
  }
}

/** Ours: the requests that were read whole before anything was refused. */
function readByUs(bytes: Buffer): { readings: Reading[]; isRefused: boolean } {
  const decoder = new RequestDecoder();
  const reader = new Reader();
  try {
    for (let at = 0; at < bytes.length; ) {
      at = decoder.push(bytes, at, bytes.length, reader);
      if (!decoder.isDone) continue;
      reader.end();
      if (!decoder.isPersistent) break;
      decoder.next();
    }
  } catch (error) {
    if (!(error instanceof Http1Error)) throw error;
    return { readings: reader.whole, isRefused: true };
  }
  return { readings: reader.whole, isRefused: false };
}

describe('beside node:http', () => {
  test('what both accept, both read alike', async () => {
    let compared = 0;
    const requests = mutated.filter((one) => one.kind === 'request' && !/upgrade|^CONNECT/i.test(one.bytes.toString()));
    await fc.assert(
      fc.asyncProperty(requests, async ({ bytes }) => {
        const ours = readByUs(bytes).readings;
        const theirs = await readByNode(bytes);
        for (let index = 0; index < Math.min(ours.length, theirs.length); index++) {
          const theirTarget = theirs[index]!.target;
          const target = /^https?:/i.test(theirTarget) ? 'absolute' : theirTarget;
          expect(ours[index]).toEqual({ ...theirs[index]!, target });
          compared++;
        }
      }),
      { numRuns: 2500 },
    );
    expect(compared).toBeGreaterThan(200);
  });

  test('an ordinary request is accepted by both', async () => {
    const bytes = Buffer.from(
      'POST /a?b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
    );
    const expected = [{ method: 'POST', target: '/a?b', host: 'h', body: 'ok' }];
    expect(readByUs(bytes)).toEqual({ readings: expected, isRefused: false });
    expect(await readByNode(bytes)).toEqual(expected);
  });
});
