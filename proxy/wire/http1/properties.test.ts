import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { RequestHead, ResponseHead } from '../../http.ts';
import { read } from '../../io/testing/literate-http1.ts';
import { corpus, mutated } from '../../io/testing/mutated-http1.ts';
import { HeaderList } from '../headers.ts';
import {
  encodeChunkSize,
  encodeLastChunk,
  encodeRequestHead,
  encodeResponseHead,
  Framing,
  requestFraming,
  requestHeadBytesMax,
  responseFraming,
  responseHeadBytesMax,
} from './encoder.ts';
import { RequestDecoder } from './request-decoder.ts';
import { ResponseDecoder } from './response-decoder.ts';

const options: fc.Parameters<unknown> = { numRuns: 1500, verbose: fc.VerbosityLevel.None };

function cut(bytes: Buffer, places: number[]): Buffer[] {
  const offsets = [...new Set(places.map((place) => Math.floor(place * bytes.length)))].sort((a, b) => a - b);
  return [0, ...offsets].map((start, index) => bytes.subarray(start, offsets[index] ?? bytes.length));
}

describe('the decoders', () => {
  test('read the same however the bytes are cut, and never crash', () => {
    const places = fc.array(fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }), { maxLength: 12 });
    fc.assert(
      fc.property(mutated, places, (plain, at) => {
        // A line that is cut short may be refused at once or when its end comes: let it come.
        const one = { ...plain, bytes: Buffer.concat([plain.bytes, Buffer.from('\n')]) };
        const pieces = cut(one.bytes, at).filter((piece) => piece.length > 0);
        expect(read(one, pieces)).toEqual(read(one, [one.bytes]));
      }),
      options,
    );
  });

  test('survive bytes at random', () => {
    const kind = fc.constantFrom<'request' | 'response'>('request', 'response');
    fc.assert(
      fc.property(kind, fc.uint8Array({ minLength: 1, maxLength: 200 }), (what, bytes) => {
        const one = { ...corpus[0]!, kind: what, bytes: Buffer.from(bytes), atEnd: true };
        expect(read(one, [one.bytes]).at(-1)).toMatch(/^error|^end/);
      }),
      { ...options, examples: [['request', new Uint8Array([13, 10])]] },
    );
  });
});

const token = fc.stringMatching(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}$/);
const fieldValue = fc.stringMatching(/^([!-~\x80-\xff]([ \t!-~\x80-\xff]{0,40}[!-~\x80-\xff])?)?$/);
const reserved = /^(host|content-length|transfer-encoding|connection|keep-alive|proxy-connection|te|upgrade)$/i;
const fields = fc
  .array(fc.tuple(token, fieldValue), { maxLength: 12 })
  .map((list) => list.filter(([name]) => !reserved.test(name)).map(([name, value]) => [name.toLowerCase(), value]));
/** None, of a length, or chunks. */
const content = fc.oneof(
  fc.constant(null),
  fc.uint8Array({ maxLength: 60 }),
  fc.array(fc.uint8Array({ minLength: 1, maxLength: 20 })),
);
type Content = Uint8Array | Uint8Array[] | null;

function listOf(pairs: string[][]): HeaderList {
  const headers = new HeaderList();
  for (const [name, value] of pairs) headers.add(name!, value!);
  return headers;
}

function pairsOf(headers: HeaderList): string[][] {
  return Array.from({ length: headers.length }, (_, index) => [headers.name(index), headers.value(index)]);
}

function lengthOf(body: Content): number | null | 'unknown' {
  return body === null ? null : Array.isArray(body) ? 'unknown' : body.length;
}

function partsOf(body: Content): Uint8Array[] {
  return body === null ? [] : Array.isArray(body) ? body : [body];
}

/** As the I/O layer writes a body. */
function encodeBody(framing: Framing, parts: Uint8Array[]): Buffer {
  if (framing !== Framing.chunked) return Buffer.concat(parts);
  const out: Uint8Array[] = [];
  for (const part of parts) {
    const size = Buffer.alloc(16);
    out.push(size.subarray(0, encodeChunkSize(part.length, size, 0)), part, Buffer.from('\r\n'));
  }
  const last = Buffer.alloc(16);
  out.push(last.subarray(0, encodeLastChunk(null, last, 0)));
  return Buffer.concat(out);
}

class Received<Head> {
  readonly heads: Head[] = [];
  body = Buffer.alloc(0);

  head(head: Head): void {
    this.heads.push(head);
  }

  informational(head: Head): void {
    this.heads.push(head);
  }

  data(bytes: Uint8Array, start: number, end: number): void {
    this.body = Buffer.concat([this.body, bytes.subarray(start, end)]);
  }
}

