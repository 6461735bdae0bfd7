// Looks at every enrolled pod every few seconds: programs or rules, listening sockets, the namespace, the worker's life,
// and by a canary whether all that together does what it should. What differs is counted, told once for each cause, and
// repaired. On its own timer, so that no slow enrolment of one pod keeps the others from being looked at.

import type { Clock, Timer } from '#lib/clock.ts';
import type { Log } from '#lib/log.ts';
import { podName } from './desired.ts';
import type { Enrolment } from './enrolment.ts';
import { netnsInode } from './netns-path.ts';
import type { DriftKind } from './redirect/redirector.ts';

export interface VerifierEvents {
  drifted(kind: DriftKind): void;
  canary(result: 'ok' | 'skipped' | 'failed'): void;
}

export interface VerifierOptions {
  enrolments: () => readonly Enrolment[];
  /** Ends what was made for a sandbox that is gone. */
  remove: (containerId: string) => Promise<unknown>;
  events: VerifierEvents;
  clock: Clock;
  log: Log;
}

interface Watched {
  /** Looks in a row at which nothing was where the namespace's file should be. */
  absences: number;
  /** Cause of the drift that was last written to the log. */
  told: string;
}

const ROUND_MS = 5_000;
/** A namespace file that is missing at so many looks in a row belongs to a sandbox that is gone. */
const ABSENCES_MAX = 2;
/** Canaries that vanish in a row, though the worker answers, until it is replaced. */
const SILENT_CANARIES_MAX = 2;
/** Workers are replaced for canaries one after another: on a node that is just slow, all would seem broken at once. */
const REPLACE_PAUSE_MS = 10_000;

export class Verifier {
  readonly #options: VerifierOptions;
  readonly #watched = new WeakMap<Enrolment, Watched>();
  #timer: Timer | null = null;
  #replacedAtMs = Number.NEGATIVE_INFINITY;
  #isStopped = false;

  constructor(options: VerifierOptions) {
    this.#options = options;
  }

  start(): void {
    void this.#round();
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
  }

  async #round(): Promise<void> {
    await Promise.all(this.#options.enrolments().map((enrolment) => this.#look(enrolment)));
    if (!this.#isStopped) this.#timer = this.#options.clock.after(ROUND_MS, () => void this.#round());
  }

  /** Never rejects: a failure of one pod is told, and is no failure of the agent. */
  async #look(enrolment: Enrolment): Promise<void> {
    const watched = this.#watched.get(enrolment) ?? { absences: 0, told: '' };
    this.#watched.set(enrolment, watched);
    const { log } = this.#options;
    const pod = podName(enrolment.sandbox);
    try {
      if (await this.#isGone(enrolment, watched)) return;
      const drifts = await enrolment.verify();
      if (this.#isStopped) return;
      const cause = drifts.map((drift) => `${drift.kind}: ${drift.cause}`).join('; ');
      if (cause !== '' && cause !== watched.told) log.warn('pod drifted', { pod, cause });
      if (cause === '' && watched.told !== '') log.info('pod is as it should be again', { pod, drift: watched.told });
      watched.told = cause;
      for (const drift of drifts) this.#options.events.drifted(drift.kind);
      if (enrolment.lastCanary) this.#options.events.canary(enrolment.lastCanary.kind);
      // A worker that is not ready is its supervisor's to repair.
      if (drifts.some(({ kind }) => kind !== 'worker')) enrolment.repair();
      this.#replaceDeafWorker(enrolment);
    } catch (error) {
      log.error('cannot verify or repair a pod', { pod, error });
    }
  }

  /** Another namespace at the same place is another sandbox: it must not get this one's worker, nor its identity. */
  async #isGone(enrolment: Enrolment, watched: Watched): Promise<boolean> {
    const { events, log, remove } = this.#options;
    const { sandbox } = enrolment;
    const inode = netnsInode(sandbox.netnsPath);
    watched.absences = inode === null ? watched.absences + 1 : 0;
    const isReplaced = inode !== null && inode !== sandbox.netnsInode;
    if (!isReplaced && watched.absences < ABSENCES_MAX) return false;
    const pod = podName(sandbox);
    if (isReplaced) {
      events.drifted('netns');
      const cause = `"${sandbox.netnsPath}" leads to "${inode}", expected "${sandbox.netnsInode}"`;
      log.warn('namespace of the sandbox was replaced without a DEL: the pod is removed', { pod, cause });
    } else log.warn('namespace of the sandbox is gone without a DEL: the pod is removed', { pod });
    await remove(sandbox.containerId);
    return true;
  }

  /** Redirection was repaired before, the worker answers the agent, and still nothing reaches it. */
  #replaceDeafWorker(enrolment: Enrolment): void {
    const { clock, log } = this.#options;
    if (enrolment.silentCanaries < SILENT_CANARIES_MAX) return;
    const nowMs = clock.nowMs();
    if (nowMs - this.#replacedAtMs < REPLACE_PAUSE_MS) return;
    this.#replacedAtMs = nowMs;
    log.error('connections do not reach the worker: it is replaced', { pod: podName(enrolment.sandbox) });
    enrolment.replaceWorker();
  }
}
