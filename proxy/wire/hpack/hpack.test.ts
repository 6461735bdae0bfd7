import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { HpackDecoder } from './decoder.ts';
import { HpackEncoder } from './encoder.ts';
import { HpackError } from './error.ts';
import { decodeHuffman, encodeHuffman, huffmanBytes } from './huffman.ts';
import { readInteger, writeInteger } from './integer.ts';

type Field = [name: string, value: string];

const bytesOf = (hex: string) =>
  Uint8Array.from(hex.replaceAll(' ', '').match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));

function decodeAll(decoder: HpackDecoder, hex: string | Uint8Array): Field[] {
  const bytes = typeof hex === 'string' ? bytesOf(hex) : hex;
  const fields: Field[] = [];
  decoder.decode(bytes, 0, bytes.length, { field: (name, value) => fields.push([name, value]) });
  return fields;
}

function encodeAll(encoder: HpackEncoder, fields: Field[]): Uint8Array {
  const room = fields.reduce(
    (sum, [name, value]) => sum + HpackEncoder.fieldBytesMax(name, value),
    HpackEncoder.beginBytesMax,
  );
  const out = new Uint8Array(room);
  let at = encoder.begin(out, 0);
  for (const [name, value] of fields) at = encoder.field(out, at, name, value);
  return out.subarray(0, at);
}

describe('integers (RFC 7541 appendix C.1)', () => {
  test.each([
    [10, 5, '0a'],
    [1337, 5, '1f9a0a'],
    [42, 8, '2a'],
  ])('%i with a prefix of %i bits', (value, prefix, hex) => {
    const out = new Uint8Array(8);
    const end = writeInteger(out, 0, 0, prefix, value);
    expect(Buffer.from(out.subarray(0, end)).toString('hex')).toBe(hex);
    expect(readInteger({ bytes: out, at: 0, end }, prefix)).toBe(value);
  });

  test('too large or cut off', () => {
    expect(() => readInteger({ bytes: bytesOf('1fffffffffff7f'), at: 0, end: 7 }, 5)).toThrow(HpackError);
    expect(() => readInteger({ bytes: bytesOf('1f80'), at: 0, end: 2 }, 5)).toThrow(HpackError);
  });
});

describe('requests with Huffman (RFC 7541 appendix C.4)', () => {
  const decoder = new HpackDecoder();
  const encoder = new HpackEncoder();
  const first: Field[] = [
    [':method', 'GET'],
    [':scheme', 'http'],
    [':path', '/'],
    [':authority', 'www.example.com'],
  ];
  const second: Field[] = [...first, ['cache-control', 'no-cache']];
  const third: Field[] = [
    [':method', 'GET'],
    [':scheme', 'https'],
    [':path', '/index.html'],
    [':authority', 'www.example.com'],
    ['custom-key', 'custom-value'],
  ];

  test.each([
    ['8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff', first],
    ['8286 84be 5886 a8eb 1064 9cbf', second],
    ['8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf', third],
  ])('%s', (hex, fields) => {
    expect(decodeAll(decoder, hex)).toEqual(fields);
    expect(Buffer.from(encodeAll(encoder, fields))).toEqual(Buffer.from(bytesOf(hex)));
  });
});

describe('responses with eviction from a table of 256 (RFC 7541 appendix C.6)', () => {
  const decoder = new HpackDecoder(256);
  test.each([
    [
      '4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3',
      [
        [':status', '302'],
        ['cache-control', 'private'],
        ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
        ['location', 'https://www.example.com'],
      ],
    ],
    [
      '4883 640e ffc1 c0bf',
      [
        [':status', '307'],
        ['cache-control', 'private'],
        ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
        ['location', 'https://www.example.com'],
      ],
    ],
  ])('%s', (hex, fields) => {
    expect(decodeAll(decoder, hex)).toEqual(fields);
  });
});

describe('faults end the connection', () => {
  test.each([
    ['index 0', '80'],
    ['index beyond both tables', 'be'],
    ['string longer than its block', '4005 6162'],
    ['size update above the limit', '3fe2 1f'],
    ['size update behind a field', '8220'],
    ['EOS in a Huffman string', '0084 ffff ffff 00'],
    ['padding of eight bits', '0082 1fff 00'],
    ['padding with zeros', '0081 0000'],
  ])('%s', (_name, hex) => {
    expect(() => decodeAll(new HpackDecoder(), hex)).toThrow(HpackError);
  });

  test('no size update after the limit was lowered, and its allowed twin', () => {
    const decoder = new HpackDecoder();
    decoder.setLimit(100);
    expect(() => decodeAll(decoder, '82')).toThrow(HpackError);
    const obeyed = new HpackDecoder();
    obeyed.setLimit(100);
    expect(decodeAll(obeyed, '3f45 82')).toEqual([[':method', 'GET']]);
  });
});

describe('properties', () => {
  const latin1 = fc.string({
    unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)),
    maxLength: 200,
  });

  test('Huffman returns what it was given', () => {
    fc.assert(
      fc.property(latin1, (text) => {
        const out = new Uint8Array(huffmanBytes(text));
        expect(encodeHuffman(out, 0, text)).toBe(out.length);
        expect(decodeHuffman(out, 0, out.length)).toBe(text);
      }),
    );
  });

  test('a decoder in step with an encoder sees the same fields, whatever the table sizes do', () => {
    const names = fc.constantFrom(':path', ':authority', 'x-a', 'x-b', 'content-type', 'x-long-name-of-a-field');
    const block = fc.record({
      limit: fc.option(fc.integer({ min: 0, max: 8192 })),
      fields: fc.array(fc.tuple(names, latin1), { maxLength: 12 }),
    });
    fc.assert(
      fc.property(fc.array(block, { maxLength: 20 }), (blocks) => {
        const encoder = new HpackEncoder(4096);
        const decoder = new HpackDecoder();
        for (const { limit, fields } of blocks) {
          if (limit !== null) {
            decoder.setLimit(Math.min(limit, 4096));
            encoder.setPeerLimit(limit);
          }
          expect(decodeAll(decoder, encodeAll(encoder, fields as Field[]))).toEqual(fields);
        }
      }),
    );
  });

  test('arbitrary bytes never do worse than HpackError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          decodeAll(new HpackDecoder(), bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(HpackError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
