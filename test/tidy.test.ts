// Rules of the house that neither Biome nor the type checker can hold: who may import whom, how long a file may be,
// who may read the environment, and that no test sleeps.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';

const root = path.resolve(import.meta.dirname, '..');
const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter((file) => /\.(ts|go|c|h)$/.test(file) && !file.startsWith('api/gen/'));
const sources = files.flatMap((file) => {
  try {
    return [{ file, text: readFileSync(path.join(root, file), 'utf8') }];
  } catch {
    return [];
  }
});
const typescript = sources.filter(({ file }) => file.endsWith('.ts'));

/** Which top-level folders a folder may import from. */
const ALLOWED: Record<string, readonly string[]> = {
  lib: ['lib'],
  api: ['api', 'lib'],
  kube: ['kube', 'api', 'lib'],
  proxy: ['proxy', 'api', 'lib'],
  agent: ['agent', 'kube', 'api', 'lib'],
  controlplane: ['controlplane', 'kube', 'api', 'lib'],
  cli: ['cli', 'agent', 'controlplane', 'kube', 'api', 'lib'],
};

/** Within the proxy, nearer to the wire may not know what is further away. */
const PROXY_ALLOWED: Record<string, readonly string[]> = {
  wire: ['wire'],
  io: ['io', 'wire'],
  balance: ['balance'],
  policy: ['policy', 'wire'],
  // The two halves never import one another: what both need lies beside them.
  inbound: ['inbound', 'policy', 'wire', 'io', 'control', 'observe'],
  outbound: ['outbound', 'policy', 'wire', 'io', 'control', 'observe', 'balance'],
};

/** Packages with rooms of their own: memory in a worker is memory times the number of pods. */
const PACKAGE_ROOMS: Record<string, RegExp> = {
  '@kubernetes/client-node': /^(controlplane|cli|kube)\//,
  '@grpc/grpc-js': /^(agent\/relay|controlplane|cli|lib\/grpc)\b/,
  'node-forge': /^controlplane\/identity\//,
  'prom-client': /^(agent|controlplane|lib\/prometheus)\b/,
  pino: /^(agent|controlplane|cli)\//,
  zod: /^(agent|controlplane|cli|kube|demo)\//,
  yaml: /^(kube|cli|demo|agent|controlplane|test)\//,
  commander: /^(agent|controlplane|cli|demo|bench)\//,
};

const FILE_LINES_MAX = 400;

function importsOf(text: string): string[] {
  return [...text.matchAll(/^(?:import|export)\b[^'"]*?['"]([^'"]+)['"]/gm)].map((match) => match[1]!);
}

function folderOf(from: string, specifier: string): string | null {
  if (specifier.startsWith('#')) return specifier.slice(1);
  if (specifier.startsWith('.')) return path.posix.normalize(path.posix.join(path.posix.dirname(from), specifier));
  return null;
}

describe('layers', () => {
  const checked = typescript.filter(({ file }) => !file.endsWith('.test.ts'));

  test.each(Object.keys(ALLOWED))('%s imports only what lies below it', (folder) => {
    const wrong = checked
      .filter(({ file }) => file.startsWith(`${folder}/`))
      .flatMap(({ file, text }) =>
        importsOf(text)
          .map((specifier) => folderOf(file, specifier))
          .filter((target): target is string => target !== null)
          .filter((target) => target !== 'package.json' && !ALLOWED[folder]!.includes(target.split('/')[0]!))
          .map((target) => `${file} -> ${target}`),
      );
    expect(wrong).toEqual([]);
  });

  test.each(Object.keys(PROXY_ALLOWED))('proxy/%s imports only what lies below it', (folder) => {
    const wrong = checked
      .filter(({ file }) => file.startsWith(`proxy/${folder}/`))
      .flatMap(({ file, text }) =>
        importsOf(text)
          .map((specifier) => folderOf(file, specifier))
          .filter((target): target is string => target?.startsWith('proxy/') === true)
          .filter((target) => target.split('/').length > 2 && !PROXY_ALLOWED[folder]!.includes(target.split('/')[1]!))
          .map((target) => `${file} -> ${target}`),
      );
    expect(wrong).toEqual([]);
  });

  test('packages stay in their rooms', () => {
    const wrong = checked.flatMap(({ file, text }) =>
      importsOf(text)
        .map((specifier) =>
          Object.keys(PACKAGE_ROOMS).find((name) => specifier === name || specifier.startsWith(`${name}/`)),
        )
        .filter((name): name is string => name !== undefined && !PACKAGE_ROOMS[name]!.test(file))
        .map((name) => `${file} imports ${name}`),
    );
    expect(wrong).toEqual([]);
  });
});

describe('files', () => {
  test(`have at most ${FILE_LINES_MAX} lines`, () => {
    const long = sources
      .filter(({ file }) => !/\.test\.ts$|_test\.go$/.test(file))
      .map(({ file, text }) => ({ file, lines: text.split('\n').length - 1 }))
      .filter(({ lines }) => lines > FILE_LINES_MAX);
    expect(long).toEqual([]);
  });

  test('open with a comment that says what they are for', () => {
    const bare = sources
      .filter(({ file }) => !/\.test\.ts$|_test\.go$/.test(file))
      .filter(({ text }) => !/^(#!.*\n)?\s*(\/\/|\/\*)/.test(text))
      .map(({ file }) => file);
    expect(bare).toEqual([]);
  });

  test('read the environment only in config.ts and main.ts', () => {
    const wrong = typescript
      .filter(({ file }) => /^(lib|api|kube|proxy|agent|controlplane)\//.test(file) && !file.endsWith('.test.ts'))
      .filter(({ file }) => !/\/(config|main)\.ts$/.test(file))
      .filter(({ text }) => /\bprocess\.env\b/.test(text))
      .map(({ file }) => file);
    expect(wrong).toEqual([]);
  });
});

describe('tests', () => {
  test('never sleep to wait', () => {
    const wrong = typescript
      .filter(({ file }) => file.endsWith('.test.ts') && file !== 'test/tidy.test.ts')
      .filter(({ text }) =>
        /await new Promise\(\(?\w+\)? => setTimeout\(\w+, \d|timers\/promises|Atomics\.wait/.test(text),
      )
      .map(({ file }) => file);
    expect(wrong).toEqual([]);
  });
});
