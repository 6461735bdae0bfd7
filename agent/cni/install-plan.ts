// What has to change in a directory of network configurations so that pods get our plugin, in one of four modes:
//   drop-in  a file of our own in `<conf dir>/<network>/`, nobody else's file is touched (libcni 1.3 and later)
//   chained  our element in the list that the runtime loads
//   owned    our copy of that list with our element, under a name that sorts before it
//   none     nothing; pods are enrolled late
// Pure: a picture of the directory in, steps out. How runtimes choose their file: go-cni loadFromConfDir, ocicni
// loadNetworks, libcni NetworkPluginConfsFromFiles.

import path from 'node:path';
import { HeddleError } from '#lib/errors.ts';
import {
  insertPlugin,
  type ParsedConfig,
  PLUGIN_TYPE,
  type PluginSection,
  parseConfig,
  removePlugin,
  renderDropIn,
  wrapSingle,
} from './conflist.ts';

export type InstallMode = 'drop-in' | 'chained' | 'owned' | 'none';
export const DROP_IN_NAME = '99-heddle.conf';
/** The first that sorts before the list it copies is taken. */
export const OWNED_NAMES: readonly string[] = ['05-heddle.conflist', '00-heddle.conflist', '0-heddle.conflist'];
const EXTENSIONS: readonly string[] = ['.conf', '.conflist', '.json'];

export interface ConfFile {
  name: string;
  bytes: Uint8Array;
  isSymlink: boolean;
}

export interface ConfDirectory {
  files: readonly ConfFile[];
  /** Sub-directories by name that hold a file called {@link DROP_IN_NAME}, with its bytes. */
  dropIns: ReadonlyMap<string, Uint8Array>;
}

/** How the node's runtime reads the directory. */
export interface RuntimeRules {
  /** containerd fails on the first bad file; CRI-O skips it, and lists whose plugins are not all installed. */
  kind: 'containerd' | 'cri-o';
  supportsDropIns: boolean;
  /** CRI-O's `default_network`; null: the first file counts. */
  defaultNetwork: string | null;
  /** Whether a plugin's binary is there. */
  isInstalled: (type: string) => boolean;
}

/** Paths are relative to the directory. */
export type InstallStep = { kind: 'write'; path: string; bytes: Uint8Array } | { kind: 'remove'; path: string };

export interface InstallPlan {
  mode: InstallMode;
  /** The runtime's network; null when there is none yet. */
  network: string | null;
  /** The file the runtime loads for it without us. */
  primary: string | null;
  steps: InstallStep[];
  /** Why pods cannot get the plugin now; null when, after the steps, they do (or mode is none). */
  blocked: HeddleError | null;
}

interface Primary {
  file: ConfFile;
  config: ParsedConfig;
}

/** Plans the mode, or for `auto` the one that interferes least: drop-in, chained, owned. */
export function planInstall(
  directory: ConfDirectory,
  options: { mode: InstallMode | 'auto'; runtime: RuntimeRules; section: PluginSection },
): InstallPlan {
  const { mode, section } = options;
  if (mode === 'none') return planRemoval(directory);
  let primary: Primary | null;
  try {
    primary = findPrimary(directory, options.runtime);
  } catch (error) {
    return keep(directory, mode, asBlocked(error));
  }
  if (primary === null) {
    const cause = new HeddleError('no-network', 'no network configuration: expected one of a network plugin, waiting');
    return keep(directory, mode, cause);
  }
  try {
    const chosen = mode === 'auto' ? chooseMode(primary, options.runtime) : mode;
    const wanted = planMode(chosen, primary, section);
    const writes = wanted.filter((step) => !isDone(directory, step));
    // The new place first, then the old ones: twice in a chain does no harm, not at all does.
    const steps = [...writes, ...removals(directory, new Set(wanted.map((step) => step.path)))];
    return { mode: chosen, network: primary.config.name, primary: primary.file.name, steps, blocked: null };
  } catch (error) {
    return { ...keep(directory, mode, asBlocked(error, primary.file.name)), network: primary.config.name };
  }
}

/** Takes every trace of us out: for uninstalling, and for mode none. */
export function planRemoval(directory: ConfDirectory): InstallPlan {
  return { mode: 'none', network: null, primary: null, steps: removals(directory, new Set()), blocked: null };
}

/** The file that the runtime takes as the pods' network, our own copy aside; null when there is none. */
export function findPrimary(directory: ConfDirectory, runtime: RuntimeRules): Primary | null {
  for (const file of networkFiles(directory)) {
    let config: ParsedConfig;
    try {
      config = parseConfig(file.bytes, file.name.endsWith('.conflist') ? 'list' : 'single');
      if (config.types.length === 0) throw new HeddleError('bad-network-config', 'expected at least one plugin');
    } catch (error) {
      if (runtime.kind === 'cri-o') continue;
      const message = `network configuration "${file.name}" cannot be parsed, so the runtime has no network`;
      throw new HeddleError('bad-network-config', message, { cause: error });
    }
    if (runtime.kind === 'cri-o' && !config.types.every((type) => type === PLUGIN_TYPE || runtime.isInstalled(type))) {
      continue;
    }
    if (runtime.kind === 'cri-o' && runtime.defaultNetwork !== null && config.name !== runtime.defaultNetwork) continue;
    return { file, config };
  }
  return null;
}

