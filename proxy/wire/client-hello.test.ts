import { duplexPair } from 'node:stream';
import { connect } from 'node:tls';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { type ClientHello, parseClientHello } from './client-hello.ts';

/** The first flight of Node's own TLS client. */
async function helloOf(options: {
  servername?: string;
  ALPNProtocols?: string[];
  maxVersion?: 'TLSv1.2';
}): Promise<Buffer> {
  const [near, far] = duplexPair();
  const client = connect({ socket: near, rejectUnauthorized: false, ...options });
  client.on('error', () => {});
  const first = Promise.withResolvers<Buffer>();
  far.once('data', first.resolve);
  const bytes = await first.promise;
  client.destroy();
  return bytes;
}

/** The same message in records of at most `size` bytes. */
function fragment(hello: Buffer, size: number): Buffer {
  const message = hello.subarray(5);
  const records: Buffer[] = [];
  for (let at = 0; at < message.length; at += size) {
    const part = message.subarray(at, at + size);
    records.push(Buffer.from([22, 3, 1, part.length >> 8, part.length & 255]), part);
  }
  return Buffer.concat(records);
}

let hello: Buffer;
const expected: ClientHello = { kind: 'hello', serverName: 'web.shop', alpn: ['transport.l5d.io/v1', 'h2'] };

beforeAll(async () => {
  hello = await helloOf({ servername: 'web.shop', ALPNProtocols: ['transport.l5d.io/v1', 'h2'] });
});

describe('parseClientHello', () => {
  test('finds SNI and ALPN', async () => {
    expect(parseClientHello(hello)).toEqual(expected);
    expect(parseClientHello(await helloOf({}))).toEqual({ kind: 'hello', serverName: null, alpn: [] });
    const older = await helloOf({ servername: 'Old.Example', maxVersion: 'TLSv1.2' });
    expect(parseClientHello(older)).toMatchObject({ kind: 'hello', serverName: 'old.example' });
  });

  test('waits for every byte of it', () => {
    for (let length = 0; length < hello.length; length++) {
      expect(parseClientHello(hello.subarray(0, length)), `${length} bytes`).toEqual({ kind: 'incomplete' });
    }
    expect(parseClientHello(Buffer.concat([hello, Buffer.from('more')]))).toEqual(expected);
  });

  test('reads it from records of any size', () => {
    for (const size of [1, 3, 100, 511]) {
      const cut = fragment(hello, size);
      expect(parseClientHello(cut), `records of ${size}`).toEqual(expected);
      expect(parseClientHello(cut.subarray(0, cut.length - 1))).toEqual({ kind: 'incomplete' });
    }
  });

  test.each([
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\n')],
    ['one byte of something else', Buffer.from('G')],
    ['another record version', Buffer.from([22, 4, 1, 0, 5])],
    ['an alert', Buffer.from([21, 3, 3, 0, 2, 1, 0])],
    ['another handshake message', Buffer.from([22, 3, 3, 0, 4, 2, 0, 0, 0])],
    ['an empty record', Buffer.from([22, 3, 1, 0, 0, 1])],
    ['a record beyond the limit', Buffer.from([22, 3, 1, 0x40, 1])],
    ['an empty ClientHello', Buffer.from([22, 3, 1, 0, 4, 1, 0, 0, 0])],
  ])('takes %s for no TLS', (_what, bytes) => {
    expect(parseClientHello(bytes)).toEqual({ kind: 'not-tls' });
  });

  test('is not led astray by lengths that lie', () => {
    fc.assert(
      fc.property(fc.nat(hello.length - 1), fc.nat(255), (at, value) => {
        const broken = Buffer.from(hello);
        broken[at] = value;
        expect(['hello', 'not-tls', 'incomplete']).toContain(parseClientHello(broken).kind);
      }),
      { numRuns: 2000 },
    );
  });
});
