// Loading the programs. bpftool reads the object and pins what it loaded into a temporary directory; a first load
// renames the maps into place in one step, a later one hands the existing maps to the new programs. Programs are not
// kept pinned: the links hold them.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { BpfMap, mapInfo, openPinned } from '#lib/bpf.ts';
import { HeddleError } from '#lib/errors.ts';
import { close, isErrno } from '#lib/libc.ts';
import { FilesystemMagic, filesystemMagic, mountFilesystem, mounts, unmountFilesystem } from '#lib/mount.ts';
import { KERNEL_MAPS, MAPS, type MapName, PIN_SCHEMA, PROGRAMS, type ProgramName } from './ebpf-layout.ts';

const LOAD_TIMEOUT_MS = 30_000;
const MOUNT_SOURCE = 'heddle';

export interface LoadedObject {
  programs: Record<ProgramName, number>;
  maps: Record<MapName, BpfMap>;
  /** True when maps of an earlier agent were taken over. */
  isAdopted: boolean;
}

/** The pins of one schema below the agent's bpffs directory. */
export function pinPaths(bpffsDir: string): { root: string; maps: string; links: string } {
  const root = path.join(bpffsDir, PIN_SCHEMA);
  return { root, maps: path.join(root, 'maps'), links: path.join(root, 'links') };
}

/**
 * Makes sure that `directory` is in a bpffs; mounts one there if not, and says so by true. The pins live as long as that
 * mount: one made in a container ends with the container, so there the directory is one of the node's own bpffs.
 */
export function ensureBpffs(directory: string): boolean {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  if (filesystemMagic(directory) === FilesystemMagic.bpf) return false;
  mountFilesystem({ type: 'bpf', path: directory, source: MOUNT_SOURCE });
  return true;
}

/** Takes the bpffs away if {@link ensureBpffs} mounted it and nothing is left in it. */
export function releaseBpffs(directory: string): void {
  const isOurs = mounts('bpf').some((mount) => mount.path === directory && mount.source === MOUNT_SOURCE);
  // The kernel puts two files of its own, `maps.debug` and `progs.debug`, into every bpffs.
  if (!isOurs || readdirSync(directory).some((name) => !name.endsWith('.debug'))) return;
  unmountFilesystem(directory);
  rmSync(directory, { recursive: true });
}

/**
 * Loads the object into the kernel, on the maps that are pinned already or on new ones. `bpffsDir` is an absolute path
 * inside a bpffs (libbpf takes no `..`). The caller closes what it gets.
 */
export function loadObject(options: { objectPath: string; bpffsDir: string }): LoadedObject {
  const { bpffsDir } = options;
  const objectPath = path.resolve(options.objectPath);
  if (!existsSync(objectPath)) {
    throw new HeddleError(
      'bpf-object-missing',
      `load eBPF object "${objectPath}": expected the file, run "make build"`,
    );
  }
  removeLeftovers(bpffsDir);
  const pins = pinPaths(bpffsDir);
  const temporary = path.join(bpffsDir, `loading-${process.pid}`);
  mkdirSync(temporary);
  try {
    const isAdopted = existsSync(pins.maps);
    runBpftool(objectPath, temporary, isAdopted ? pins.maps : null);
    const programs = openAll(PROGRAMS, path.join(temporary, 'programs'));
    if (!isAdopted) publish(temporary, pins.root);
    return { programs, maps: openMaps(pins.maps), isAdopted };
  } finally {
    if (existsSync(temporary)) rmSync(temporary, { recursive: true });
  }
}

export function closeObject(object: LoadedObject): void {
  for (const fd of Object.values(object.programs)) close(fd);
  for (const map of Object.values(object.maps)) map.close();
}

/** Another agent's unfinished load; one that still runs is left alone. */
function removeLeftovers(bpffsDir: string): void {
  for (const name of readdirSync(bpffsDir)) {
    const pid = /^loading-(\d+)$/.exec(name)?.[1];
    if (pid === undefined) continue;
    if (Number(pid) === process.pid || !existsSync(`/proc/${pid}`)) {
      rmSync(path.join(bpffsDir, name), { recursive: true });
    }
  }
}

function runBpftool(objectPath: string, temporary: string, existingMaps: string | null): void {
  const args = ['prog', 'loadall', objectPath, path.join(temporary, 'programs')];
  if (existingMaps === null) args.push('pinmaps', path.join(temporary, 'maps'));
  else {
    for (const name of [...Object.keys(MAPS), ...KERNEL_MAPS]) {
      args.push('map', 'name', name, 'pinned', path.join(existingMaps, name));
    }
  }
  const { status, error, stderr } = run(args);
  if (error) {
    throw new HeddleError('bpftool-missing', 'load eBPF object with "bpftool": expected it in PATH or /usr/sbin', {
      cause: error,
    });
  }
  if (status !== 0) {
    throw new HeddleError(
      'bpf-load-failed',
      `load eBPF object "${objectPath}": expected Linux 5.15 or newer, CAP_BPF and CAP_NET_ADMIN; bpftool says ${tail(stderr)}`,
    );
  }
}

function run(args: readonly string[]) {
  const options = { encoding: 'utf8', timeout: LOAD_TIMEOUT_MS, maxBuffer: 16 * 1024 * 1024 } as const;
  const result = spawnSync('bpftool', args, options);
  // Debian keeps it where only root's login shell looks.
  if (isErrno(result.error, 'ENOENT')) return spawnSync('/usr/sbin/bpftool', args, options);
  return result;
}

/** The end of the verifier's log, which may be very long. */
function tail(text: string): string {
  return JSON.stringify(text.trim().split('\n').slice(-6).join(' | ').slice(-800));
}

/** Maps appear all at once: either an agent finds none, or all of them. */
function publish(temporary: string, root: string): void {
  rmSync(path.join(temporary, 'programs'), { recursive: true });
  mkdirSync(path.join(temporary, 'links'));
  renameSync(temporary, root);
}

function openAll<Name extends string>(names: readonly Name[], directory: string): Record<Name, number> {
  const opened = {} as Record<Name, number>;
  for (const name of names) opened[name] = openPinned(path.join(directory, name));
  return opened;
}

function openMaps(directory: string): Record<MapName, BpfMap> {
  const descriptors = openAll(Object.keys(MAPS) as MapName[], directory);
  const maps = {} as Record<MapName, BpfMap>;
  for (const [name, layout] of Object.entries(MAPS) as [MapName, (typeof MAPS)[MapName]][]) {
    const { keyBytes, valueBytes } = mapInfo(descriptors[name]);
    if (keyBytes !== layout.keyBytes || valueBytes !== layout.valueBytes) {
      throw new HeddleError(
        'bad-map-layout',
        `open map "${path.join(directory, name)}": expected ${layout.keyBytes} and ${layout.valueBytes} bytes, found ${keyBytes} and ${valueBytes}`,
      );
    }
    maps[name] = new BpfMap(descriptors[name], name, name === 'outcomes' ? possibleCpus() : 1);
  }
  return maps;
}

/** CPUs the kernel could ever bring up: per-CPU maps have a value for each. */
export function possibleCpus(text: string = readFileSync('/sys/devices/system/cpu/possible', 'utf8')): number {
  let cpus = 0;
  for (const part of text.trim().split(',')) {
    const [from, to = from] = part.split('-').map(Number) as [number, number?];
    cpus += to - from + 1;
  }
  return cpus;
}
