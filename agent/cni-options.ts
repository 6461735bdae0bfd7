// The part of the agent's command line that says whether and how it keeps the CNI plugin installed. Off unless asked
// for: on a node where somebody else installs the plugin, two installers would undo one another's work.

import { existsSync } from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { HeddleError } from '#lib/errors.ts';
import { pluginSection } from './cni/conflist.ts';
import type { InstallerOptions } from './cni/install.ts';
import { guessDirectories, onHost, parseRuntime, rulesOf } from './cni/runtime-rules.ts';
import { DEFAULT_CACHE_DIR } from './cni/uninstall.ts';

/** `none` leaves the node's CNI configuration alone, and what is installed there too. */
export const CNI_MODES = ['none', 'auto', 'drop-in', 'chained', 'owned'] as const;
export type CniMode = (typeof CNI_MODES)[number];

export interface CniConfig {
  mode: Exclude<CniMode, 'none'>;
  confDir: string;
  binDir: string;
  cacheDir: string;
  /** The executable that is installed. */
  plugin: string;
  runtime: { name: string; version: string };
  /** Uninstalling removes the executable even though pods would still call it. */
  isForced: boolean;
}

export function addCniOptions(command: Command, sourceRoot: string): Command {
  return command
    .option('--cni-mode <mode>', `keeps the CNI plugin installed: one of ${CNI_MODES.join(', ')}`, 'none')
    .option('--cni-host-root <dir>', "the node's root as it is mounted here", '/')
    .option('--cni-conf-dir <dir>', "the runtime's network configurations (default: as the distribution has it)")
    .option('--cni-bin-dir <dir>', "the runtime's plugins (default: as the distribution has it)")
    .option('--cni-cache-dir <dir>', 'where libcni notes attachments', DEFAULT_CACHE_DIR)
    .option('--cni-plugin <file>', 'the plugin to install', path.join(sourceRoot, 'build/cni/heddle-cni'))
    .option('--cni-runtime <name@version>', 'decides how files are found', 'containerd@1.7')
    .option('--cni-force', 'uninstall the plugin even though pods would still call it');
}

/** `read` as in config.ts: reads one option, keeping its fault for later. Null where the installer is off. */
export function readCniOptions(
  options: Readonly<Record<string, string>>,
  read: <T>(name: string, parse: (text: string) => T) => T,
): CniConfig | null {
  const mode = read('cniMode', parseMode);
  const hostRoot = read('cniHostRoot', parseDirectory);
  const onNode = (name: string, fallback: string): string =>
    onHost(hostRoot ?? '/', options[name] === undefined ? fallback : (read(name, parseDirectory) ?? ''));
  const runtime = read('cniRuntime', readRuntime);
  const plugin = read('cniPlugin', (text) => path.resolve(text));
  const guess = guessDirectories((nodePath) => existsSync(onHost(hostRoot ?? '/', nodePath)));
  const confDir = onNode('cniConfDir', guess.confDir);
  const binDir = onNode('cniBinDir', guess.binDirs[0]!);
  const cacheDir = onNode('cniCacheDir', DEFAULT_CACHE_DIR);
  if (mode === undefined || mode === 'none') return null;
  return { mode, confDir, binDir, cacheDir, plugin, runtime, isForced: 'cniForce' in options };
}

/** What the installer needs to know of this node. The plugin finds the agent in `runDir`. */
export function installerOptions(
  config: CniConfig,
  { runDir, controlPlaneNamespace }: { runDir: string; controlPlaneNamespace: string },
): Omit<InstallerOptions, 'log' | 'clock'> {
  const { mode, confDir, binDir, plugin, runtime } = config;
  const isInstalled = (type: string): boolean => existsSync(path.join(binDir, type));
  const section = pluginSection({ runDir, controlPlaneNamespace });
  return { mode, confDir, binDir, source: plugin, runtime: rulesOf(runtime, { isInstalled }), section };
}

function parseMode(text: string): CniMode {
  const mode = CNI_MODES.find((known) => known === text);
  if (mode) return mode;
  throw new HeddleError('bad-value', `read the mode "${text}": expected one of ${CNI_MODES.join(', ')}`);
}

function parseDirectory(text: string): string {
  if (path.isAbsolute(text)) return path.normalize(text);
  throw new HeddleError('bad-value', `read the path "${text}": expected an absolute path`);
}

function readRuntime(text: string): CniConfig['runtime'] {
  const runtime = parseRuntime(text);
  if (runtime) return runtime;
  throw new HeddleError('bad-value', `read the runtime "${text}": expected such as containerd@2.1.4`);
}
