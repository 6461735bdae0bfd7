// Which redirection back end serves this node: what works when it is tried (redirect/probe.ts). What an agent before
// used comes first, so that a restart changes nothing; two kinds are never left in one pod.

import path from 'node:path';
import type { Log } from '#lib/log.ts';
import { FilesystemMagic, filesystemMagic } from '#lib/mount.ts';
import type { AgentConfig } from './config.ts';
import { EbpfRedirector } from './redirect/ebpf.ts';
import { NftablesRedirector } from './redirect/nftables.ts';
import { chooseRedirector as chooseWorking } from './redirect/probe.ts';
import type { Redirector } from './redirect/redirector.ts';

const USUAL_BPFFS = '/sys/fs/bpf';

export interface ChosenRedirector {
  redirector: Redirector;
  /** Why the kinds before it were not taken, for people. */
  rejected: string[];
  /** Takes away what another kind left on this node. Call when all pods are attached to the chosen one. */
  removeOthers(): void;
}

/** Starts the back end. Throws `no-redirection` naming what each kind lacks. */
export function chooseRedirector(config: AgentConfig, cgroupRoot: string, log: Log): ChosenRedirector {
  const ebpf = new EbpfRedirector({
    bpffsDir: config.bpffsDir ?? defaultBpffs(config.runDir),
    cgroupRoot,
    objectPath: config.bpfObject,
    log,
    ...(config.podsCgroup === null ? {} : { podsCgroup: config.podsCgroup }),
  });
  const nftables = new NftablesRedirector({ stateDir: path.join(config.runDir, 'nftables'), log });
  const candidates: Redirector[] = nftables.attachedPods().length > 0 ? [nftables, ebpf] : [ebpf, nftables];
  const wanted = candidates.filter(({ kind }) => config.redirect === 'auto' || config.redirect === kind);
  const { redirector, rejected } = chooseWorking(wanted, log);
  return {
    redirector,
    rejected: rejected.map(({ kind, reason }) => `${kind}: ${reason.message}`),
    removeOthers: () => {
      for (const other of [ebpf, nftables]) if (other !== redirector) other.uninstall();
    },
  };
}

function defaultBpffs(runDir: string): string {
  const isMounted = filesystemMagic(USUAL_BPFFS) === FilesystemMagic.bpf;
  return isMounted ? path.join(USUAL_BPFFS, 'heddle') : path.join(runDir, 'bpf');
}
