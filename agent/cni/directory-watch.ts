// Tells when one of several directories changes, or is removed, made anew or replaced: inotify watches the inode, not
// the path, so that the watches are renewed when the paths mean other inodes.

import { type FSWatcher, statSync, watch } from 'node:fs';
import { isErrno } from '#lib/libc.ts';

export class DirectoryWatch {
  readonly #changed: () => void;
  #watchers: FSWatcher[] = [];
  #signature = '';

  constructor(changed: () => void) {
    this.#changed = changed;
  }

  /**
   * Watches these directories from now on; what is watched already stays so. Returns true when the watches were
   * renewed: then a change may have been missed before. Directories that are not there are left out.
   */
  follow(directories: readonly string[]): boolean {
    const found = directories.map((directory) => ({ directory, inode: inodeOf(directory) }));
    const signature = JSON.stringify(found);
    if (signature === this.#signature) return false;
    this.close();
    for (const { directory, inode } of found) {
      if (inode === null) continue;
      try {
        const watcher = watch(directory, () => this.#changed());
        watcher.on('error', () => this.#changed());
        this.#watchers.push(watcher);
      } catch (error) {
        // It went in between: the next call sees another inode.
        if (!isErrno(error, 'ENOENT', 'ENOTDIR')) throw error;
      }
    }
    this.#signature = signature;
    return true;
  }

  close(): void {
    for (const watcher of this.#watchers) watcher.close();
    this.#watchers = [];
    this.#signature = '';
  }
}

function inodeOf(directory: string): string | null {
  try {
    const { dev, ino, birthtimeNs } = statSync(directory, { bigint: true });
    return `${dev}:${ino}:${birthtimeNs}`;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return null;
    throw error;
  }
}
