// bpf(2): pinned objects, map elements and links. Programs are loaded by bpftool; from there on only these commands are
// needed. Layouts are those of `union bpf_attr` in linux/bpf.h.

import { HeddleError } from './errors.ts';
import { addressOf, allocate, check, close, errno, holding, SystemError, syscall } from './libc.ts';

const Command = {
  mapCreate: 0,
  mapLookup: 1,
  mapUpdate: 2,
  mapDelete: 3,
  mapNextKey: 4,
  pin: 6,
  get: 7,
  testRun: 10,
  infoByFd: 15,
  linkCreate: 28,
  linkUpdate: 29,
  linkDetach: 34,
} as const;

/** enum bpf_attach_type. */
export const AttachType = {
  sockOps: 3,
  cgroupInet4Bind: 8,
  cgroupInet6Bind: 9,
  cgroupInet4Connect: 10,
  cgroupInet6Connect: 11,
  cgroupUdp4Sendmsg: 14,
  cgroupUdp6Sendmsg: 15,
  cgroupGetsockopt: 21,
  cgroupInet4Getpeername: 29,
  cgroupInet6Getpeername: 30,
  skLookup: 36,
} as const;
export type AttachType = (typeof AttachType)[keyof typeof AttachType];

function bpf(command: number, attributes: Buffer, memory: readonly Buffer[]): number {
  return holding([attributes, memory], () =>
    syscall('bpf', BigInt(command), addressOf(attributes), BigInt(attributes.length)),
  );
}

function cString(text: string): Buffer {
  const bytes = allocate(Buffer.byteLength(text) + 1);
  bytes.write(text);
  return bytes;
}

/** Opens what is pinned at a path of a bpffs: map, program or link. */
export function openPinned(path: string): number {
  const name = cString(path);
  const attributes = allocate(16);
  attributes.writeBigUInt64LE(addressOf(name), 0);
  return check(bpf(Command.get, attributes, [name]), `open pinned object "${path}"`);
}

/** Pins an object: it lives on until the path is unlinked. */
export function pinObject(fd: number, path: string): void {
  const name = cString(path);
  const attributes = allocate(16);
  attributes.writeBigUInt64LE(addressOf(name), 0);
  attributes.writeUInt32LE(fd, 8);
  check(bpf(Command.pin, attributes, [name]), `pin an object at "${path}"`);
}

/** enum bpf_map_type, as far as used. */
export const MapType = {
  hash: 1,
  array: 2,
  percpuArray: 6,
  lruHash: 9,
  lpmTrie: 11,
  sockMap: 15,
  skStorage: 24,
} as const;

/** Makes a map of its own, without any program. `name` has at most 15 characters. */
export function createMap(options: MapInfo & { name: string }): number {
  const attributes = allocate(64);
  attributes.writeUInt32LE(options.type, 0);
  attributes.writeUInt32LE(options.keyBytes, 4);
  attributes.writeUInt32LE(options.valueBytes, 8);
  attributes.writeUInt32LE(options.entriesMax, 12);
  attributes.write(options.name.slice(0, 15), 28, 'latin1');
  return check(bpf(Command.mapCreate, attributes, []), `make map "${options.name}"`);
}

/** Attaches a program to a cgroup or a network namespace; the attachment lives as long as the returned link. */
export function createLink(options: { programFd: number; targetFd: number; attachType: AttachType }): number {
  const attributes = allocate(48);
  attributes.writeUInt32LE(options.programFd, 0);
  attributes.writeUInt32LE(options.targetFd, 4);
  attributes.writeUInt32LE(options.attachType, 8);
  return check(bpf(Command.linkCreate, attributes, []), `attach a program with type "${options.attachType}"`);
}

/** Swaps the program of a link; no event sees neither or both. */
export function updateLink(linkFd: number, programFd: number): void {
  const attributes = allocate(16);
  attributes.writeUInt32LE(linkFd, 0);
  attributes.writeUInt32LE(programFd, 4);
  check(bpf(Command.linkUpdate, attributes, []), 'replace the program of a link');
}

/** Detaches a link at once; closing and unpinning alone leave that to the kernel's own time. */
export function detachLink(linkFd: number): void {
  const attributes = allocate(16);
  attributes.writeUInt32LE(linkFd, 0);
  check(bpf(Command.linkDetach, attributes, []), 'detach a link');
}

export interface LinkInfo {
  id: number;
  programId: number;
  attachType: number;
  /** A cgroup link's cgroup id or a netns link's inode; 0 when what it was attached to is gone. */
  target: bigint;
}

const LINK_TYPE_CGROUP = 3;
const LINK_TYPE_NETNS = 5;

/** What a link is attached to now (struct bpf_link_info). */
export function linkInfo(linkFd: number): LinkInfo {
  const info = objectInfo(linkFd, 64);
  const type = info.readUInt32LE(0);
  if (type !== LINK_TYPE_CGROUP && type !== LINK_TYPE_NETNS) {
    throw new HeddleError('bad-link', `read link "${linkFd}": expected a cgroup or namespace link, found type ${type}`);
  }
  const isCgroup = type === LINK_TYPE_CGROUP;
  return {
    id: info.readUInt32LE(4),
    programId: info.readUInt32LE(8),
    attachType: info.readUInt32LE(isCgroup ? 24 : 20),
    target: isCgroup ? info.readBigUInt64LE(16) : BigInt(info.readUInt32LE(16)),
  };
}

/** The kernel's id of a program (struct bpf_prog_info). */
export function programId(programFd: number): number {
  return objectInfo(programFd, 64).readUInt32LE(4);
}

export interface MapInfo {
  type: number;
  keyBytes: number;
  valueBytes: number;
  entriesMax: number;
}

