// The `--source` option of every process that reads resources.

import { statSync } from 'node:fs';
import path from 'node:path';
import { HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { DirectorySource } from './directory.ts';

/**
 * Opens `dir:<path>`, a directory of manifests. Throws `bad-source` for another form, and when the directory is not
 * there: at the start that is a misspelling.
 */
export function openSource(text: string, log: Log): DirectorySource {
  const directory = /^dir:(.+)$/.exec(text)?.[1];
  if (directory === undefined) {
    throw new HeddleError('bad-source', `open the source "${text}": expected dir:<directory of manifests>`);
  }
  const absolute = path.resolve(directory);
  if (!statSync(absolute, { throwIfNoEntry: false })?.isDirectory()) {
    throw new HeddleError('bad-source', `open the source "${text}": expected a directory at "${absolute}"`);
  }
  return new DirectorySource({ directory: absolute, log });
}
