// Network namespaces: which one is it, work inside it, and the listeners of a pod. setns(2) moves only the calling
// thread, so everything inside must be synchronous: libuv makes its own threads and sockets wherever the thread happens
// to be. A thread that cannot return home would serve the node from inside a pod, so the process ends instead.

import { closeSync, existsSync, fstatSync, openSync, readdirSync, stat, statSync } from 'node:fs';
import { isNativeError } from 'node:util/types';
import { LISTENER_NAMES, type ListenerName } from '#api/worker-link.ts';
import { assert, HeddleError } from '#lib/errors.ts';
import { close, duplicate, isErrno, setns, unshare } from '#lib/libc.ts';
import { netnsCookie, openTcpListener, openTcpSocket } from '#lib/tcp-socket.ts';

/** Connections that wait in the kernel while the worker is being replaced. */
export const LISTEN_BACKLOG = 4096;

export interface NetnsIdentity {
  /** Names the namespace in /proc and in links; may be reused after it is gone. */
  inode: bigint;
  /** Names it in the programs; never reused while the kernel runs. */
  cookie: bigint;
}

export type Listeners = Record<ListenerName, number>;

let homeFd: number | undefined;
let homeInode = 0n;

function home(): number {
  if (homeFd === undefined) {
    homeFd = openSync('/proc/thread-self/ns/net', 'r');
    homeInode = inodeOf(homeFd);
    // libuv's threads are born in the namespace of whoever needs them first: let that be now, at home.
    stat('/', () => {});
  }
  return homeFd;
}

/** Opens a namespace file such as `/var/run/netns/…` or `/proc/<pid>/ns/net`; the caller closes it. */
export function openNetns(path: string): number {
  try {
    return openSync(path, 'r');
  } catch (error) {
    const remedy = isErrno(error, 'ENOENT') ? 'the sandbox is gone' : 'expected a readable namespace file';
    throw new HeddleError('netns-missing', `open network namespace "${path}": ${remedy}`, { cause: error });
  }
}

/** The descriptor's inode and cookie. Throws `not-a-netns` when it is no network namespace, or the node's own. */
export function identifyNetns(fd: number): NetnsIdentity {
  const inode = inodeOf(fd);
  home();
  if (inode === homeInode) {
    throw new HeddleError(
      'not-a-netns',
      `identify network namespace "${inode}": expected a pod's, this is the node's own (hostNetwork)`,
    );
  }
  const cookie = inNetns(fd, () => {
    const socket = openTcpSocket(4);
    try {
      return netnsCookie(socket);
    } finally {
      close(socket);
    }
  });
  return { inode, cookie };
}

const NETNS_DIRECTORY = '/run/netns';

/**
 * Opens the namespace with this identity by way of what holds it: a file of a runtime or a process in it. Null when
 * nothing does. The cookie is compared too, so that a reused inode is never mistaken for it.
 */
export function findNetns(identity: NetnsIdentity): number | null {
  for (const path of netnsFiles()) {
    if (inodeIfAllowed(path) !== identity.inode) continue;
    const fd = openSync(path, 'r');
    if (inodeOf(fd) === identity.inode && identifyNetns(fd).cookie === identity.cookie) return fd;
    closeSync(fd);
  }
  return null;
}

/** Undefined for what is gone, and for processes whose namespaces only a tracer may see. */
function inodeIfAllowed(path: string): bigint | undefined {
  try {
    return statSync(path, { bigint: true }).ino;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH', 'EACCES')) return undefined;
    throw error;
  }
}

function netnsFiles(): string[] {
  const named = existsSync(NETNS_DIRECTORY) ? readdirSync(NETNS_DIRECTORY) : [];
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return [...named.map((name) => `${NETNS_DIRECTORY}/${name}`), ...pids.map((pid) => `/proc/${pid}/ns/net`)];
}

function inodeOf(fd: number): bigint {
  return fstatSync(fd, { bigint: true }).ino;
}

/**
 * Runs `work` with this thread inside the namespace of `fd` and returns its result. `work` must be synchronous and
 * start nothing that outlives it except child processes, which stay in the namespace.
 */
export function inNetns<T>(fd: number, work: () => T): T {
  const homeNetns = home();
  try {
    setns(fd);
  } catch (error) {
    const remedy = isErrno(error, 'EINVAL') ? 'expected a network namespace' : 'expected CAP_SYS_ADMIN';
    throw new HeddleError('not-a-netns', `enter network namespace of descriptor "${fd}": ${remedy}`, { cause: error });
  }
  let result: T;
  try {
    result = work();
  } finally {
    returnHome(homeNetns);
  }
  assert(!(result instanceof Promise), 'work inside a network namespace is synchronous');
  return result;
}

/** Makes a network namespace that lives as long as the returned descriptor (and what is in it). */
export function createNetns(): number {
  const homeNetns = home();
  unshare();
  try {
    return openSync('/proc/thread-self/ns/net', 'r');
  } finally {
    returnHome(homeNetns);
  }
}

function returnHome(homeNetns: number): void {
  try {
    setns(homeNetns);
  } catch (error) {
    process.stderr.write(`cannot leave a pod's network namespace: ${isNativeError(error) ? error.message : error}\n`);
    process.abort();
  }
}

/**
 * Makes the four listeners of a pod inside its namespace: ports chosen by the kernel, non-blocking and close-on-exec.
 * On loopback nothing reaches them by their address; connections are steered there. The caller closes them.
 */
export function openListeners(netnsFd: number, listenOn: 'loopback' | 'any' = 'loopback'): Listeners {
  const opened: number[] = [];
  try {
    return inNetns(netnsFd, () => {
      const listeners = {} as Listeners;
      for (const name of LISTENER_NAMES) {
        listeners[name] = name.endsWith('6') ? openListener6(listenOn) : openListener4(listenOn);
        opened.push(listeners[name]);
      }
      return listeners;
    });
  } catch (error) {
    for (const fd of opened) close(fd);
    throw new HeddleError('listener-failed', `open listeners in network namespace of descriptor "${netnsFd}"`, {
      cause: error,
    });
  }
}

export function closeListeners(listeners: Readonly<Listeners>): void {
  for (const name of LISTENER_NAMES) close(listeners[name]);
}

/** The pod's listeners under new numbers, for a process that must own them. */
export function duplicateListeners(listeners: Readonly<Listeners>): Listeners {
  const copies = {} as Listeners;
  for (const name of LISTENER_NAMES) copies[name] = duplicate(listeners[name]);
  return copies;
}

function openListener4(listenOn: 'loopback' | 'any'): number {
  const address = listenOn === 'any' ? '0.0.0.0' : '127.0.0.1';
  return openTcpListener({ address, port: 0, backlog: LISTEN_BACKLOG });
}

function openListener6(listenOn: 'loopback' | 'any'): number {
  const address = listenOn === 'any' ? '::' : '::1';
  try {
    return openTcpListener({ address, port: 0, backlog: LISTEN_BACKLOG });
  } catch (error) {
    // A pod with disable_ipv6 has no ::1. It may be given IPv6 later, so the listener must exist.
    if (isErrno(error, 'EADDRNOTAVAIL')) return openTcpListener({ address: '::', port: 0, backlog: LISTEN_BACKLOG });
    // A kernel without IPv6: nothing will ever come. The worker expects a descriptor at every place.
    if (isErrno(error, 'EAFNOSUPPORT')) return openListener4(listenOn);
    throw error;
  }
}
