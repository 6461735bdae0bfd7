// System calls that Node lacks, through node:ffi: the binding itself, errors, and the calls about descriptors,
// namespaces, processes and capabilities. Sockets are in tcp-socket.ts, passed descriptors in unix-descriptors.ts,
// bpf(2) in bpf.ts, mounts in mount.ts. Nothing is loaded before its first use: a worker that only reads original
// destinations binds one symbol. See docs of node:ffi; its signature keys are `arguments` and `return`, and a
// misspelt key silently means "no arguments".

import os from 'node:os';
import { HeddleError } from './errors.ts';

type Ffi = typeof import('node:ffi');
type Library = InstanceType<Ffi['DynamicLibrary']>;
type Signature = import('node:ffi').FunctionSignature;
type Bound<S extends Signature> = import('node:ffi').WrappedFunctionFromSignature<S>;

/** A system call that failed. `errno` is the positive number, `errnoName` its name, such as `EACCES`. */
export class SystemError extends HeddleError {
  readonly errno: number;
  readonly errnoName: string;

  constructor(errno: number, action: string) {
    const errnoName = nameOfErrno(errno);
    super('system-call', `${action}: ${errnoName}`);
    this.errno = errno;
    this.errnoName = errnoName;
  }
}

/** True when `error` is a failed system call of that name, such as `ENOENT`. Node's own errors carry it as `code`. */
export function isErrno(error: unknown, ...names: readonly string[]): boolean {
  if (error instanceof SystemError) return names.includes(error.errnoName);
  return error instanceof Error && names.includes((error as NodeJS.ErrnoException).code ?? '');
}

/** `EACCES` for 13; the number itself where the system has no name for it. */
export function nameOfErrno(errno: number): string {
  for (const [name, value] of Object.entries(os.constants.errno)) if (value === errno) return name;
  return `errno ${errno}`;
}

let ffi: Ffi | undefined;
let library: Library | undefined;

function loadFfi(): Ffi {
  // Not a static import: loading it costs memory in processes that never call.
  ffi ??= process.getBuiltinModule('node:ffi') as Ffi | undefined;
  if (!ffi)
    throw new HeddleError('ffi-missing', 'cannot load "node:ffi": expected Node 26.10 without --no-experimental-ffi');
  return ffi;
}

let errnoAddress: bigint | undefined;
let lastErrno = 0;

/**
 * Binds a symbol of the C library (already part of the process, whichever C library it is) at its first call.
 * The result runs the C function and returns what it returns; -1 makes errno() tell why.
 */
export function bind<const S extends Signature>(
  name: string,
  signature: S,
): (...args: Parameters<Bound<S>>) => ReturnType<Bound<S>> {
  let bound: ((...all: unknown[]) => ReturnType<Bound<S>>) | undefined;
  return (...args) => {
    bound ??= loadLibrary().getFunction(name, signature) as unknown as typeof bound;
    const result = bound!(...args);
    // Read at once: whatever runs next, even the collector, may overwrite it.
    if ((result as unknown) === -1 || (result as unknown) === -1n) lastErrno = loadFfi().getInt32(errnoAddress!);
    return result;
  };
}

function loadLibrary(): Library {
  if (!library) {
    library = new (loadFfi().DynamicLibrary)(null);
    // The address belongs to the thread, and so does this module: worker threads have their own copy of both.
    errnoAddress = library.getFunction('__errno_location', { arguments: [], return: 'pointer' })() as bigint;
  }
  return library;
}

/** errno of the last bound call that returned -1. */
export function errno(): number {
  return lastErrno;
}

/** Returns `result`, or throws {@link SystemError} when it is negative. `action` says what was tried and on what. */
export function check(result: number | bigint, action: string): number {
  const value = Number(result);
  if (value < 0) throw new SystemError(errno(), action);
  return value;
}

/**
 * Zeroed memory whose address stays the same. Small typed arrays may live on V8's moving heap; an ArrayBuffer of its
 * own never does.
 */
export function allocate(bytes: number): Buffer {
  return Buffer.from(new ArrayBuffer(bytes));
}

/** The address of memory made by {@link allocate}. The caller keeps the buffer reachable until the kernel is done. */
export function addressOf(memory: Buffer): bigint {
  return loadFfi().getRawPointer(memory) as bigint;
}

const held: unknown[] = [];

/**
 * Runs `call` while `memory` cannot be collected. A buffer that only a raw address refers to is garbage to V8; this
 * list is reachable and emptied afterwards.
 */
