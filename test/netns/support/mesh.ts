// Pods that are redirected, with everything a redirection test needs around them: a redirector with pins of its own, a
// cgroup of its own, a pod's listeners and its relay.

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { closeListeners, identifyNetns, type Listeners, openListeners } from '#agent/netns.ts';
import { findCgroupRoot } from '#agent/redirect/cgroup-root.ts';
import { EbpfRedirector } from '#agent/redirect/ebpf.ts';
import type { ListenOn, Redirector, RedirectPlan, RedirectTarget } from '#agent/redirect/redirector.ts';
import { silentLog } from '#lib/log.ts';
import type { Place } from './network.ts';
import { Relay, type RelayOptions } from './relay.ts';

export const OBJECT_PATH = path.resolve('build/bpf/heddle.bpf.o');

export const PLAN: RedirectPlan = {
  inbound: true,
  outbound: true,
  failOpen: false,
  skipInboundPorts: [],
  skipOutboundPorts: [],
  skipOutboundCidrs: [],
  skipInboundCidrs: [],
};

/** The first worker uid of tests; nobody's on the machine. */
export const WORKER_UID = 65_536;

let made = 0;

/** Directories and cgroups of one test file; `label` as in network.ts. */
export class Ground {
  readonly directory: string;
  readonly bpffsDir: string;
  readonly cgroupRoot: string;
  readonly #cgroups: string[] = [];
  readonly #label: string;
  readonly #redirectors: EbpfRedirector[] = [];

  constructor(label: string) {
    execFileSync('make', ['-s', 'build/bpf/heddle.bpf.o'], { stdio: ['ignore', 'ignore', 'inherit'] });
    this.#label = label;
    this.directory = mkdtempSync(path.join(os.tmpdir(), `${label}-`));
    this.bpffsDir = path.join(this.directory, 'bpf');
    this.cgroupRoot = findCgroupRoot(path.join(this.directory, 'cgroup2'));
  }

  /** A started redirector on this ground's pins; several may follow each other, as agents do. */
  redirector(bpffsDir = this.bpffsDir): EbpfRedirector {
    const redirector = new EbpfRedirector({
      bpffsDir,
      cgroupRoot: this.cgroupRoot,
      objectPath: OBJECT_PATH,
      log: silentLog,
    });
    this.#redirectors.push(redirector);
    redirector.start();
    return redirector;
  }

  /** A new cgroup2 directory. */
  cgroup(name: string, parent = this.cgroupRoot): string {
    const directory = path.join(parent, parent === this.cgroupRoot ? `${this.#label}-${process.pid}-${name}` : name);
    mkdirSync(directory);
    this.#cgroups.push(directory);
    return directory;
  }

  removeCgroup(directory: string): void {
    rmdirSync(directory);
    this.#cgroups.splice(this.#cgroups.indexOf(directory), 1);
  }

  /** Everything away; processes must have ended. */
  close(): void {
    for (const redirector of this.#redirectors) redirector.uninstall();
    for (const cgroup of this.#cgroups.reverse()) rmdirSync(cgroup);
    rmSync(this.directory, { recursive: true });
  }
}

export function uidOf(place: Place): string {
  return `uid-${place.name}`;
}

/** A pod ready to be attached. Slots are counted up. */
export function makeTarget(
  place: Place,
  plan: Partial<RedirectPlan> = {},
  listenOn: ListenOn = 'loopback',
): RedirectTarget {
  const { inode, cookie } = identifyNetns(place.netnsFd);
  const slot = made++;
  return {
    podUid: uidOf(place),
    netnsFd: place.netnsFd,
    netnsInode: inode,
    netnsCookie: cookie,
    slot,
    ips: [place.ipv4, place.ipv6],
    listeners: openListeners(place.netnsFd, listenOn),
    plan: { ...PLAN, ...plan },
  };
}

/** A pod that is redirected to a relay. */
export class MeshedPod {
  readonly target: RedirectTarget;
  readonly redirector: Redirector;
  readonly place: Place;
  relay: Relay;

  /** Exempts by cgroup when one is given, else by process. */
  static async start(
    redirector: Redirector,
    place: Place,
    options: { plan?: Partial<RedirectPlan>; relay?: Partial<RelayOptions>; isExempt?: boolean } = {},
  ): Promise<MeshedPod> {
    const target = makeTarget(place, options.plan, redirector.listenOn);
    const relay = await startRelay(redirector, place, target.listeners, options);
    try {
      redirector.attach(target);
    } catch (error) {
      await relay.stop();
      throw error;
    }
    return new MeshedPod(redirector, place, target, relay);
  }

  private constructor(redirector: Redirector, place: Place, target: RedirectTarget, relay: Relay) {
    this.redirector = redirector;
    this.place = place;
    this.target = target;
    this.relay = relay;
  }

  /** Where connections went since the start, oldest first: `outbound4 10.0.0.1:80`. */
  async destinations(): Promise<string[]> {
    const { destinations } = await this.relay.report();
    return destinations.map(({ name, address, port }) => `${name} ${address}:${port}`);
  }

  async stop(): Promise<void> {
    this.redirector.detach(this.target);
    await this.relay.stop();
    closeListeners(this.target.listeners);
  }
}

export function startRelay(
  redirector: Redirector,
  place: Place,
  listeners: Readonly<Listeners>,
  options: { relay?: Partial<RelayOptions>; isExempt?: boolean } = {},
): Promise<Relay> {
  const { relay = {}, isExempt = true } = options;
  return Relay.start(place, listeners, {
    uid: WORKER_UID,
    ...relay,
    beforeReady: (pid) => {
      if (isExempt) redirector.exempt({ podUid: uidOf(place), pid, cgroupPath: relay.cgroup ?? null });
    },
  });
}
