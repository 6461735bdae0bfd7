// Inputs for properties of the HTTP/1 codec: the literate cases, and cases with pieces put in and taken out. For tests
// only.

import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { type LiterateCase, parseCases } from './literate-http1.ts';

const folder = path.resolve(import.meta.dirname, '../../../test/wire/http1');

export const corpus: readonly LiterateCase[] = readdirSync(folder)
  .filter((file) => file !== 'README.md')
  .flatMap((file) => parseCases(readFileSync(path.join(folder, file), 'utf8')));

/** What mutations put in: pieces that parsers have disagreed about. */
const PIECES = [
  '\r\n',
  '\n',
  '\r',
  '\0',
  ' ',
  '\t',
  ':',
  ',',
  ';',
  '0',
  '1',
  'Content-Length: 3\r\n',
  'Transfer-Encoding: chunked\r\n',
  'Transfer-Encoding : chunked\r\n',
  'Host: b\r\n',
  'chunked',
  'HTTP/1.1',
  'HTTP/1.0',
  ' folded',
  '\x0b',
  '\xa0',
  '0\r\n\r\n',
  'Connection: close\r\n',
  'Connection: host\r\n',
  '\r\n\r\n',
  '-',
  '+',
  '0x',
  'GET / HTTP/1.1\r\nHost: c\r\n\r\n',
];

interface Mutation {
  at: number;
  remove: number;
  insert: string;
}

const mutation: fc.Arbitrary<Mutation> = fc.record({
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  remove: fc.nat(4),
  insert: fc.oneof(
    fc.constantFrom(...PIECES),
    fc.constant(''),
    fc.nat(255).map((code) => String.fromCharCode(code)),
  ),
});

/** A case with up to three mutations; its reading is not known. */
export const mutated: fc.Arbitrary<LiterateCase> = fc
  .record({ one: fc.constantFrom(...corpus), mutations: fc.array(mutation, { maxLength: 3 }) })
  .map(({ one, mutations }) => {
    let text = one.bytes.toString('latin1');
    for (const { at, remove, insert } of mutations) {
      const offset = Math.floor(at * text.length);
      text = text.slice(0, offset) + insert + text.slice(offset + remove);
    }
    return { ...one, bytes: Buffer.from(text, 'latin1') };
  });
