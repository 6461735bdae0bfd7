// The installer as commands of their own, for a node's console and for a Job on uninstall; the agent itself runs the
// same code. `install` does it once, `uninstall` in the safe order, `status` changes nothing.

import { existsSync } from 'node:fs';
import path from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { describeError } from '#lib/errors.ts';
import { createLog } from '#lib/log.ts';
import { PluginBinary } from './binary.ts';
import { readConfDirectory } from './conf-directory.ts';
import { pluginSection } from './conflist.ts';
import { CniInstaller } from './install.ts';
import { type InstallMode, planInstall } from './install-plan.ts';
import { guessDirectories, onHost, parseRuntime, rulesOf } from './runtime-rules.ts';
import { DEFAULT_CACHE_DIR, uninstallCni } from './uninstall.ts';

interface Options {
  hostRoot: string;
  confDir?: string;
  binDir?: string;
  cacheDir: string;
  source: string;
  mode: InstallMode | 'auto';
  runtime: { name: string; version: string };
  runDir: string;
  controlPlaneNamespace?: string;
  force?: boolean;
}

const { log } = createLog();

function resolve(options: Options) {
  const { hostRoot } = options;
  const guess = guessDirectories((nodePath) => existsSync(onHost(hostRoot, nodePath)));
  const confDir = onHost(hostRoot, options.confDir ?? guess.confDir);
  const binDir = onHost(hostRoot, options.binDir ?? guess.binDirs[0]!);
  const isInstalled = (type: string): boolean => existsSync(path.join(binDir, type));
  const { runDir, controlPlaneNamespace } = options;
  const section = pluginSection({ runDir, ...(controlPlaneNamespace === undefined ? {} : { controlPlaneNamespace }) });
  const runtime = rulesOf(options.runtime, { isInstalled });
  return { confDir, binDir, cacheDir: onHost(hostRoot, options.cacheDir), section, runtime };
}

async function install(options: Options): Promise<number> {
  const { confDir, binDir, section, runtime } = resolve(options);
  const { mode, source } = options;
  const state = await new CniInstaller({ confDir, binDir, source, mode, runtime, section, log }).install();
  print({ confDir, binDir, ...state });
  return state.isInstalled || (mode === 'none' && state.cause === null) ? 0 : 1;
}

async function uninstall(options: Options): Promise<number> {
  const { confDir, binDir, cacheDir } = resolve(options);
  const { force = false } = options;
  const result = await uninstallCni({ confDir, binDirs: [binDir], cacheDir, log, force });
  print({ confDir, binDir, ...result });
  // Not an error, but not the end either: run it again when the pods are gone.
  return result.binaryRemoved ? 0 : 3;
}

function status(options: Options): number {
  const { confDir, binDir, section, runtime } = resolve(options);
  const plan = planInstall(readConfDirectory(confDir), { mode: options.mode, runtime, section });
  const binaryMatches = new PluginBinary(options.source, binDir).matches();
  const isInstalled = binaryMatches && plan.steps.length === 0 && plan.blocked === null;
  const { mode, network, primary, blocked } = plan;
  const missing = plan.steps.map((step) => `${step.kind} ${step.path}`);
  const cause = blocked === null ? null : describeError(blocked);
  print({ confDir, binDir, mode, network, primary, isInstalled, binaryMatches, missing, cause });
  return isInstalled ? 0 : 1;
}

function print(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

function runtimeOption(text: string): Options['runtime'] {
  const runtime = parseRuntime(text);
  if (runtime) return runtime;
  throw new InvalidArgumentError('expected a name and a version, such as containerd@2.1.4');
}

function addOptions(command: Command): Command {
  return command
    .option('--host-root <dir>', "the node's root as it is mounted here", '/')
    .option('--conf-dir <dir>', "the runtime's network configurations (default: as the distribution has it)")
    .option('--bin-dir <dir>', "the runtime's plugins (default: as the distribution has it)")
    .option('--cache-dir <dir>', 'where libcni notes attachments', DEFAULT_CACHE_DIR)
    .option('--source <file>', 'the plugin to install', path.resolve(import.meta.dirname, '../../build/cni/heddle-cni'))
    .addOption(new Option('--mode <mode>').choices(['auto', 'drop-in', 'chained', 'owned', 'none']).default('auto'))
    .option('--runtime <name@version>', 'decides how files are found', runtimeOption, {
      name: 'containerd',
      version: '1.7',
    })
    .option('--run-dir <dir>', 'where plugin and agent meet', '/run/heddle')
    .option('--control-plane-namespace <name>', 'stamps of other control planes are left alone');
}

function program(): Command {
  const main = new Command('heddle-cni-install').description("the CNI plugin's installation on this node");
  const set = (code: number): void => {
    process.exitCode = code;
  };
  addOptions(main.command('install')).action(async (options: Options) => set(await install(options)));
  addOptions(main.command('uninstall'))
    .option('--force', 'remove the executable even though pods would still call it')
    .action(async (options: Options) => set(await uninstall(options)));
  addOptions(main.command('status')).action((options: Options) => set(status(options)));
  return main;
}

if (!process.argv.includes('--check-config')) {
  try {
    await program().parseAsync();
  } catch (error) {
    log.error('CNI installation', { error });
    process.exitCode = 2;
  }
}
