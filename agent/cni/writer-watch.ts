// Who writes in a directory: fanotify(7) names the process behind each change, which inotify does not. Read when the
// directory has changed, at once, since a short-lived writer takes its name along. Where the kernel or the file system
// has no fanotify for directories, there is simply nobody to name.

import { readFileSync, readSync } from 'node:fs';
import { HeddleError } from '#lib/errors.ts';
import { bind, check, close, isErrno } from '#lib/libc.ts';

export interface Writer {
  pid: number;
  /** The command's name, or "" where the process is gone already. */
  command: string;
  /** UID of the pod that the process belongs to, from its cgroup; null outside of pods. */
  podUid: string | null;
  /** The file's name in the directory. */
  file: string;
}

const FAN_CLOEXEC = 0x1;
const FAN_NONBLOCK = 0x2;
const FAN_REPORT_DFID_NAME = 0xc00;
const FAN_MARK_ADD = 0x1;
const FAN_MARK_ONLYDIR = 0x8;
const EVENT = { modify: 0x2, closeWrite: 0x8, movedFrom: 0x40, movedTo: 0x80, create: 0x100, delete: 0x200 } as const;
const FAN_EVENT_ON_CHILD = 0x08000000n;
const AT_FDCWD = -100;
const O_RDONLY = 0;

const initFn = bind('fanotify_init', { arguments: ['u32', 'u32'], return: 'i32' });
const markFn = bind('fanotify_mark', { arguments: ['i32', 'u32', 'u64', 'i32', 'string'], return: 'i32' });

/** Offsets in struct fanotify_event_metadata, fanotify_event_info_header and _fid, and file_handle. */
const METADATA_BYTES = 24;
const INFO_DFID_NAME = 2;
const INFO_HEADER_BYTES = 4;
const FSID_BYTES = 8;
const HANDLE_HEADER_BYTES = 8;
/** One read; more events than fit wait for the next. */
const READ_BYTES = 64 * 1024;
const READS_MAX = 16;

export class WriterWatch {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(READ_BYTES);

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Needs CAP_SYS_ADMIN. Throws HeddleError where the kernel does not offer it for this directory. */
  static open(directory: string): WriterWatch {
    const fd = check(initFn(FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_DFID_NAME, O_RDONLY), 'open fanotify');
    try {
      let mask = FAN_EVENT_ON_CHILD;
      for (const bit of Object.values(EVENT)) mask |= BigInt(bit);
      check(markFn(fd, FAN_MARK_ADD | FAN_MARK_ONLYDIR, mask, AT_FDCWD, directory), `watch "${directory}" by fanotify`);
      return new WriterWatch(fd);
    } catch (error) {
      close(fd);
      throw error;
    }
  }

  /** Who has written since the last call, oldest first, without this process; one entry for each process and file. */
  drain(): Writer[] {
    const writers = new Map<string, Writer>();
    // A process may end between two of its events.
    const known = new Map<number, Pick<Writer, 'command' | 'podUid'>>();
    for (let reads = 0; reads < READS_MAX; reads++) {
      const length = this.#read();
      if (length === 0) break;
      for (const { pid, file } of parseEvents(this.#buffer.subarray(0, length))) {
        const key = `${pid} ${file}`;
        if (pid === process.pid || writers.has(key)) continue;
        const described = known.get(pid) ?? describeProcess(pid);
        known.set(pid, described);
        writers.set(key, { pid, file, ...described });
      }
    }
    return [...writers.values()];
  }

  close(): void {
    close(this.#fd);
  }

  #read(): number {
    try {
      return readSync(this.#fd, this.#buffer);
    } catch (error) {
      if (isErrno(error, 'EAGAIN')) return 0;
      throw new HeddleError('fanotify', 'read who wrote', { cause: error });
    }
  }
}

/** Events of one read, see fanotify(7) "Reading fanotify events". Exported for its test. */
export function parseEvents(bytes: Buffer): { pid: number; file: string }[] {
  const events: { pid: number; file: string }[] = [];
  for (let at = 0; at + METADATA_BYTES <= bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    if (length < METADATA_BYTES || at + length > bytes.length) break;
    const pid = bytes.readInt32LE(at + 20);
    events.push({ pid, file: parseName(bytes.subarray(at + bytes.readUInt16LE(at + 6), at + length)) });
    at += length;
  }
  return events;
}

/** The name in the records behind an event; "" without one. */
function parseName(records: Buffer): string {
  for (let at = 0; at + INFO_HEADER_BYTES <= records.length; ) {
    const length = records.readUInt16LE(at + 2);
    if (length < INFO_HEADER_BYTES || at + length > records.length) break;
    if (records[at] === INFO_DFID_NAME) {
      const handle = at + INFO_HEADER_BYTES + FSID_BYTES;
      const name = handle + HANDLE_HEADER_BYTES + records.readUInt32LE(handle);
      const end = records.indexOf(0, name);
      if (name <= at + length) return records.toString('utf8', name, end < 0 || end > at + length ? at + length : end);
    }
    at += length;
  }
  return '';
}

function describeProcess(pid: number): Pick<Writer, 'command' | 'podUid'> {
  return { command: readProcess(pid, 'comm').trim(), podUid: podUidOf(readProcess(pid, 'cgroup')) };
}

/** Pod UIDs in cgroup paths of the kubelet: `pod<uid>`, with underscores where systemd names the slices. */
function podUidOf(cgroup: string): string | null {
  const match = /pod([0-9a-f]{8}([-_])[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{12})/.exec(cgroup);
  return match ? match[1]!.replaceAll('_', '-') : null;
}

function readProcess(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH', 'EACCES', 'EPERM')) return '';
    throw error;
  }
}
