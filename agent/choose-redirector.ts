// Which redirection back end serves this node: eBPF where it works when tried, else nftables (redirect/probe.ts). What
// an agent before used for its pods is kept, so that no pod is redirected twice.

import path from 'node:path';
import type { Log } from '#lib/log.ts';
import { FilesystemMagic, filesystemMagic } from '#lib/mount.ts';
import type { AgentConfig } from './config.ts';
import { EbpfRedirector } from './redirect/ebpf.ts';
import { NftablesRedirector } from './redirect/nftables.ts';
import { chooseRedirector as chooseWorking } from './redirect/probe.ts';
import type { Redirector } from './redirect/redirector.ts';

const USUAL_BPFFS = '/sys/fs/bpf';

/** Starts the back end. Throws `no-redirection` or `redirect-mixed`, naming what each kind lacks. */
export function chooseRedirector(config: AgentConfig, cgroupRoot: string, log: Log): Redirector {
  const all = redirectors(config, cgroupRoot, log);
  const isWanted = ({ kind }: Redirector) => config.redirect === 'auto' || config.redirect === kind;
  const unwanted = all.filter((redirector) => !isWanted(redirector));
  return chooseWorking(all.filter(isWanted), log, unwanted).redirector;
}

/** Removes redirection of every kind from this node; returns the pods that had it. */
export function uninstallRedirection(config: AgentConfig, cgroupRoot: string, log: Log): string[] {
  return redirectors(config, cgroupRoot, log).flatMap((redirector) => {
    const pods = redirector.attachedPods();
    redirector.uninstall();
    return pods;
  });
}

/** Every kind, the preferred one first. */
function redirectors(config: AgentConfig, cgroupRoot: string, log: Log): Redirector[] {
  return [
    new EbpfRedirector({
      bpffsDir: config.bpffsDir ?? defaultBpffs(config.runDir),
      cgroupRoot,
      objectPath: config.bpfObject,
      log,
      ...(config.podsCgroup === null ? {} : { podsCgroup: config.podsCgroup }),
    }),
    new NftablesRedirector({ stateDir: path.join(config.runDir, 'nftables'), log }),
  ];
}

function defaultBpffs(runDir: string): string {
  const isMounted = filesystemMagic(USUAL_BPFFS) === FilesystemMagic.bpf;
  return isMounted ? path.join(USUAL_BPFFS, 'heddle') : path.join(runDir, 'bpf');
}
