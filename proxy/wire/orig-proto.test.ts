import { describe, expect, test } from 'vitest';
import { formatOrigProto, parseOrigProto } from './orig-proto.ts';

describe('l5d-orig-proto', () => {
  test.each([
    ['HTTP/1.1', { version: 'HTTP/1.1', isAbsoluteForm: false }],
    ['HTTP/1.0', { version: 'HTTP/1.0', isAbsoluteForm: false }],
    ['HTTP/1.1; absolute-form', { version: 'HTTP/1.1', isAbsoluteForm: true }],
  ] as const)('"%s" reads and writes alike', (text, value) => {
    expect(parseOrigProto(text)).toEqual(value);
    expect(formatOrigProto(value)).toBe(text);
  });

  test.each(['', 'HTTP/2', 'HTTP/1.2', 'http/1.1', '; absolute-form'])('"%s" is none', (text) => {
    expect(parseOrigProto(text)).toBeNull();
  });
});
