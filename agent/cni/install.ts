// Keeps the plugin installed on the node: the executable first, then the configuration, both verified; watches both
// and repairs what others undo, at once as a rule and ever more slowly in a war, naming who did it. Nothing is removed
// when the agent stops: pods that start meanwhile must find the plugin, which knows what to do without an agent.

import path from 'node:path';
import { type Clock, systemClock, type Timer } from '#lib/clock.ts';
import { describeError, HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { type FaultPoint, removeLeftovers } from './atomic-file.ts';
import { PluginBinary } from './binary.ts';
import { applySteps, pokeRuntime, readConfDirectory } from './conf-directory.ts';
import type { PluginSection } from './conflist.ts';
import { Accuser } from './culprit.ts';
import { DirectoryWatch } from './directory-watch.ts';
import { type InstallMode, type InstallPlan, planInstall, type RuntimeRules } from './install-plan.ts';
import { REPAIR_PACE, type RepairPace, RepairPacer } from './repair-pacer.ts';

export interface InstallerOptions {
  confDir: string;
  binDir: string;
  /** The executable that the agent brings along. */
  source: string;
  mode: InstallMode | 'auto';
  runtime: RuntimeRules;
  section: PluginSection;
  log: Log;
  clock?: Clock;
  pace?: RepairPace;
  faultPoint?: FaultPoint;
  onChange?: (state: InstallState) => void;
}

export interface InstallState {
  mode: InstallMode;
  network: string | null;
  /** The plugin is in the chain of the runtime's network, and its executable is the agent's own. */
  isInstalled: boolean;
  binaryMatches: boolean;
  /** Why it is not installed, or null. */
  cause: string | null;
  /** Repairs are delayed because somebody undoes them again and again. */
  isWar: boolean;
  /** Times that others undid the installation, by the labels of culprit.ts. */
  rewrites: Readonly<Record<string, number>>;
}

type Result = Omit<InstallState, 'isWar' | 'rewrites'>;

/** Changes come in bursts: truncate, write, rename. */
const SETTLE_MS = 20;
/** In case a notification was lost. */
const VERIFY_MS = 5_000;
/** While something is amiss: an absent directory cannot be watched, a full disk does not tell. */
const RETRY_MS = 250;

export class CniInstaller {
  readonly #options: InstallerOptions;
  readonly #clock: Clock;
  readonly #binary: PluginBinary;
  readonly #pacer: RepairPacer;
  readonly #accuser: Accuser;
  readonly #watch: DirectoryWatch;
  #timer: Timer | null = null;
  #timerAtMs = Number.POSITIVE_INFINITY;
  #running: Promise<void> | null = null;
  #isStopped = false;
  /** Set once it was installed: what is amiss afterwards, somebody did. */
  #wasInstalled = false;
  #state: InstallState;

  constructor(options: InstallerOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#binary = new PluginBinary(options.source, options.binDir);
    this.#pacer = new RepairPacer(options.pace ?? REPAIR_PACE);
    this.#accuser = new Accuser(options.confDir, options.log);
    this.#watch = new DirectoryWatch(() => {
      this.#accuser.note();
      this.#schedule(SETTLE_MS);
    });
    const mode = options.mode === 'auto' ? 'chained' : options.mode;
    const nothing = { network: null, isInstalled: false, binaryMatches: false, cause: 'not tried yet' };
    this.#state = { mode, ...nothing, isWar: false, rewrites: this.#accuser.counts };
  }

  get state(): InstallState {
    return this.#state;
  }

  /** Installs once, as far as it can be done now. Never rejects: see {@link state}. */
  async install(): Promise<InstallState> {
    this.#running ??= this.#pass().finally(() => {
      this.#running = null;
    });
    await this.#running;
    return this.#state;
  }

  /** Installs, then watches and repairs until {@link stop}. */
  async start(): Promise<InstallState> {
    this.#accuser.open();
    await this.#tick();
    return this.#state;
  }

  /** Stops watching. What is installed stays. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#timer?.cancel();
    this.#watch.close();
    this.#accuser.close();
    await this.#running;
  }

  /** Executable first: a runtime that finds a list whose plugin is missing drops the list, or fails its pods. */
  async #pass(): Promise<void> {
    const { binDir, faultPoint = () => {}, log } = this.#options;
    const { mode, network } = this.#state;
    let result: Result = { mode, network, isInstalled: false, binaryMatches: false, cause: null };
    try {
      if (await this.#binary.install(faultPoint)) log.info('CNI plugin written', { binDir });
      result = { ...result, binaryMatches: true };
      faultPoint('between');
      const { mode: chosen, network: found, blocked } = this.#configure(faultPoint);
      const cause = blocked === null ? null : describeError(blocked);
      result = { ...result, mode: chosen, network: found, isInstalled: cause === null && chosen !== 'none', cause };
    } catch (error) {
      result = { ...result, cause: describeError(error) };
    }
    this.#report(result);
  }

  #configure(faultPoint: FaultPoint): InstallPlan {
    const { confDir, log } = this.#options;
    const picture = readConfDirectory(confDir);
    const plan = planInstall(picture, this.#options);
    if (plan.steps.length === 0) {
      this.#accuser.forget();
      // An agent before may have been killed between the drop-in and telling the runtime of it.
      if (!this.#wasInstalled && plan.mode === 'drop-in' && plan.blocked === null) pokeRuntime(confDir);
      return plan;
    }
    const nowMs = this.#clock.nowMs();
    if (this.#wasInstalled) {
      const culprit = this.#accuser.accuse(picture, plan.primary, this.#state.isInstalled);
      const waitMs = this.#pacer.waitMs(nowMs);
      if (waitMs > 0) {
        this.#schedule(waitMs);
        return {
          ...plan,
          blocked: new HeddleError('war', `undone again and again by ${culprit}: repairs are delayed`),
        };
      }
      this.#pacer.repaired(nowMs);
    }
    removeLeftovers(confDir);
    applySteps(confDir, picture, plan.steps, faultPoint);
    const after = planInstall(readConfDirectory(confDir), this.#options);
    if (after.steps.length > 0) {
      throw new HeddleError('file-changed', `configure network "${plan.network}": undone at once, expected to last`);
    }
    const files = plan.steps.map((step) => step.path);
    log.info('CNI configuration written', { mode: after.mode, network: after.network, files });
    return after;
  }

  #report(result: Result): void {
    const { log, onChange } = this.#options;
    const before = this.#state;
    const isWar = this.#pacer.isWar(this.#clock.nowMs());
    this.#state = { ...result, isWar, rewrites: this.#accuser.counts };
    this.#wasInstalled ||= result.isInstalled;
    if (before.isInstalled === result.isInstalled && before.cause === result.cause && before.isWar === isWar) return;
    const { mode, network, cause } = result;
    if (result.isInstalled) log.info('CNI plugin installed', { mode, network, isWar });
    else if (cause !== null) log.warn('CNI plugin not installed', { mode, network, cause });
    onChange?.(this.#state);
  }

  /** Runs a pass after `delayMs`, or earlier when one is due before. */
  #schedule(delayMs: number): void {
    const atMs = this.#clock.nowMs() + delayMs;
    if (this.#isStopped || atMs >= this.#timerAtMs) return;
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    this.#timer = this.#clock.after(delayMs, () => {
      this.#timerAtMs = Number.POSITIVE_INFINITY;
      void this.#tick();
    });
  }

  async #tick(): Promise<void> {
    // A pass that runs already may have looked before the change.
    await this.#running;
    const { cause } = await this.install();
    if (this.#isStopped) return;
    this.#followDirectories();
    this.#schedule(cause === null ? VERIFY_MS : RETRY_MS);
  }

  #followDirectories(): void {
    const { confDir, binDir, log } = this.#options;
    const { mode, network } = this.#state;
    const directories = [confDir, binDir];
    // Of a drop-in the runtime's directory tells nothing.
    if (mode === 'drop-in' && network !== null) directories.push(path.join(confDir, network));
    try {
      // What changed before the new watches were there is seen by one more pass.
      if (!this.#watch.follow(directories)) return;
      this.#accuser.open();
      this.#schedule(SETTLE_MS);
    } catch (error) {
      log.warn('watch the CNI directories', { error });
    }
  }
}
