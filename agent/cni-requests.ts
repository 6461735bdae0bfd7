// What the agent answers the CNI plugin: requests become calls of the reconciler, errors become the codes of the CNI
// specification with a message that names cause and remedy. Time limits: reference of the verbs in api/cni-message.ts.

import { CniCode, type CniReply, type CniRequest } from '#api/cni-message.ts';
import { describeError, HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { type CniHandler, cniDone, cniFailed } from './cni/handler.ts';
import { podName } from './desired.ts';
import { isFileName } from './files.ts';
import { identifyNetns } from './netns.ts';
import type { PodCache } from './pods.ts';
import type { NewSandbox, Reconciler } from './reconcile.ts';

export interface CniRequestsOptions {
  reconciler: Reconciler;
  pods: PodCache;
  log: Log;
  /** Null when the agent can mesh pods, else why not. */
  notReady: () => string | null;
}

/** Kept back from the plugin's deadline for undoing and answering. */
const MARGIN_MS = 500;
/** How long the source may take to learn of a pod that the runtime knows already. */
const POD_WAIT_MS = 3_000;

export class CniRequests implements CniHandler {
  readonly #options: CniRequestsOptions;

  constructor(options: CniRequestsOptions) {
    this.#options = options;
  }

  async add(request: CniRequest, netnsFd: number, signal: AbortSignal): Promise<CniReply> {
    const { reconciler, log } = this.#options;
    const deadlineMs = performance.now() + Math.max(MARGIN_MS, request.deadlineMs - MARGIN_MS);
    // Once the pod is known to be meshed, no failure may read as "undecided": the plugin would let an unstamped pod pass.
    let outcome: CniReply['outcome'] = 'none';
    try {
      const sandbox = await this.#sandboxOf(request, netnsFd, signal, deadlineMs);
      const early = reconciler.desired(sandbox);
      if (early.kind === 'unknown') return cniFailed(CniCode.deadline, `${early.reason}: try again later`);
      if (early.kind === 'waiting') {
        return cniFailed(
          CniCode.tryAgainLater,
          `${early.reason}: the runtime tries again; see the agent's source of pods`,
        );
      }
      if (early.kind === 'meshed') outcome = 'meshed';
      const desired = await reconciler.add(sandbox, netnsFd, deadlineMs - performance.now(), signal);
      // Another sandbox of the pod may have been waited for, and the pod may have changed meanwhile.
      if (desired.kind === 'unknown' || desired.kind === 'waiting') {
        return cniFailed(CniCode.tryAgainLater, `${desired.reason}: the runtime tries again`, { outcome });
      }
      return cniDone(desired.kind, [...desired.problems]);
    } catch (error) {
      const code = codeOf(error);
      log.error('pod was not added', { pod: `${request.pod.namespace}/${request.pod.name}`, code, error });
      return cniFailed(code, describeError(error), {
        details: error instanceof HeddleError ? error.code : '',
        outcome,
      });
    }
  }

  async check(request: CniRequest, netnsFd: number): Promise<CniReply> {
    const enrolment = this.#options.reconciler.find(request.containerId);
    if (!enrolment) return cniFailed(CniCode.internal, `container "${request.containerId}" is not known to the agent`);
    const { inode } = identifyNetns(netnsFd);
    if (String(inode) !== enrolment.sandbox.netnsInode) {
      return cniFailed(
        CniCode.netnsMismatch,
        `namespace "${inode}" of pod "${podName(enrolment.sandbox)}": expected "${enrolment.sandbox.netnsInode}"`,
      );
    }
    const drifts = await enrolment.verify();
    if (drifts.length > 0) {
      const causes = drifts.map(({ kind, cause }) => `${kind}: ${cause}`).join('; ');
      return cniFailed(
        CniCode.redirectFailed,
        `pod "${podName(enrolment.sandbox)}" drifted: ${causes}: the agent repairs it`,
        { outcome: 'meshed' },
      );
    }
    return cniDone(enrolment.isAttached ? 'meshed' : 'unmeshed', [...enrolment.problems]);
  }

  async del(request: CniRequest): Promise<CniReply> {
    const isKnown = await this.#options.reconciler.remove(request.containerId);
    return cniDone(isKnown ? 'removed' : 'none');
  }

  async gc(request: CniRequest): Promise<CniReply> {
    const { reconciler, log } = this.#options;
    const valid = new Set(request.validAttachments?.map(({ containerId }) => containerId));
    const gone = reconciler
      .enrolments()
      .map(({ sandbox }) => sandbox)
      .filter((sandbox) => sandbox.network === request.network && !valid.has(sandbox.containerId));
    await Promise.all(gone.map((sandbox) => reconciler.remove(sandbox.containerId)));
    if (gone.length > 0) log.info('attachments removed by GC', { pods: gone.map((sandbox) => podName(sandbox)) });
    return cniDone(gone.length > 0 ? 'removed' : 'none');
  }

  async status(): Promise<CniReply> {
    const reason = this.#options.notReady();
    return reason === null ? cniDone('none') : cniFailed(CniCode.notAvailable, reason);
  }

  /** The sandbox of an ADD, once the source has told of its pod or the time for that is over. */
  async #sandboxOf(request: CniRequest, netnsFd: number, signal: AbortSignal, deadlineMs: number): Promise<NewSandbox> {
    const { pods, reconciler } = this.#options;
    const { inode } = identifyNetns(netnsFd);
    if (BigInt(request.netnsInode) !== inode) {
      throw new HeddleError(
        'netns-mismatch',
        `add pod "${request.pod.namespace}/${request.pod.name}": expected namespace "${request.netnsInode}" of the ` +
          `plugin, the descriptor is "${inode}"`,
      );
    }
    const { containerId, ifName, network, netnsPath, pod, annotations, ips } = request;
    const sandbox = { containerId, ifName, network, netnsPath, netnsInode: String(inode), pod, annotations, ips };
    const waitMs = () => Math.min(POD_WAIT_MS, (deadlineMs - performance.now()) / 2);
    if (reconciler.desired(sandbox).kind === 'unknown') await pods.waitForSync(waitMs(), signal);
    const { kind } = reconciler.desired(sandbox);
    if (kind === 'unknown' || kind === 'waiting') await pods.waitFor(pod, waitMs(), signal);
    const uid = pods.complete(pod).uid || containerId;
    if (!isFileName(uid) || !isFileName(containerId)) {
      throw new HeddleError(
        'bad-container-id',
        `add container "${containerId}" of pod "${uid}": expected the CNI alphabet`,
      );
    }
    return { ...sandbox, pod: { ...pod, uid } };
  }
}

const CODES: Record<string, number> = {
  'not-a-netns': CniCode.invalidNetns,
  'netns-missing': CniCode.invalidNetns,
  'netns-mismatch': CniCode.netnsMismatch,
  'bad-container-id': CniCode.badEnvironment,
  'duplicate-pod-ip': CniCode.agentRefused,
  'node-full': CniCode.agentRefused,
  'worker-not-ready': CniCode.tryAgainLater,
  'pod-left': CniCode.tryAgainLater,
  'add-cancelled': CniCode.tryAgainLater,
  'worker-failed': CniCode.workerFailed,
  'cgroup-failed': CniCode.workerFailed,
  'listener-failed': CniCode.workerFailed,
};

/** What no other row names went wrong in redirection, whose errors are many, or is a fault of ours. */
function codeOf(error: unknown): number {
  if (!(error instanceof HeddleError)) return CniCode.internal;
  return CODES[error.code] ?? CniCode.redirectFailed;
}
