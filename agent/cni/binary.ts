// The plugin's executable in the runtime's directory: compared by hash, replaced by rename (a runtime that executes it
// at this moment keeps the old one, and nobody sees half), run once to see that this node can run it.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { describeError, HeddleError } from '#lib/errors.ts';
import { isErrno } from '#lib/libc.ts';
import { type FaultPoint, removeDurably, removeLeftovers, writeAtomically } from './atomic-file.ts';
import { PLUGIN_TYPE } from './conflist.ts';

/** The plugin is far smaller; a longer file is not it. */
const BINARY_BYTES_MAX = 16 * 1024 * 1024;
const VERSION_MS = 5_000;

/** Where the executable stands in a directory of the runtime. */
export function binaryPath(directory: string): string {
  return path.join(directory, PLUGIN_TYPE);
}

/** Keeps one executable in one directory. */
export class PluginBinary {
  readonly #source: string;
  readonly #directory: string;
  /** Of the two files when they were last found equal: reading them again is for when something changed. */
  #verified = '';

  constructor(source: string, directory: string) {
    this.#source = source;
    this.#directory = directory;
  }

  /** True when the directory holds exactly the executable that the agent brings along, and it may be executed. */
  matches(): boolean {
    const signature = `${signatureOf(this.#source)} ${signatureOf(binaryPath(this.#directory))}`;
    if (signature === this.#verified) return true;
    const installed = readIfThere(binaryPath(this.#directory));
    if (installed === null || digest(installed.bytes) !== digest(readSource(this.#source))) return false;
    if ((installed.mode & 0o111) !== 0o111) return false;
    this.#verified = signature;
    return true;
  }

  /**
   * Puts the executable in place unless it is there. Returns whether it wrote. Throws `bad-binary` when what stands
   * there afterwards is not what was written, or does not run on this node.
   */
  async install(faultPoint: FaultPoint = () => {}): Promise<boolean> {
    if (this.matches()) return false;
    mkdirSync(this.#directory, { recursive: true, mode: 0o755 });
    removeLeftovers(this.#directory);
    const file = binaryPath(this.#directory);
    // A file keeps its mode when it is replaced: one that lost it must go.
    const present = readIfThere(file);
    if (present !== null && (present.mode & 0o111) !== 0o111) removeDurably(file);
    const bytes = readSource(this.#source);
    writeAtomically({ file, bytes, mode: 0o755, faultPoint: (point) => faultPoint(`binary-${point}`) });
    if (!this.matches()) {
      throw new HeddleError('bad-binary', `plugin "${file}" is not what was written: expected no other writer`);
    }
    await checkRuns(file);
    return true;
  }
}

/** Removes the executable and what a killed installation left. */
export function removeBinary(directory: string): void {
  try {
    removeLeftovers(directory);
    removeDurably(binaryPath(directory));
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
}

function readSource(source: string): Uint8Array {
  const { size } = statSync(source);
  if (size > 0 && size <= BINARY_BYTES_MAX) return readFileSync(source);
  throw new HeddleError('bad-binary', `plugin "${source}" has ${size} bytes: expected 1 to ${BINARY_BYTES_MAX}`);
}

/** Changes with every write, rename and change of mode (ctime). */
function signatureOf(file: string): string {
  try {
    const { dev, ino, size, ctimeNs } = statSync(file, { bigint: true });
    return `${dev}:${ino}:${size}:${ctimeNs}`;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return 'absent';
    throw error;
  }
}

function readIfThere(file: string): { bytes: Uint8Array; mode: number } | null {
  try {
    const { mode, size } = statSync(file);
    return { mode, bytes: size > BINARY_BYTES_MAX ? new Uint8Array() : readFileSync(file) };
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return null;
    throw error;
  }
}

async function checkRuns(file: string): Promise<void> {
  try {
    const env = { CNI_COMMAND: 'VERSION', CNI_PATH: path.dirname(file) };
    const { stdout } = await promisify(execFile)(file, [], { env, timeout: VERSION_MS });
    if (!Array.isArray(JSON.parse(stdout).supportedVersions)) throw new Error(`answered ${JSON.stringify(stdout)}`);
  } catch (error) {
    const remedy = 'expected it to answer VERSION: is the directory mounted noexec, or the CPU another?';
    throw new HeddleError('bad-binary', `run plugin "${file}": ${describeError(error)}: ${remedy}`, { cause: error });
  }
}

function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
