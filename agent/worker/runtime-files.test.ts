import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { runtimeFiles, toJavaScript } from './runtime-files.ts';

describe('files of the runtime', () => {
  test('become JavaScript line by line', () => {
    const source = [
      '// What this is for → here.',
      "import { a } from './a.ts';",
      "import type { B } from '#lib/b.ts';",
      '/**',
      ' * Says why.',
      ' */',
      'export async function f(x: number): Promise<string> { // stays',
      '  /* one line */',
      "  return (await import('#lib/c.ts')).c('// x');",
      '  /* before */ g();',
      '}',
      "export const u = 'https://x.ts';",
    ].join('\n');
    expect(toJavaScript(source).split('\n')).toEqual([
      '',
      "import { a } from './a.js';",
      '',
      '',
      '',
      '',
      'export async function f(x        )                  { // stays',
      '',
      "  return (await import('#lib/c.js')).c('// x');",
      '  /* before */ g();',
      '}',
      "export const u = 'https://x.ts';",
    ]);
  });

  test('keep what looks like a comment inside a template', () => {
    const source = 'const text = `\n// no comment\n/* nor this */\n`;\n// a comment';
    expect(toJavaScript(source)).toBe(source);
  });

  test('are all that the worker imports, and nothing of the tests', () => {
    const files = runtimeFiles(path.resolve(import.meta.dirname, '../..'));
    const names = new Set(files.map(({ name }) => name));
    expect(names).toContain('proxy/main.js');
    expect([...names].filter((name) => /test\.js$|\.ts$/.test(name))).toEqual([]);
    const missing = files.flatMap(({ name, content }) =>
      [...content.toString().matchAll(/^(?:import|export)\s[^'"=;()]*?from\s*['"]([#.][^'"]+)['"]/gm)]
        .map(([, specifier]) =>
          specifier!.startsWith('#')
            ? specifier!.slice(1)
            : path.posix.normalize(path.posix.join(path.posix.dirname(name), specifier!)),
        )
        .filter((target) => !names.has(target))
        .map((target) => `${name} -> ${target}`),
    );
    expect(missing).toEqual([]);
  });
});