describe('what the encoder writes', () => {
  test('requests are read back as they were', () => {
    fc.assert(
      fc.property(token, fields, content, (method, pairs, body) => {
        if (method === 'CONNECT') return;
        const bodyBytes = lengthOf(body);
        const rest = { method, scheme: 'http', authority: 'a.b:1', path: '/x?y', upgrade: null, bodyBytes };
        const head: RequestHead = { ...rest, version: 'HTTP/1.1', headers: listOf(pairs) };
        const out = Buffer.alloc(requestHeadBytesMax(head));
        const end = encodeRequestHead(head, out, 0);
        const bytes = Buffer.concat([out.subarray(0, end), encodeBody(requestFraming(head), partsOf(body))]);
        const received = new Received<RequestHead>();
        const decoder = new RequestDecoder();
        expect(decoder.push(bytes, 0, bytes.length, received)).toBe(bytes.length);
        expect(decoder.isDone && decoder.isPersistent).toBe(true);
        const [again] = received.heads;
        expect(again).toMatchObject(rest);
        const expected = [['host', 'a.b:1'], ...pairs];
        if (typeof bodyBytes === 'number') expected.push(['content-length', String(bodyBytes)]);
        expect(pairsOf(again!.headers as HeaderList)).toEqual(expected);
        expect(received.body.equals(Buffer.concat(partsOf(body)))).toBe(true);
      }),
      options,
    );
  });

  test('responses are read back as they were, by either version of client', () => {
    const status = fc.integer({ min: 200, max: 599 }).filter((code) => code !== 204 && code !== 304);
    const version = fc.constantFrom<'HTTP/1.0' | 'HTTP/1.1'>('HTTP/1.0', 'HTTP/1.1');
    fc.assert(
      fc.property(status, fields, content, version, (code, pairs, body, client) => {
        const bodyBytes = lengthOf(body) ?? 0;
        const headers = listOf(pairs);
        const head: ResponseHead = { status: code, reason: 'Because', version: 'HTTP/1.1', headers, bodyBytes };
        const framing = responseFraming(head, client);
        const isLast = framing === Framing.untilEnd;
        const out = Buffer.alloc(responseHeadBytesMax(head));
        const end = encodeResponseHead(head, { bodyBytes, framing, isLast, isHttp10: client === 'HTTP/1.0' }, out, 0);
        const bytes = Buffer.concat([out.subarray(0, end), encodeBody(framing, partsOf(body))]);
        const received = new Received<ResponseHead>();
        const decoder = new ResponseDecoder();
        decoder.expect('GET', false);
        expect(decoder.push(bytes, 0, bytes.length, received)).toBe(bytes.length);
        if (isLast) decoder.finish();
        expect(decoder.isDone).toBe(true);
        expect(decoder.isPersistent).toBe(!isLast);
        const [again] = received.heads;
        expect(again).toMatchObject({ status: code, reason: 'Because' });
        const expected = typeof bodyBytes === 'number' ? [...pairs, ['content-length', String(bodyBytes)]] : pairs;
        expect(pairsOf(again!.headers as HeaderList)).toEqual(expected);
        expect(received.body.equals(Buffer.concat(partsOf(body)))).toBe(true);
      }),
      options,
    );
  });

  test('what was read is written letter for letter, but for what was changed', () => {
    const raw = fc.array(fc.tuple(token, fieldValue, fc.constantFrom(': ', ':', ':\t', ':   ')), { maxLength: 12 });
    const changes = fc.array(fc.tuple(fc.constantFrom('add', 'remove', 'set'), fc.nat(12)), { maxLength: 4 });
    fc.assert(
      fc.property(raw, changes, (list, edits) => {
        const lines = list.filter(([name]) => !reserved.test(name)).map(([name, value, colon]) => name + colon + value);
        const bytes = Buffer.from(`GET / HTTP/1.0\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\n`, 'latin1');
        const received = new Received<RequestHead>();
        new RequestDecoder().push(bytes, 0, bytes.length, received);
        const headers = received.heads[0]!.headers as HeaderList;
        const nameOf = (line: string): string => line.slice(0, line.indexOf(':')).toLowerCase();
        let expected = lines;
        for (const [edit, at] of edits) {
          const name = expected.length === 0 ? 'x-new' : nameOf(expected[at % expected.length]!);
          if (edit !== 'add') expected = expected.filter((line) => nameOf(line) !== name);
          if (edit !== 'remove') expected = [...expected, `${name}: v`];
          if (edit === 'add') headers.add(name, 'v');
          else if (edit === 'set') headers.set(name, 'v');
          else headers.remove(name);
        }
        const out = Buffer.alloc(headers.bytesMax);
        const text = out.toString('latin1', 0, headers.write(out, 0));
        expect(text).toBe(expected.map((line) => `${line}\r\n`).join(''));
        expect(headers.length).toBe(expected.length);
        expect(headers.clone().get('x-new')).toBe(headers.get('x-new'));
      }),
      options,
    );
  });

  test('values added by layers can never begin another line', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 30 }), (value) => {
        const headers = new HeaderList();
        headers.add('x', value);
        const out = Buffer.alloc(headers.bytesMax);
        const text = out.toString('latin1', 0, headers.write(out, 0));
        expect(text.startsWith('x: ')).toBe(true);
        expect(text.slice(0, -2)).not.toMatch(/[\r\n\0]/);
      }),
      options,
    );
  });
});
