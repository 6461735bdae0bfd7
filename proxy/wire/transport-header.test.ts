import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeTransportHeader, encodeTransportHeader, type TransportHeader } from './transport-header.ts';

const PREFACE = 'transport.l5d.io/v1\r\n\r\n';

function framed(message: number[]): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(message.length);
  return Buffer.concat([Buffer.from(PREFACE), length, Buffer.from(message)]);
}

describe('the transport header', () => {
  test.each<[TransportHeader, string]>([
    // As recorded from linkerd2-proxy.
    [{ port: 9443, name: '', sessionProtocol: null }, '08e349'],
    [{ port: 9443, name: '', sessionProtocol: 'http1' }, '08e3491a020a00'],
    [{ port: 9443, name: '', sessionProtocol: 'http2' }, '08e3491a021200'],
    [{ port: 80, name: 'a.b:80', sessionProtocol: null }, '08501206612e623a3830'],
  ])('%j is %s on the wire', (header, hex) => {
    const bytes = encodeTransportHeader(header);
    expect(Buffer.from(bytes).equals(framed([...Buffer.from(hex, 'hex')]))).toBe(true);
    expect(decodeTransportHeader(bytes)).toEqual({ kind: 'header', header, bytesUsed: bytes.length });
  });

  test('is waited for byte by byte, and leaves what follows alone', () => {
    const bytes = Buffer.from(encodeTransportHeader({ port: 8080, name: 'web.shop', sessionProtocol: 'http1' }));
    for (let length = 0; length < bytes.length; length++) {
      expect(decodeTransportHeader(bytes.subarray(0, length))).toEqual({ kind: 'incomplete' });
    }
    const result = decodeTransportHeader(Buffer.concat([bytes, Buffer.from('session bytes')]));
    expect(result).toMatchObject({ kind: 'header', bytesUsed: bytes.length });
  });

  test.each([
    ['another protocol', Buffer.from('GET / HTTP/1.1\r\n')],
    ['a wrong preface', Buffer.from('transport.l5d.io/v2\r\n\r\n\0\0\0\x02\x08\x50')],
    ['an endless message', Buffer.concat([Buffer.from(PREFACE), Buffer.from([0, 1, 0, 0])])],
    ['no port', framed([])],
    ['port 0', framed([0x08, 0])],
    ['port 65536', framed([0x08, 0x80, 0x80, 0x04])],
    ['a negative port', framed([0x08, ...Array(9).fill(0xff), 0x01])],
    ['a cut varint', framed([0x08, 0x80])],
    ['a name beyond the end', framed([0x08, 80, 0x12, 200, 65])],
    ['a group', framed([0x0b])],
    ['field 0', framed([0x00, 1])],
    ['a broken session protocol', framed([0x08, 80, 0x1a, 1, 0x0b])],
  ])('refuses %s', (_what, bytes) => {
    expect(decodeTransportHeader(bytes).kind).toBe('invalid');
  });

  test('skips fields it does not know', () => {
    const message = [0x20, 5, 0x2d, 1, 2, 3, 4, 0x31, 1, 2, 3, 4, 5, 6, 7, 8, 0x3a, 1, 9, 0x08, 0x50];
    expect(decodeTransportHeader(framed(message))).toMatchObject({ header: { port: 80 } });
  });

  test('survives anything, and reads back whatever it writes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (message) => {
        expect(['header', 'invalid', 'incomplete']).toContain(decodeTransportHeader(framed([...message])).kind);
      }),
    );
    const sessionProtocol = fc.constantFrom<TransportHeader['sessionProtocol']>(null, 'http1', 'http2');
    const port = fc.integer({ min: 1, max: 65_535 });
    fc.assert(
      fc.property(fc.record({ port, name: fc.string({ maxLength: 253 }), sessionProtocol }), (header) => {
        expect(decodeTransportHeader(encodeTransportHeader(header))).toMatchObject({ kind: 'header', header });
      }),
    );
  });
});
