import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { type LiterateCase, parseCases, read } from '../../io/testing/literate-http1.ts';

const folder = path.resolve(import.meta.dirname, '../../../test/wire/http1');
const files = readdirSync(folder).filter((file) => file.endsWith('.md') && file !== 'README.md');

/** Splits are tried everywhere in short cases, and in long ones at both ends. */
const SPLITS_MAX = 400;

function splits(length: number): number[] {
  const all = Array.from({ length: Math.max(0, length - 1) }, (_, index) => index + 1);
  return all.length <= SPLITS_MAX ? all : [...all.slice(0, SPLITS_MAX / 2), ...all.slice(-SPLITS_MAX / 2)];
}

function replay(one: LiterateCase): void {
  expect(read(one, [one.bytes]), 'whole').toEqual(one.reading);
  const bytes = Array.from(one.bytes, (_, index) => one.bytes.subarray(index, index + 1));
  expect(read(one, bytes), 'byte by byte').toEqual(one.reading);
  for (const at of splits(one.bytes.length)) {
    expect(read(one, [one.bytes.subarray(0, at), one.bytes.subarray(at)]), `split at ${at}`).toEqual(one.reading);
  }
}

let total = 0;
for (const file of files) {
  const cases = parseCases(readFileSync(path.join(folder, file), 'utf8'));
  total += cases.length;
  describe(file, () => {
    for (const one of cases) test(`${one.name} (line ${one.line})`, () => replay(one));
  });
}

test('there are cases', () => {
  expect(total).toBeGreaterThan(300);
});