/** The shape of a map (struct bpf_map_info). */
export function mapInfo(mapFd: number): MapInfo {
  const info = objectInfo(mapFd, 64);
  return {
    type: info.readUInt32LE(0),
    keyBytes: info.readUInt32LE(8),
    valueBytes: info.readUInt32LE(12),
    entriesMax: info.readUInt32LE(16),
  };
}

function objectInfo(fd: number, size: number): Buffer {
  const info = allocate(size);
  const attributes = allocate(16);
  attributes.writeUInt32LE(fd, 0);
  attributes.writeUInt32LE(size, 4);
  attributes.writeBigUInt64LE(addressOf(info), 8);
  check(bpf(Command.infoByFd, attributes, [info]), `read the properties of descriptor "${fd}"`);
  return info;
}

export interface TestRunResult {
  returnValue: number;
  /** The context as the program left it. */
  context: Buffer;
}

/** Runs a program once on a context (BPF_PROG_TEST_RUN); only some program types can. */
export function testRun(programFd: number, context: Buffer): TestRunResult {
  const input = allocate(context.length);
  context.copy(input);
  const output = allocate(context.length);
  const attributes = allocate(80);
  attributes.writeUInt32LE(programFd, 0);
  attributes.writeUInt32LE(input.length, 40);
  attributes.writeUInt32LE(output.length, 44);
  attributes.writeBigUInt64LE(addressOf(input), 48);
  attributes.writeBigUInt64LE(addressOf(output), 56);
  check(bpf(Command.testRun, attributes, [input, output]), 'run a program on a test context');
  return { returnValue: attributes.readUInt32LE(4), context: output };
}

export type UpdateMode = 'any' | 'create' | 'replace';
const UPDATE_FLAGS: Record<UpdateMode, bigint> = { any: 0n, create: 1n, replace: 2n };

/** A map reached by descriptor. Keys and values are bytes; the layouts are the programs' own. */
export class BpfMap {
  readonly fd: number;
  readonly name: string;
  readonly info: MapInfo;
  /** Bytes of a value as user space sees it: per-CPU maps answer one value per possible CPU. */
  readonly #valueBytes: number;
  readonly #attributes = allocate(32);
  readonly #key: Buffer;
  readonly #value: Buffer;
  readonly #nextKey: Buffer;

  /** Takes over `fd`. `cpus` is the number of possible CPUs for a per-CPU map, else 1. */
  constructor(fd: number, name: string, cpus = 1) {
    this.fd = fd;
    this.name = name;
    this.info = mapInfo(fd);
    this.#valueBytes = cpus === 1 ? this.info.valueBytes : ((this.info.valueBytes + 7) & ~7) * cpus;
    this.#key = allocate(this.info.keyBytes);
    this.#nextKey = allocate(this.info.keyBytes);
    this.#value = allocate(this.#valueBytes);
    this.#attributes.writeUInt32LE(fd, 0);
  }

  /** Writes an element. */
  update(key: Buffer, value: Buffer, mode: UpdateMode = 'any'): void {
    this.#load(key);
    this.#expect(value.length, this.#valueBytes, 'value');
    value.copy(this.#value);
    this.#attributes.writeBigUInt64LE(addressOf(this.#value), 16);
    this.#attributes.writeBigUInt64LE(UPDATE_FLAGS[mode], 24);
    check(this.#call(Command.mapUpdate), `write into map "${this.name}" key "${key.toString('hex')}"`);
  }

  /** A copy of the value, or null when there is none. */
  lookup(key: Buffer): Buffer | null {
    this.#load(key);
    this.#attributes.writeBigUInt64LE(addressOf(this.#value), 16);
    this.#attributes.writeBigUInt64LE(0n, 24);
    return this.#found(this.#call(Command.mapLookup), 'read') ? Buffer.from(this.#value) : null;
  }

  /** Removes an element; false when there was none. */
  delete(key: Buffer): boolean {
    this.#load(key);
    this.#attributes.writeBigUInt64LE(0n, 16);
    this.#attributes.writeBigUInt64LE(0n, 24);
    return this.#found(this.#call(Command.mapDelete), 'delete from');
  }

  /** All keys, at most the map's size of them; elements that come and go meanwhile may be missed. */
  keys(): Buffer[] {
    const keys: Buffer[] = [];
    let previous: Buffer | null = null;
    while (keys.length < this.info.entriesMax) {
      if (previous) this.#load(previous);
      else this.#attributes.writeBigUInt64LE(0n, 8);
      this.#attributes.writeBigUInt64LE(addressOf(this.#nextKey), 16);
      this.#attributes.writeBigUInt64LE(0n, 24);
      if (!this.#found(this.#call(Command.mapNextKey), 'walk')) break;
      previous = Buffer.from(this.#nextKey);
      keys.push(previous);
    }
    return keys;
  }

  close(): void {
    close(this.fd);
  }

  #load(key: Buffer): void {
    this.#expect(key.length, this.info.keyBytes, 'key');
    key.copy(this.#key);
    this.#attributes.writeBigUInt64LE(addressOf(this.#key), 8);
  }

  #call(command: number): number {
    return bpf(command, this.#attributes, [this.#key, this.#value, this.#nextKey]);
  }

  #found(result: number, action: string): boolean {
    if (result >= 0) return true;
    const error = new SystemError(errno(), `${action} map "${this.name}"`);
    if (error.errnoName === 'ENOENT') return false;
    throw error;
  }

  #expect(length: number, expected: number, what: string): void {
    if (length !== expected) {
      throw new HeddleError(
        'bad-map-layout',
        `use map "${this.name}": ${what} of ${expected} bytes expected, got ${length}`,
      );
    }
  }
}