export function holding<T>(memory: readonly unknown[], call: () => T): T {
  held.push(memory);
  try {
    return call();
  } finally {
    held.pop();
  }
}

const syscallFn = bind('syscall', { arguments: ['i64', 'i64', 'i64', 'i64', 'i64', 'i64', 'i64'], return: 'i64' });

/** Numbers of system calls that the C library has no function for. */
const SYS = {
  x64: { bpf: 321n, pidfd_open: 434n, pidfd_send_signal: 424n, capget: 125n },
  arm64: { bpf: 280n, pidfd_open: 434n, pidfd_send_signal: 424n, capget: 90n },
} as const;

/** A raw system call: up to five arguments. Returns -1 on failure, see {@link errno}. */
export function syscall(name: keyof typeof SYS.x64, ...args: readonly bigint[]): number {
  const numbers = SYS[process.arch as keyof typeof SYS];
  if (!numbers) {
    throw new HeddleError('unsupported-cpu', `cannot call "${name}" on "${process.arch}": expected x64 or arm64`);
  }
  const [a = 0n, b = 0n, c = 0n, d = 0n, e = 0n] = args;
  return Number(syscallFn(numbers[name], a, b, c, d, e, 0n));
}

const closeFn = bind('close', { arguments: ['i32'], return: 'i32' });
const dupFn = bind('fcntl', { arguments: ['i32', 'i32', 'i64'], return: 'i32' });
const unshareFn = bind('unshare', { arguments: ['i32'], return: 'i32' });
const setnsFn = bind('setns', { arguments: ['i32', 'i32'], return: 'i32' });

const F_DUPFD_CLOEXEC = 1030;
const F_GETFD = 1;
const F_SETFD = 2;
const F_GETFL = 3;
const FD_CLOEXEC = 1n;
export const CLONE_NEWNET = 0x40000000;

/** Closes a descriptor. A closed one is an error: it may be somebody else's by now. */
export function close(fd: number): void {
  check(closeFn(fd), `close descriptor "${fd}"`);
}

/** A copy of the descriptor, not below `lowest`, closed in children that do not ask for it. */
export function duplicate(fd: number, lowest = 3): number {
  return check(dupFn(fd, F_DUPFD_CLOEXEC, BigInt(lowest)), `duplicate descriptor "${fd}"`);
}

/** True when the descriptor is open. */
export function isOpen(fd: number): boolean {
  return dupFn(fd, F_GETFD, 0n) >= 0;
}

/** Open file flags (O_NONBLOCK and friends), fcntl(2) F_GETFL. */
export function statusFlags(fd: number): number {
  return check(dupFn(fd, F_GETFL, 0n), `read the flags of descriptor "${fd}"`);
}

/** Says whether children that are not handed the descriptor explicitly lose it. */
export function setCloseOnExec(fd: number, closed: boolean): void {
  check(dupFn(fd, F_SETFD, closed ? FD_CLOEXEC : 0n), `set close-on-exec of descriptor "${fd}"`);
}

/** Moves the calling thread into the network namespace of `fd`. Needs CAP_SYS_ADMIN. */
export function setns(fd: number, kind = CLONE_NEWNET): void {
  check(setnsFn(fd, kind), `enter the namespace of descriptor "${fd}"`);
}

/** Gives the calling thread a new namespace of the kind. Needs CAP_SYS_ADMIN. */
export function unshare(kind = CLONE_NEWNET): void {
  check(unshareFn(kind), 'make a namespace');
}

// A symbol has one signature in the whole process: that of lib/network-interface.ts.
const ioctlFn = bind('ioctl', { arguments: ['i32', 'u64', 'pointer'], return: 'i32' });
const NS_GET_NSTYPE = 0xb703n;

/** The CLONE_* number of the kind of namespace that a descriptor is; null when it is no namespace (ioctl_ns(2)). */
export function namespaceKind(fd: number): number | null {
  const kind = ioctlFn(fd, NS_GET_NSTYPE, null);
  return kind < 0 ? null : kind;
}

const mallocTrimFn = bind('malloc_trim', { arguments: ['u64'], return: 'i32' });

/** Gives memory that the C library keeps for later back to the kernel (malloc_trim(3); glibc only). */
export function trimHeap(): void {
  mallocTrimFn(0n);
}

const prctlFn = bind('prctl', { arguments: ['i32', 'u64', 'u64', 'u64', 'u64'], return: 'i32' });
const PR_GET_DUMPABLE = 3;
const PR_SET_DUMPABLE = 4;
const PR_CAPBSET_READ = 23;
const PR_CAPBSET_DROP = 24;
const PR_SET_NO_NEW_PRIVS = 38;
const PR_GET_NO_NEW_PRIVS = 39;