/** Files that a runtime looks at, in its order (bytes of the name), without our own copy. */
function networkFiles(directory: ConfDirectory): ConfFile[] {
  return directory.files
    .filter(({ name }) => EXTENSIONS.includes(extension(name)) && !OWNED_NAMES.includes(name))
    .sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)));
}

/** As Go's filepath.Ext, which also sees an extension in `.conf`. */
function extension(name: string): string {
  const dot = name.lastIndexOf('.');
  return dot < 0 ? '' : name.slice(dot);
}

function chooseMode({ file, config }: Primary, runtime: RuntimeRules): InstallMode {
  if (config.kind === 'single') return 'owned';
  if (runtime.supportsDropIns && !config.loadOnlyInlinedPlugins && isDirectoryName(config.name)) return 'drop-in';
  return file.isSymlink ? 'owned' : 'chained';
}

function isDirectoryName(name: string): boolean {
  return name === path.basename(name) && name !== '.' && name !== '..';
}

/** The files of the mode as they must be. */
function planMode(
  mode: InstallMode,
  { file, config }: Primary,
  section: PluginSection,
): Extract<InstallStep, { kind: 'write' }>[] {
  if (mode === 'owned') {
    const bytes =
      config.kind === 'single' ? wrapSingle(file.bytes, section) : insertPlugin(removePlugin(file.bytes), section);
    return [{ kind: 'write', path: ownedName(file.name), bytes }];
  }
  if (config.kind === 'single') {
    throw new HeddleError('bad-mode', `"${file.name}" is a single plugin's: expected a list, or mode "owned"`);
  }
  // Refuses a version that the plugin does not speak, also where the list stays untouched.
  const inserted = insertPlugin(file.bytes, section);
  if (mode === 'chained') {
    if (file.isSymlink) {
      throw new HeddleError('bad-mode', `"${file.name}" is a symbolic link: expected a file, or mode "owned"`);
    }
    return [{ kind: 'write', path: file.name, bytes: inserted }];
  }
  if (config.loadOnlyInlinedPlugins || !isDirectoryName(config.name)) {
    throw new HeddleError('bad-mode', `network "${config.name}" takes no drop-ins: expected mode "chained" or "owned"`);
  }
  return [{ kind: 'write', path: path.join(config.name, DROP_IN_NAME), bytes: renderDropIn(section) }];
}

function ownedName(primary: string): string {
  const name = OWNED_NAMES.find((own) => Buffer.compare(Buffer.from(own), Buffer.from(primary)) < 0);
  if (name !== undefined) return name;
  throw new HeddleError('bad-mode', `no name of ours sorts before "${primary}": expected a name from "1" on`);
}

function isDone(directory: ConfDirectory, step: InstallStep): boolean {
  const present = find(directory, step.path);
  if (step.kind === 'remove') return present === undefined;
  return present !== undefined && Buffer.compare(present, step.bytes) === 0;
}

function find(directory: ConfDirectory, where: string): Uint8Array | undefined {
  if (where.includes('/')) return directory.dropIns.get(path.dirname(where));
  return directory.files.find(({ name }) => name === where)?.bytes;
}

/** Steps that take out what is ours anywhere but in the paths to keep. Files that cannot be parsed are left alone. */
function removals(directory: ConfDirectory, kept: ReadonlySet<string>): InstallStep[] {
  const steps: InstallStep[] = [];
  for (const network of directory.dropIns.keys()) {
    const where = path.join(network, DROP_IN_NAME);
    if (!kept.has(where)) steps.push({ kind: 'remove', path: where });
  }
  for (const { name, bytes, isSymlink } of directory.files) {
    if (kept.has(name)) continue;
    if (OWNED_NAMES.includes(name)) {
      steps.push({ kind: 'remove', path: name });
      continue;
    }
    const without = isSymlink || extension(name) !== '.conflist' ? bytes : removeOurs(bytes);
    if (without !== bytes) steps.push({ kind: 'write', path: name, bytes: without });
  }
  return steps;
}

function removeOurs(bytes: Uint8Array): Uint8Array {
  try {
    return removePlugin(bytes);
  } catch (error) {
    if (error instanceof HeddleError && error.code === 'bad-network-config') return bytes;
    throw error;
  }
}

/** Nothing is changed: what is installed stays, and may serve pods still. */
function keep(directory: ConfDirectory, mode: InstallMode | 'auto', blocked: HeddleError): InstallPlan {
  const hasCopy = directory.files.some(({ name }) => OWNED_NAMES.includes(name));
  const current = mode === 'auto' ? (hasCopy ? 'owned' : 'chained') : mode;
  return { mode: current, network: null, primary: null, steps: [], blocked };
}

function asBlocked(error: unknown, file?: string): HeddleError {
  if (!(error instanceof HeddleError)) throw error;
  if (file === undefined) return error;
  return new HeddleError(error.code, `network configuration "${file}" is left alone`, { cause: error });
}
