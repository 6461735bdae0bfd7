// One pod from sandbox to end: network namespace, CNI, init containers one after another, containers side by side,
// readiness, and a status that says where it is. What the kubelet does, for pods that run on this machine's programs.

import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Container, Pod, PodStatus } from '#kube/resources.ts';
import type { PodStatusWriter } from '#kube/status.ts';
import { Backoff } from '#lib/backoff.ts';
import { describeError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { ContainerCgroup } from './cgroup.ts';
import type { PodNetwork } from './cni.ts';
import { runCommand } from './command.ts';
import { type ContainerEnvironment, RunningContainer } from './container.ts';
import { ReadinessProbe, targetOf } from './probe.ts';

export interface PodEnvironment {
  nodeName: string;
  network: PodNetwork;
  status: PodStatusWriter;
  /** Directory of what pods leave while they run; each has one of its own below. */
  stateDir: string;
  /** cgroup2 directory under which pods have theirs; null where there is no cgroup2. */
  cgroupDir: string | null;
  resolvConf: (pod: Pod) => string;
  programs: string;
  path: string;
  log: Log;
}

const SANDBOX_RETRY = { minMs: 200, maxMs: 5000, jitter: 0.2 };
const STOP_GRACE_MS = 5000;
const NETNS_TIMEOUT_MS = 10_000;
/** The state a pod is in, as the kubelet's phases and one condition. */
type Phase = NonNullable<PodStatus['phase']>;

export class PodRunner {
  readonly pod: Pod;
  readonly #environment: PodEnvironment;
  readonly #log: Log;
  readonly #directory: string;
  readonly #containers: RunningContainer[] = [];
  readonly #cgroups: ContainerCgroup[] = [];
  readonly #probes: ReadinessProbe[] = [];
  readonly #notReady = new Set<string>();
  #ips: string[] = [];
  #phase: Phase = 'Pending';
  #lastError = '';
  #isStopping = false;
  #hasNetns = false;
  #wake: (() => void) | null = null;
  #running: Promise<void> = Promise.resolve();

  constructor(pod: Pod, environment: PodEnvironment) {
    this.pod = pod;
    this.#environment = environment;
    this.#directory = path.join(environment.stateDir, pod.metadata.uid ?? pod.metadata.name);
    this.#log = environment.log.child({ pod: this.name });
  }

  get name(): string {
    return `${this.pod.metadata.namespace ?? 'default'}/${this.pod.metadata.name}`;
  }

  get isReady(): boolean {
    return this.#phase === 'Running' && this.#notReady.size === 0;
  }

  get ips(): readonly string[] {
    return this.#ips;
  }

  /** The last line that its first container wrote. */
  lastOutput(): string | undefined {
    const name = this.pod.spec.containers[0]?.name;
    return this.#containers.find((container) => container.name === name)?.output.last(1)[0];
  }

  /** Why the pod is not ready, for people. */
  get trouble(): string {
    const tails = this.#containers.flatMap(({ name, output }) => output.last(3).map((line) => `${name}: ${line}`));
    return [this.#lastError, `phase ${this.#phase}`, ...tails].filter(Boolean).join('\n    ');
  }

  /** Begins; everything that goes wrong is tried again until `stop`. */
  start(): void {
    this.#running = this.#run().catch((error: unknown) => {
      this.#lastError = describeError(error);
      this.#log.error('pod failed', { error });
    });
  }

  /** Ends the containers, then the network, then forgets the pod. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#wake?.();
    for (const probe of this.#probes) probe.close();
    await Promise.all(this.#containers.map((container) => container.stop(STOP_GRACE_MS)));
    await this.#running;
    await this.#removeSandbox();
    // A cgroup whose last process just ended may be busy for a moment; the demo removes what is left in the end.
    for (const cgroup of this.#cgroups) cgroup.remove();
    await this.#environment.status.remove({
      namespace: this.pod.metadata.namespace ?? 'default',
      name: this.pod.metadata.name,
    });
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #run(): Promise<void> {
    mkdirSync(this.#directory, { recursive: true });
    await this.#report();
    if (!(await this.#createSandbox()) || this.#isStopping) return;
    await this.#report();
    const policy = this.pod.spec.restartPolicy ?? 'Always';
    for (const container of this.pod.spec.initContainers ?? []) {
      if (this.#isStopping) return;
      const status = await this.#make(container).run((code) => code !== 0 && policy !== 'Never');
      if (status !== 0 && !this.#isStopping) return await this.#finish('Failed');
    }
    if (this.#isStopping) return;
    this.#phase = 'Running';
    this.#watchReadiness();
    const shouldRestart = (code: number): boolean => policy === 'Always' || (policy === 'OnFailure' && code !== 0);
    // Not awaited: from the check above to the start of the containers, stop() must find no gap.
    this.#reportSoon();
    const statuses = await Promise.all(
      this.pod.spec.containers.map((container) => this.#make(container).run(shouldRestart)),
    );
    if (!this.#isStopping) await this.#finish(statuses.every((code) => code === 0) ? 'Succeeded' : 'Failed');
  }

  /** The namespace wired by CNI; on failure taken down and tried again, as the kubelet does. False when stopped. */
  async #createSandbox(): Promise<boolean> {
    if (this.pod.spec.hostNetwork) return true;
    const backoff = new Backoff(SANDBOX_RETRY);
    while (!this.#isStopping) {
      try {
        await this.#createNetns();
        this.#ips = await this.#environment.network.add(this.pod, this.#netns);
        return true;
      } catch (error) {
        this.#lastError = describeError(error);
        this.#log.warn('sandbox failed', { error: this.#lastError });
        await this.#removeSandbox();
      }
      await this.#sleep(backoff.next());
    }
    return false;
  }

  async #createNetns(): Promise<void> {
    writeFileSync(this.#netns, '');
    await runCommand(['unshare', `--net=${this.#netns}`, 'ip', 'link', 'set', 'lo', 'up'], {
      timeoutMs: NETNS_TIMEOUT_MS,
    });
    this.#hasNetns = true;
  }

  /** Each step is tried whatever became of the one before: a namespace must not outlive its pod. */
  async #removeSandbox(): Promise<void> {
    if (!this.#hasNetns) return;
    await this.#environment.network
      .del(this.pod, this.#netns)
      .catch((error: unknown) => this.#log.warn('network was not removed', { error: describeError(error) }));
    await runCommand(['umount', this.#netns], { timeoutMs: NETNS_TIMEOUT_MS }).catch((error: unknown) =>
      this.#log.warn('namespace was not unmounted', { error: describeError(error) }),
    );
    rmSync(this.#netns, { force: true });
    this.#hasNetns = false;
    this.#ips = [];
  }

  get #netns(): string {
    return path.join(this.#directory, 'netns');
  }

  #make(container: Container): RunningContainer {
    const { cgroupDir, programs, path: search, stateDir } = this.#environment;
    const cgroup = new ContainerCgroup(
      path.join(cgroupDir ?? path.join(stateDir, 'no-cgroups'), this.pod.metadata.uid ?? '', container.name),
    );
    const environment: ContainerEnvironment = {
      netns: this.pod.spec.hostNetwork ? null : this.#netns,
      hostname: this.pod.spec.hostname ?? this.pod.metadata.name,
      resolvConf: this.#write('resolv.conf', this.#environment.resolvConf(this.pod)),
      hosts: this.#write('hosts', `127.0.0.1 localhost\n${this.#ips[0] ?? '127.0.0.1'} ${this.pod.metadata.name}\n`),
      programs,
      path: search,
      env: {},
    };
    const running = new RunningContainer({
      container,
      environment,
      cgroup,
      onLine: (line) => this.#log.debug('output', { container: container.name, line }),
    });
    this.#cgroups.push(cgroup);
    this.#containers.push(running);
    return running;
  }

  #write(name: string, text: string): string {
    const file = path.join(this.#directory, name);
    writeFileSync(file, text);
    return file;
  }

  #watchReadiness(): void {
    for (const container of this.pod.spec.containers) {
      const probe = container.readinessProbe;
      const target = probe && targetOf(probe, container);
      if (!target) continue;
      this.#notReady.add(container.name);
      this.#probes.push(
        new ReadinessProbe({
          host: this.#ips[0] ?? '127.0.0.1',
          probe,
          target,
          onChange: (isReady) => {
            if (isReady) this.#notReady.delete(container.name);
            else this.#notReady.add(container.name);
            this.#reportSoon();
          },
        }),
      );
    }
  }

  async #finish(phase: 'Succeeded' | 'Failed'): Promise<void> {
    this.#phase = phase;
    for (const probe of this.#probes) probe.close();
    await this.#report();
  }

  #reportSoon(): void {
    this.#report().catch((error: unknown) => this.#log.error('status was not written', { error }));
  }

  async #report(): Promise<void> {
    if (this.#isStopping) return;
    const { name, namespace = 'default' } = this.pod.metadata;
    const isReady = this.isReady ? 'True' : 'False';
    const [podIP] = this.#ips;
    await this.#environment.status.write(
      { namespace, name },
      {
        nodeName: this.#environment.nodeName,
        status: {
          phase: this.#phase,
          conditions: [
            { type: 'Ready', status: isReady },
            { type: 'ContainersReady', status: isReady },
          ],
          ...(podIP === undefined ? {} : { podIP, podIPs: this.#ips.map((ip) => ({ ip })) }),
        },
      },
    );
  }

  async #sleep(ms: number): Promise<void> {
    if (this.#isStopping) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = null;
  }
}
