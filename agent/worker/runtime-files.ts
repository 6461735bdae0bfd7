// Which files a worker runs from: the proxy with the folders below it as plain JavaScript, and of the npm packages only
// the protobuf reader and writer. What a worker loads is memory in every pod: V8 keeps source text (twice the bytes for
// a file with one character beyond Latin-1), Node keeps what it stripped, the package's own entry brings its reflection.

import { readdirSync, readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import path from 'node:path';
import { HeddleError } from '#lib/errors.ts';

export interface RuntimeFile {
  /** Relative to the runtime directory. */
  name: string;
  content: Buffer;
}

const FOLDERS = ['api', 'lib', 'proxy'] as const;
const WIRE_PACKAGE = '@bufbuild/protobuf';
const WIRE_ENTRY = 'dist/esm/wire/binary-encoding.js';
/** Static imports and re-exports of an ES module as compilers write them: each on a line of its own. */
const IMPORT = /^(?:import|export)\s(?:[^'"=;()]*\sfrom\s)?\s*['"]([^'"]+)['"]/gm;

/** The files of a worker's runtime, sorted by name. `sourceRoot` is the directory of Heddle's package.json. */
export function runtimeFiles(sourceRoot: string): RuntimeFile[] {
  const sources = FOLDERS.flatMap((folder) =>
    readdirSync(path.join(sourceRoot, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith('.ts') && !entry.name.endsWith('.test.ts'))
      .map((entry) => path.relative(sourceRoot, path.join(entry.parentPath, entry.name))),
  ).map((name) => ({
    name: name.replace(/\.ts$/, '.js'),
    content: Buffer.from(toJavaScript(readFileSync(path.join(sourceRoot, name), 'utf8'))),
  }));
  const files = [...sources, ...wireFiles(sourceRoot), packageFile(sourceRoot)];
  return files.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

/** The same lines without types and without comments that fill a line; imports name the files by their new ending. */
export function toJavaScript(source: string): string {
  const code = stripTypeScriptTypes(source).replace(
    /((?:\bfrom|\bimport)\s*\(?\s*)(['"])([#.][^'"]+)\.ts\2/g,
    '$1$2$3.js$2',
  );
  const lines = code.split('\n').map((line) => line.trimEnd());
  // A template over several lines may hold what looks like a comment: such a file keeps all it has.
  if (lines.some((line) => line.split('`').length % 2 === 0)) return lines.join('\n');
  let isInBlock = false;
  const kept = lines.map((line) => {
    const text = line.trimStart();
    const isBlockStart = !isInBlock && text.startsWith('/*');
    const isComment = isInBlock || isBlockStart || text.startsWith('//');
    if (isInBlock || isBlockStart) isInBlock = !text.includes('*/');
    // Code behind the end of a block stays with it.
    return isComment && (isInBlock || text.startsWith('//') || text.endsWith('*/')) ? '' : line;
  });
  return kept.join('\n');
}

/** package.json without what only development needs: a new linter is no new worker. */
function packageFile(sourceRoot: string): RuntimeFile {
  const { name, type, imports } = JSON.parse(readFileSync(path.join(sourceRoot, 'package.json'), 'utf8'));
  return { name: 'package.json', content: Buffer.from(`${JSON.stringify({ name, type, imports }, null, 2)}\n`) };
}

/** The protobuf reader and writer with what they import, under a package.json that exports nothing else. */
function wireFiles(sourceRoot: string): RuntimeFile[] {
  const packageRoot = path.join(sourceRoot, 'node_modules', WIRE_PACKAGE);
  const { version } = JSON.parse(readFileSync(path.join(packageRoot, 'package.json'), 'utf8')) as { version: string };
  const target = path.join('node_modules', WIRE_PACKAGE);
  const manifest = { name: WIRE_PACKAGE, version, type: 'module', exports: { './wire': `./${WIRE_ENTRY}` } };
  const files = [{ name: path.join(target, 'package.json'), content: Buffer.from(`${JSON.stringify(manifest)}\n`) }];
  const pending = [WIRE_ENTRY];
  const seen = new Set(pending);
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    const content = readFileSync(path.join(packageRoot, name));
    files.push({ name: path.join(target, name), content });
    for (const [, specifier] of content.toString('utf8').matchAll(IMPORT)) {
      if (!specifier!.startsWith('.')) {
        throw new HeddleError('runtime-incomplete', `stage "${name}": expected no import of "${specifier}"`);
      }
      const imported = path.posix.normalize(path.posix.join(path.posix.dirname(name), specifier!));
      if (!seen.has(imported)) {
        seen.add(imported);
        pending.push(imported);
      }
    }
  }
  return files;
}
