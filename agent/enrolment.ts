// One sandbox and what the agent made of it: the open namespace, the listeners, the worker, the redirection. Each step
// is idempotent; the order is what keeps traffic from bypassing the worker or reaching none:
//   join   listeners, worker ready, redirection        leave   redirection, worker drained, listeners

import type { WorkerConfig } from '#api/worker-config.ts';
import { LISTENER_NAMES } from '#api/worker-link.ts';
import type { Clock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { close, duplicate } from '#lib/libc.ts';
import type { Log } from '#lib/log.ts';
import { isListening } from '#lib/tcp-socket.ts';
import { type CanaryResult, sendCanary } from './canary.ts';
import { podName } from './desired.ts';
import { isFileName } from './files.ts';
import {
  closeListeners,
  identifyNetns,
  type Listeners,
  type NetnsIdentity,
  openListeners,
  openNetns,
} from './netns.ts';
import type { Drift, Redirector, RedirectPlan, RedirectTarget } from './redirect/redirector.ts';
import type { Sandbox } from './sandboxes.ts';
import { findFoundlings, PodHost, purgeWorkers, type WorkerServices } from './worker/pod-host.ts';
import { PodWorker } from './worker/supervisor.ts';

export type EnrolmentState = 'unmeshed' | 'pending' | 'meshed' | 'leaving';

export interface EnrolmentServices {
  workers: WorkerServices;
  redirector: Redirector;
  clock: Clock;
  log: Log;
}

interface Members {
  identity: NetnsIdentity;
  listeners: Listeners;
  host: PodHost;
  worker: PodWorker;
}

export class Enrolment {
  readonly sandbox: Sandbox;
  readonly #services: EnrolmentServices;
  readonly #netnsFd: number;
  readonly #log: Log;
  state: EnrolmentState = 'unmeshed';
  /** Why the pod is as it is, for people. */
  reason = '';
  /** Annotations of the pod or its namespace that could not be read. */
  problems: readonly string[] = [];
  /** What differed at the last look. */
  drifts: readonly Drift[] = [];
  /** Of the last look; null where none was sent or it could not tell. */
  lastCanary: CanaryResult | null = null;
  /** Canaries in a row that vanished. */
  silentCanaries = 0;
  #members: Members | null = null;
  #attached: RedirectTarget | null = null;
  #config = '';
  #canaries = 0;

  /**
   * Takes `netnsFd` (kept by a copy) or opens the sandbox's path. Throws `netns-missing` when the namespace is gone,
   * `netns-mismatch` when the path leads to another one by now, and `bad-pod-uid` for what names no directory.
   */
  constructor(sandbox: Sandbox, netnsFd: number | null, services: EnrolmentServices) {
    if (!isFileName(sandbox.pod.uid)) {
      throw new HeddleError(
        'bad-pod-uid',
        `enrol pod "${podName(sandbox)}" with UID "${sandbox.pod.uid}": expected one`,
      );
    }
    this.sandbox = sandbox;
    this.#services = services;
    this.#log = services.log.child({ pod: podName(sandbox) });
    this.#netnsFd = netnsFd === null ? openNetns(sandbox.netnsPath) : duplicate(netnsFd);
    try {
      const { inode, cookie } = identifyNetns(this.#netnsFd);
      // Inodes are used again, also for a namespace of the same name: what an agent before knew must be this very one.
      sandbox.netnsCookie ??= String(cookie);
      if (String(inode) !== sandbox.netnsInode || String(cookie) !== sandbox.netnsCookie) {
        const { netnsInode, netnsCookie } = sandbox;
        throw new HeddleError(
          'netns-mismatch',
          `open the namespace of pod "${podName(sandbox)}": expected inode "${netnsInode}" and cookie "${netnsCookie}", found "${inode}" and "${cookie}"`,
        );
      }
    } catch (error) {
      close(this.#netnsFd);
      throw error;
    }
  }

  /** Removes what was made for a sandbox whose namespace is gone. */
  static async purge(
    sandbox: Sandbox,
    { redirector, workers }: Pick<EnrolmentServices, 'redirector' | 'workers'>,
  ): Promise<void> {
    const { slot, pod, ips } = sandbox;
    if (slot === null) return;
    redirector.detach({ podUid: pod.uid, netnsCookie: 0n, slot, ips });
    await purgeWorkers(pod.uid, workers);
  }

  get worker(): PodWorker | null {
    return this.#members?.worker ?? null;
  }

  get isAttached(): boolean {
    return this.#attached !== null;
  }

  get plan(): RedirectPlan | null {
    return this.#attached?.plan ?? null;
  }

  /**
   * Makes the pod meshed as described, starting what is missing and changing what differs. Resolves when its worker is
   * ready and its traffic redirected. Throws what the failing step threw; what was made stays for the next try.
   */
  async join(config: WorkerConfig, plan: RedirectPlan, readyTimeoutMs: number): Promise<void> {
    if (!this.#attached) this.state = 'pending';
    this.#members ??= this.#startWorker(config, openListeners(this.#netnsFd, this.#services.redirector.listenOn), null);
    this.#configure(config);
    if (!this.#attached) {
      const { worker } = this.#members;
      await worker.whenReady(readyTimeoutMs);
      // A leave may have come while the worker started.
      if (this.#members?.worker !== worker) throw new HeddleError('pod-left', 'join the mesh: the pod left meanwhile');
    }
    this.#attach(plan);
    this.state = 'meshed';
    this.reason = '';
  }

  /**
   * After a restart of the agent: takes over the worker that runs, or starts one on new listeners. Redirection is made
   * anew at once, before any worker is ready: it may be in force still, and then connections wait instead of failing.
   */
  async restore(config: WorkerConfig, plan: RedirectPlan): Promise<'adopted' | 'started'> {
    const { sandbox } = this;
    const pod = { uid: sandbox.pod.uid, name: podName(sandbox), slot: sandbox.slot!, netnsFd: this.#netnsFd };
    const found = await findFoundlings(pod, this.#services.workers);
    const listeners = found?.listeners ?? openListeners(this.#netnsFd, this.#services.redirector.listenOn);
    this.#members = this.#startWorker(config, listeners, found);
    this.#configure(config);
    this.state = 'pending';
    this.#attach(plan);
    this.state = 'meshed';
    return found ? 'adopted' : 'started';
  }

  /** What is not as `join` left it; empty for a pod that is not meshed. Takes at most as long as a canary. */
  async verify(): Promise<Drift[]> {
    const { worker } = this;
    const attached = this.#attached;
    this.lastCanary = null;
    if (!attached || !worker) {
      this.drifts = [];
      return [];
    }
    const drifts = this.#services.redirector.verify(attached);
    if (worker.state !== 'ready') drifts.push({ kind: 'worker', cause: worker.reason || `worker is ${worker.state}` });
    else if (worker.pingsMissed > 0) drifts.push({ kind: 'worker', cause: 'worker does not answer' });
    else drifts.push(...(await this.#verifyByCanary(attached.plan, worker)));
    // Whoever left or changed meanwhile is looked at the next time.
    if (this.#attached !== attached) drifts.length = 0;
    this.drifts = drifts;
    return drifts;
  }

  async #verifyByCanary(plan: RedirectPlan, worker: PodWorker): Promise<Drift[]> {
    const { current } = worker;
    if (!current) return [];
    const families = [...new Set(this.sandbox.ips.map((ip) => (ip.includes(':') ? 6 : 4)))] as (4 | 6)[];
    const family = families[this.#canaries++ % families.length] ?? 4;
    const result = await sendCanary({ netnsFd: this.#netnsFd, plan, family, process: current });
    // While one worker takes over from another, either may get it; and one that hangs is the pings' to find.
    const isCertain = worker.current === current && worker.processes().length === 1 && worker.pingsMissed === 0;
    if (result.kind === 'failed' && !isCertain) return [];
    this.lastCanary = result;
    this.silentCanaries = result.kind === 'failed' && result.isSilent ? this.silentCanaries + 1 : 0;
    return result.kind === 'failed' ? [{ kind: 'canary', cause: result.cause }] : [];
  }

  /** Puts redirection and listeners back as they should be. */
  repair(): void {
    const { listeners } = this.#members ?? {};
    if (!this.#attached || !listeners) return;
    if (LISTENER_NAMES.every((name) => isListening(listeners[name]))) this.#services.redirector.attach(this.#attached);
    else this.#renewListeners();
  }

  /** Another worker on the same listeners; the present one finishes its connections. */
  replaceWorker(): void {
    this.silentCanaries = 0;
    this.worker?.replace();
  }

  /** A socket that was shut does not listen again: connections wait in new ones until the next worker takes them. */
  #renewListeners(): void {
    const members = this.#members!;
    const before = members.listeners;
    const listeners = openListeners(this.#netnsFd, this.#services.redirector.listenOn);
    const attached = { ...this.#attached!, listeners };
    try {
      this.#services.redirector.attach(attached);
    } catch (error) {
      closeListeners(listeners);
      throw error;
    }
    this.#attached = attached;
    members.listeners = listeners;
    members.host.useListeners(listeners);
    closeListeners(before);
    members.worker.replace();
  }

  /** Takes the pod out of the mesh: new connections go direct from here on, open ones have `graceMs`. */
  async leave(graceMs: number): Promise<void> {
    const members = this.#members;
    this.#detach();
    this.#members = null;
    this.#config = '';
    this.drifts = [];
    this.silentCanaries = 0;
    if (!members) {
      // Of an agent before, and never taken over.
      if (this.sandbox.slot !== null) await purgeWorkers(this.sandbox.pod.uid, this.#services.workers);
      this.state = 'unmeshed';
      return;
    }
    this.state = 'leaving';
    await members.worker.stop(graceMs);
    closeListeners(members.listeners);
    members.host.dispose();
    this.state = 'unmeshed';
  }

  /** Ends waiting for the worker, so that a `join` under way fails soon. */
  abort(): void {
    this.worker?.failWaiters('the sandbox is being removed');
  }

  /** Closes descriptors. Worker and redirection go on: for an agent that exits, or for an unmeshed pod. */
  release(): void {
    if (this.#members) {
      this.#members.worker.release();
      this.#members.host.release();
      closeListeners(this.#members.listeners);
      this.#members = null;
    }
    close(this.#netnsFd);
  }

  #startWorker(config: WorkerConfig, listeners: Listeners, found: Awaited<ReturnType<typeof findFoundlings>>): Members {
    const { sandbox } = this;
    const { workers, clock } = this.#services;
    const pod = {
      uid: sandbox.pod.uid,
      name: podName(sandbox),
      slot: sandbox.slot!,
      netnsFd: this.#netnsFd,
      listeners,
    };
    try {
      const identity = identifyNetns(this.#netnsFd);
      const host = new PodHost(pod, workers);
      const worker = new PodWorker({ host, clock, log: this.#log, drainGraceMs: config.drainGraceMs });
      host.processes = () => worker.processes();
      if (found) worker.adopt(host.adopt(found), config);
      else worker.start(config);
      return { identity, listeners, host, worker };
    } catch (error) {
      // Nobody else knows them yet, and the next try opens its own.
      closeListeners(listeners);
      throw error;
    }
  }

  #configure(config: WorkerConfig): void {
    const text = JSON.stringify(config);
    if (text === this.#config) return;
    this.#config = text;
    this.#members!.worker.configure(config);
  }

  #attach(plan: RedirectPlan): void {
    const { identity, listeners } = this.#members!;
    const target: RedirectTarget = {
      podUid: this.sandbox.pod.uid,
      netnsFd: this.#netnsFd,
      netnsInode: identity.inode,
      netnsCookie: identity.cookie,
      slot: this.sandbox.slot!,
      ips: this.sandbox.ips,
      listeners,
      plan,
    };
    if (this.#attached && JSON.stringify(this.#attached.plan) === JSON.stringify(plan)) return;
    this.#services.redirector.attach(target);
    this.#attached = target;
  }

  #detach(): void {
    const { slot, pod, ips } = this.sandbox;
    if (slot === null) return;
    const netnsCookie = this.#attached?.netnsCookie ?? identifyNetns(this.#netnsFd).cookie;
    this.#services.redirector.detach({ podUid: pod.uid, netnsCookie, slot, ips });
    this.#attached = null;
  }
}
