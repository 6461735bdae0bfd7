import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DETECT_BYTES_MAX, detectProtocol } from './detect.ts';

const detect = (text: string): string => detectProtocol(Buffer.from(text, 'latin1'));

describe('detectProtocol', () => {
  test.each([
    ['GET / HTTP/1.1\r\nHost: a\r\n\r\n', 'http1'],
    ['GET / HTTP/1.1', 'http1'],
    ['OPTIONS * HTTP/1.1\r\n', 'http1'],
    ['CONNECT a:443 HTTP/1.1\r\n', 'http1'],
    ['M-SEARCH * HTTP/1.1\r\n', 'http1'],
    ['\r\nGET / HTTP/1.1\r\n', 'http1'],
    ['GET /a/very/long/path/that/goes/on', 'http1'],
    ['GET http://a/ HTTP/1.0\r\n\r\n', 'http1'],
    ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'http2'],
    ['PRI * HTTP/2.0', 'http2'],
    ['GET / HTTP/1.', 'opaque'],
    ['PRI * HTTP/2', 'opaque'],
    ['', 'opaque'],
    ['*1\r\n$4\r\nPING\r\n', 'opaque'],
    ['SSH-2.0-OpenSSH_9.2p1\r\n', 'opaque'],
    ['220 mail.example.com ESMTP\r\n', 'opaque'],
    ['EHLO mail.example.com\r\n', 'opaque'],
    ['USER anonymous\r\n', 'opaque'],
    ['\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaa', 'opaque'],
    ['get / http/1.1\r\nhost: a\r\n\r\n', 'opaque'],
    ['GET  / HTTP/1.1\r\n\r\n', 'opaque'],
    ['GET / FTP/1.1\r\n\r\n', 'opaque'],
  ])('%j is %s', (text, expected) => {
    expect(detect(text)).toBe(expected);
  });

  test.each(['GET / HTTP/1.1\nHost: a\n\n', 'GET / HTTP/9.9\r\n\r\n', 'GET /a#b HTTP/1.1\r\n\r\n'])(
    'what the codec will refuse, such as %j, is not passed by it as opaque bytes',
    (text) => {
      expect(detect(text)).toBe('http1');
    },
  );

  test('a target longer than the read is still a request', () => {
    expect(detect(`GET /${'a'.repeat(DETECT_BYTES_MAX)}`)).toBe('http1');
  });

  test('never throws', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2000 }), (bytes) => {
        expect(['http1', 'http2', 'opaque']).toContain(detectProtocol(bytes));
      }),
    );
  });
});
