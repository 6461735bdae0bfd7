// Whether a namespace file still leads to the namespace it did.

import { statSync } from 'node:fs';

/** The inode behind the path in decimal; null when there is nothing. */
export function netnsInode(path: string): string | null {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino.toString() ?? null;
}
