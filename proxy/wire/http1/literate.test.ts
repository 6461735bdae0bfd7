import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { read, readFolder, replays } from '../../io/testing/literate-http1.ts';

const cases = readFolder(path.resolve(import.meta.dirname, '../../../test/wire/http1'));

describe.each([...cases])('%s', (_file, ofFile) => {
  for (const one of ofFile) {
    test(`${one.name} (line ${one.line})`, () => {
      for (const [how, pieces] of replays(one)) expect(read(one, pieces), how).toEqual(one.reading);
    });
  }
});

test('there are cases', () => {
  expect([...cases.values()].flat().length).toBeGreaterThan(300);
});