/** From now on no exec gains privileges, in this thread and what it starts (prctl(2) PR_SET_NO_NEW_PRIVS). */
export function setNoNewPrivileges(): void {
  check(prctlFn(PR_SET_NO_NEW_PRIVS, 1n, 0n, 0n, 0n), 'set no_new_privs');
}

export function noNewPrivileges(): boolean {
  return check(prctlFn(PR_GET_NO_NEW_PRIVS, 0n, 0n, 0n, 0n), 'read no_new_privs') === 1;
}

/** Whether others of the same uid may trace the process and read its memory (PR_SET_DUMPABLE). */
export function setDumpable(dumpable: boolean): void {
  check(prctlFn(PR_SET_DUMPABLE, dumpable ? 1n : 0n, 0n, 0n, 0n), 'set dumpable');
}

export function isDumpable(): boolean {
  return check(prctlFn(PR_GET_DUMPABLE, 0n, 0n, 0n, 0n), 'read dumpable') === 1;
}

/** Removes one capability from the bounding set. Needs CAP_SETPCAP. */
export function dropBoundingCapability(capability: number): void {
  check(prctlFn(PR_CAPBSET_DROP, BigInt(capability), 0n, 0n, 0n), `drop capability "${capability}"`);
}

/** False where it was dropped, or where the kernel does not know the capability. */
export function hasBoundingCapability(capability: number): boolean {
  return prctlFn(PR_CAPBSET_READ, BigInt(capability), 0n, 0n, 0n) === 1;
}

/** The highest number a capability can have: sets are 64 bits wide. */
export const CAPABILITY_MAX = 63;

export interface Capabilities {
  effective: bigint;
  permitted: bigint;
  inheritable: bigint;
}

const LINUX_CAPABILITY_VERSION_3 = 0x20080522;

/** The capability sets of a process as bit masks, 0 meaning the calling thread (capget(2)). */
export function capabilities(pid = 0): Capabilities {
  const header = allocate(8);
  header.writeUInt32LE(LINUX_CAPABILITY_VERSION_3, 0);
  header.writeInt32LE(pid, 4);
  // Two structs of effective, permitted, inheritable: the low and the high halves.
  const data = allocate(24);
  const result = holding([header, data], () => syscall('capget', addressOf(header), addressOf(data)));
  check(result, `read the capabilities of process "${pid}"`);
  const set = (offset: number) => BigInt(data.readUInt32LE(offset)) | (BigInt(data.readUInt32LE(offset + 12)) << 32n);
  return { effective: set(0), permitted: set(4), inheritable: set(8) };
}

const prlimitFn = bind('prlimit', { arguments: ['i32', 'i32', 'pointer', 'pointer'], return: 'i32' });

/** Resources of prlimit(2), Linux numbering. */
export const Resource = { core: 4, processes: 6, openFiles: 7, lockedMemory: 8, addressSpace: 9 } as const;
export type Resource = (typeof Resource)[keyof typeof Resource];
export const LIMIT_INFINITE = 0xffffffffffffffffn;

/** Sets a limit of a process (0: this one). Raising `hard` needs CAP_SYS_RESOURCE. */
export function setResourceLimit(pid: number, resource: Resource, soft: bigint, hard: bigint): void {
  const limit = allocate(16);
  limit.writeBigUInt64LE(soft, 0);
  limit.writeBigUInt64LE(hard, 8);
  check(prlimitFn(pid, resource, limit, null), `set limit "${resource}" of process "${pid}"`);
}

export function resourceLimit(pid: number, resource: Resource): { soft: bigint; hard: bigint } {
  const limit = allocate(16);
  check(prlimitFn(pid, resource, null, limit), `read limit "${resource}" of process "${pid}"`);
  return { soft: limit.readBigUInt64LE(0), hard: limit.readBigUInt64LE(8) };
}

/** A descriptor that means this very process, even after its number is reused. */
export function openPidfd(pid: number): number {
  return check(syscall('pidfd_open', BigInt(pid), 0n), `open process "${pid}"`);
}

/** Sends a signal to the process of a pidfd; signal 0 only asks whether it lives. */
export function signalPidfd(pidfd: number, signal: number): void {
  check(syscall('pidfd_send_signal', BigInt(pidfd), BigInt(signal), 0n, 0n), `signal the process of pidfd "${pidfd}"`);
}
