// What every redirection back end can do. One is chosen per node at start by probing; two are never mixed in one pod.

import type { ListenerName } from '#api/worker-link.ts';

/** What to redirect in one pod; the result of plan.ts. */
export interface RedirectPlan {
  inbound: boolean;
  outbound: boolean;
  /** Where an empty listener slot lets traffic through instead of refusing it. */
  failOpen: boolean;
  skipInboundPorts: readonly PortRange[];
  skipOutboundPorts: readonly PortRange[];
  /** Destinations that leave the pod untouched. */
  skipOutboundCidrs: readonly string[];
  /** Sources whose connections reach the application untouched. */
  skipInboundCidrs: readonly string[];
}

export interface PortRange {
  from: number;
  to: number;
}

/** A pod to redirect. The descriptors stay the caller's. */
export interface RedirectTarget {
  podUid: string;
  /** An open descriptor of the pod's network namespace. */
  netnsFd: number;
  netnsInode: bigint;
  netnsCookie: bigint;
  /** Unique per pod on the node, 0..POD_SLOTS_MAX-1. */
  slot: number;
  ips: readonly string[];
  listeners: Readonly<Record<ListenerName, number>>;
  plan: RedirectPlan;
}

/** What differs: programs or rules, listening sockets, the namespace, the worker's life, or all seems well but is not. */
export const DRIFT_KINDS = ['bpf', 'listener', 'netns', 'worker', 'canary'] as const;
export type DriftKind = (typeof DRIFT_KINDS)[number];

export interface Drift {
  kind: DriftKind;
  /** Names the object and how it differs, for people. */
  cause: string;
}

/** Loopback, where nothing reaches a listener that is not steered to it, or all addresses of the pod. */
export type ListenOn = 'loopback' | 'any';

/** A redirection back end. All methods are idempotent; errors are HeddleError with the remedy in the message. */
export interface Redirector {
  readonly kind: 'ebpf' | 'nftables';
  /** Where the pod's listeners must be; known after start(). */
  readonly listenOn: ListenOn;
  /** Loads programs or re-uses those of an agent before, and attaches what is shared by the node. */
  start(): void;
  /** Redirects the pod; from the return on, no new connection bypasses the worker. Undoes itself when it fails. */
  attach(target: RedirectTarget): void;
  /**
   * Stops redirecting; tolerates namespaces that are gone. The pod is found by its UID; with a cookie other than 0 only
   * that sandbox of it is meant. Slot and addresses may be anything.
   */
  detach(target: Pick<RedirectTarget, 'podUid'> & Partial<RedirectTarget>): void;
  /** Puts other listening sockets into the pod's slots, atomically per socket. */
  replaceListeners(target: RedirectTarget): void;
  /** The worker's own connections are left alone from now on. Call before it makes any. */
  exempt(worker: WorkerProcess): void;
  unexempt(worker: WorkerProcess): void;
  /** What is not as `attach` left it; empty when all is well. */
  verify(target: RedirectTarget): Drift[];
  /** Pods that this or an earlier agent attached; may be asked before start(). */
  attachedPods(): string[];
  /** Totals since the programs were loaded, by outcome. */
  counters(): Record<string, bigint>;
  /** Closes descriptors. What is attached stays attached. */
  close(): void;
  /** Detaches everything from the node and removes the pins: for uninstall only. */
  uninstall(): void;
}

export interface WorkerProcess {
  podUid: string;
  pid: number;
  /** Absolute path of its cgroup2 directory; null where only cgroup v1 serves. */
  cgroupPath: string | null;
}

/** Bound of `slot`; the size of the kernel maps follows from it. */
export const POD_SLOTS_MAX = 1024;
/** The slot of the probe, behind those of pods. */
export const PROBE_SLOT = POD_SLOTS_MAX;
