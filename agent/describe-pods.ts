// What `/debug/pods` tells of each sandbox. For people and for the command line; no secrets.

import type { Enrolment } from './enrolment.ts';
import type { Redirector } from './redirect/redirector.ts';

export interface PodDescription {
  namespace: string;
  name: string;
  uid: string;
  containerId: string;
  ips: string[];
  netnsInode: string;
  state: string;
  /** Why the pod is as it is; empty for a meshed pod that works. */
  reason: string;
  problems: readonly string[];
  /** What differed at the last look, `kind: cause`. */
  drift: string[];
  /** The back end that redirects the pod; null when none does. */
  redirect: Redirector['kind'] | null;
  slot: number | null;
  worker: {
    state: string;
    pid: number | null;
    version: string | null;
    generation: number;
    restarts: number;
    connections: number;
    certificateExpires: number;
    /** Processes that were replaced and finish their connections. */
    draining: number[];
  } | null;
}

export function describePods(enrolments: readonly Enrolment[], redirect: Redirector['kind']): PodDescription[] {
  return enrolments.map((enrolment) => {
    const { sandbox, worker } = enrolment;
    const { namespace, name, uid } = sandbox.pod;
    const current = worker?.current ?? null;
    return {
      namespace,
      name,
      uid,
      containerId: sandbox.containerId,
      ips: sandbox.ips,
      netnsInode: sandbox.netnsInode,
      state: enrolment.state,
      reason: enrolment.reason || (worker?.reason ?? ''),
      problems: enrolment.problems,
      drift: enrolment.drifts.map(({ kind, cause }) => `${kind}: ${cause}`),
      redirect: enrolment.isAttached ? redirect : null,
      slot: sandbox.slot,
      worker: worker && {
        state: worker.state,
        pid: current?.pid ?? null,
        version: current?.version ?? null,
        generation: worker.generation,
        restarts: worker.restarts,
        connections: current?.state?.connections ?? 0,
        certificateExpires: current?.state?.certificateExpires ?? 0,
        draining: worker
          .processes()
          .filter((process) => process !== current)
          .map(({ pid }) => pid),
      },
    };
  });
}
