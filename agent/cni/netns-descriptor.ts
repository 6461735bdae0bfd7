// Is a descriptor that came with a request what the request says it is? The kernel names the object behind it; the path
// in the message is never opened. ioctl_ns(2), namespaces(7).

import { readlinkSync } from 'node:fs';
import { CniCode, type CniReply, type CniRequest } from '#api/cni-message.ts';
import { describeError } from '#lib/errors.ts';
import { cniFailed } from './handler.ts';

/** null when `fd` is the pod's network namespace; otherwise the refusal, with code 8 or 103. */
export function checkNetns(request: CniRequest, fd: number): CniReply | null {
  const object = linkOf(`/proc/self/fd/${fd}`);
  const match = /^net:\[(\d+)\]$/.exec(object);
  if (!match) {
    const message = `descriptor of container "${request.containerId}" is "${object}": expected a network namespace`;
    return cniFailed(CniCode.invalidNetns, message);
  }
  if (Number(match[1]) !== request.netnsInode) {
    return cniFailed(
      CniCode.netnsMismatch,
      `namespace of container "${request.containerId}" has inode ${match[1]}: expected ${request.netnsInode} as the plugin saw it`,
    );
  }
  // Process 1 is the node's where the agent shares the node's process table.
  if (object === linkOf('/proc/self/ns/net') || object === linkOf('/proc/1/ns/net')) {
    const message = `namespace of container "${request.containerId}" is the node's own: expected the pod's`;
    return cniFailed(CniCode.invalidNetns, message);
  }
  return null;
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch (error) {
    return describeError(error);
  }
}
