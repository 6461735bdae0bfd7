import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { HeddleError } from '#lib/errors.ts';
import { encodeLinkFrame, encodeLinkJson, LinkDecoder, parseLinkJson } from './link-codec.ts';
import { LINK_FRAME_BYTES_MAX, LinkFrame } from './worker-link.ts';

interface Seen {
  type: number;
  stream: number;
  payload: string;
}

function collect(): { seen: Seen[]; onFrame: (type: number, stream: number, payload: Buffer) => void } {
  const seen: Seen[] = [];
  return { seen, onFrame: (type, stream, payload) => seen.push({ type, stream, payload: payload.toString('hex') }) };
}

function codeOf(run: () => void): string {
  try {
    run();
  } catch (error) {
    return error instanceof HeddleError ? error.code : String(error);
  }
  return 'no error';
}

describe('link frames', () => {
  test('have a big-endian length, type, stream and payload', () => {
    expect(encodeLinkFrame(LinkFrame.update, 7, Buffer.from('ab')).toString('hex')).toBe('0000000784000000076162');
  });

  test('come out as they went in, however the bytes are cut', () => {
    const frame = fc.record({
      type: fc.integer({ min: 0, max: 255 }),
      stream: fc.integer({ min: 0, max: 0xffffffff }),
      payload: fc.uint8Array({ maxLength: 300 }),
    });
    fc.assert(
      fc.property(
        fc.array(frame, { maxLength: 8 }),
        fc.infiniteStream(fc.integer({ min: 1, max: 64 })),
        (frames, cuts) => {
          const bytes = Buffer.concat(
            frames.map(({ type, stream, payload }) => encodeLinkFrame(type, stream, payload)),
          );
          const decoder = new LinkDecoder();
          const { seen, onFrame } = collect();
          for (let at = 0; at < bytes.length; ) {
            const size = cuts.next().value!;
            decoder.push(bytes.subarray(at, at + size), onFrame);
            at += size;
          }
          expect(decoder.isIdle).toBe(true);
          expect(seen).toEqual(
            frames.map(({ type, stream, payload }) => ({
              type,
              stream,
              payload: Buffer.from(payload).toString('hex'),
            })),
          );
        },
      ),
    );
  });

  test('are told from a half-read one', () => {
    const decoder = new LinkDecoder();
    const { seen, onFrame } = collect();
    decoder.push(encodeLinkFrame(LinkFrame.ping, 2, Buffer.from('xyz')).subarray(0, 10), onFrame);
    expect([decoder.isIdle, seen.length]).toEqual([false, 0]);
  });

  test.each([
    ['an HTTP request', Buffer.from('GET / HTTP/1.1\r\n'), 'link-frame-too-large'],
    ['a length below the header', Buffer.from([0, 0, 0, 4, 1, 0, 0, 0, 0]), 'link-frame-too-short'],
    ['a length of zero', Buffer.alloc(9), 'link-frame-too-short'],
  ])('refuse %s', (_name, bytes, code) => {
    expect(codeOf(() => new LinkDecoder().push(bytes, () => {}))).toBe(code);
  });

  test('hold at most the largest frame', () => {
    const largest = LINK_FRAME_BYTES_MAX - 5;
    expect(encodeLinkFrame(1, 1, Buffer.alloc(largest)).length).toBe(LINK_FRAME_BYTES_MAX + 4);
    expect(codeOf(() => encodeLinkFrame(1, 1, Buffer.alloc(largest + 1)))).toBe('link-frame-too-large');
  });

  test('never make the decoder fail but with its own errors', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        const code = codeOf(() => new LinkDecoder().push(bytes, () => {}));
        expect(['no error', 'link-frame-too-large', 'link-frame-too-short']).toContain(code);
      }),
    );
  });
});

describe('JSON payloads', () => {
  test('are objects', () => {
    const frame = encodeLinkJson(LinkFrame.drain, 0, { graceMs: 5, reason: 'shutdown' });
    expect(parseLinkJson(frame.subarray(9))).toEqual({ graceMs: 5, reason: 'shutdown' });
  });

  test.each(['', '{', '[]', 'null', '3', '"x"'])('refuse %j', (text) => {
    expect(codeOf(() => parseLinkJson(Buffer.from(text)))).toBe('link-json');
  });
});
