// Is a descriptor that came with a request what the request says it is? The kernel names the object behind it; the path
// in the message is never opened. Its kind comes from ioctl_ns(2): of a namespace opened by a bind mount readlink(2) tells only the path.

import { fstatSync, statSync } from 'node:fs';
import { CniCode, type CniReply, type CniRequest } from '#api/cni-message.ts';
import { CLONE_NEWNET, isErrno, namespaceKind } from '#lib/libc.ts';
import { cniFailed } from './handler.ts';

/** null when `fd` is the pod's network namespace; otherwise the refusal, with code 8 or 103. */
export function checkNetns(request: CniRequest, fd: number): CniReply | null {
  const { ino: inode } = fstatSync(fd, { bigint: true });
  if (namespaceKind(fd) !== CLONE_NEWNET) {
    const message = `descriptor of container "${request.containerId}" is something else: expected a network namespace`;
    return cniFailed(CniCode.invalidNetns, message);
  }
  if (inode !== BigInt(request.netnsInode)) {
    return cniFailed(
      CniCode.netnsMismatch,
      `namespace of container "${request.containerId}" has inode ${inode}: expected ${request.netnsInode} as the plugin saw it`,
    );
  }
  // Process 1 is the node's where the agent shares the node's process table.
  if (inode === inodeAt('/proc/self/ns/net') || inode === inodeAt('/proc/1/ns/net')) {
    const message = `namespace of container "${request.containerId}" is the node's own: expected the pod's`;
    return cniFailed(CniCode.invalidNetns, message);
  }
  return null;
}

/** Undefined where nobody is told: process 1 of another user namespace keeps its own to itself. */
function inodeAt(path: string): bigint | undefined {
  try {
    return statSync(path, { bigint: true }).ino;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES', 'EPERM')) return undefined;
    throw error;
  }
}
