// Pinned links: programs attached to a cgroup or a namespace for as long as the pin exists, whoever made it. A link
// outlives the agent and cannot be detached by other tools' PROG_DETACH; its program is replaced in place.

import { rmSync } from 'node:fs';
import {
  type AttachType,
  createLink,
  detachLink,
  type LinkInfo,
  linkInfo,
  openPinned,
  pinObject,
  programId,
  updateLink,
} from '#lib/bpf.ts';
import { close, isErrno } from '#lib/libc.ts';

export interface LinkTarget {
  pin: string;
  programFd: number;
  attachType: AttachType;
  /** The cgroup directory or namespace, open. */
  targetFd: number;
  /** The cgroup's id or the namespace's inode. */
  targetId: bigint;
}

/** Attaches, or brings what is attached up to date; from no program to two there is always at least one. */
export function ensureLink(link: LinkTarget): 'kept' | 'updated' | 'created' {
  const existing = readPin(link.pin);
  if (existing?.target === link.targetId) {
    if (existing.programId === programId(link.programFd)) return 'kept';
    replaceProgram(link.pin, link.programFd);
    return 'updated';
  }
  const fd = createLink(link);
  try {
    // A link whose cgroup or namespace is gone stays behind as a pin of nothing.
    if (existing) removeLink(link.pin);
    pinObject(fd, link.pin);
  } finally {
    close(fd);
  }
  return 'created';
}

/** Swaps the program of a pinned link; false when its namespace is gone. */
export function replaceProgram(pin: string, programFd: number): boolean {
  const fd = openPinned(pin);
  try {
    updateLink(fd, programFd);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOLINK')) return false;
    throw error;
  } finally {
    close(fd);
  }
}

/** Detaches, at once, and forgets; true when there was a pin. */
export function removeLink(pin: string): boolean {
  const fd = openIfPinned(pin);
  if (fd === null) return false;
  try {
    detachLink(fd);
  } finally {
    close(fd);
  }
  rmSync(pin);
  return true;
}

/** How the link differs from what it should be, in words; null when it does not. */
export function inspectLink(link: Omit<LinkTarget, 'targetFd'>): string | null {
  const existing = readPin(link.pin);
  if (!existing) return `link "${link.pin}" is not pinned`;
  if (existing.target === 0n) return `link "${link.pin}" is detached`;
  if (existing.target !== link.targetId) {
    return `link "${link.pin}" is attached to "${existing.target}", expected "${link.targetId}"`;
  }
  if (existing.programId !== programId(link.programFd)) {
    return `link "${link.pin}" runs program "${existing.programId}", expected "${programId(link.programFd)}"`;
  }
  return null;
}

function readPin(pin: string): LinkInfo | null {
  const fd = openIfPinned(pin);
  if (fd === null) return null;
  try {
    return linkInfo(fd);
  } finally {
    close(fd);
  }
}

function openIfPinned(pin: string): number | null {
  try {
    return openPinned(pin);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return null;
    throw error;
  }
}
