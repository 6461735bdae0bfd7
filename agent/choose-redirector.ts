// Which redirection back end serves this node. It is tried, not guessed from a version: what starts is taken.

import os from 'node:os';
import path from 'node:path';
import { HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { FilesystemMagic, filesystemMagic } from '#lib/mount.ts';
import type { AgentConfig } from './config.ts';
import { EbpfRedirector } from './redirect/ebpf.ts';
import type { Redirector } from './redirect/redirector.ts';

const USUAL_BPFFS = '/sys/fs/bpf';

/** Starts the back end. Throws `redirect-unavailable` with the cause and the remedy. */
export function chooseRedirector(config: AgentConfig, cgroupRoot: string, log: Log): Redirector {
  if (config.redirect === 'nftables') {
    throw new HeddleError(
      'redirect-unavailable',
      'redirect by "nftables": expected --redirect=ebpf or auto, this build has no other back end',
    );
  }
  const redirector = new EbpfRedirector({
    bpffsDir: config.bpffsDir ?? defaultBpffs(config.runDir),
    cgroupRoot,
    objectPath: config.bpfObject,
    log,
    ...(config.podsCgroup === null ? {} : { podsCgroup: config.podsCgroup }),
  });
  try {
    redirector.start();
    return redirector;
  } catch (cause) {
    throw new HeddleError(
      'redirect-unavailable',
      `redirect by eBPF on kernel "${os.release()}": expected 5.15 or newer, CAP_BPF and CAP_NET_ADMIN`,
      { cause },
    );
  }
}

function defaultBpffs(runDir: string): string {
  const isMounted = filesystemMagic(USUAL_BPFFS) === FilesystemMagic.bpf;
  return isMounted ? path.join(USUAL_BPFFS, 'heddle') : path.join(runDir, 'bpf');
}
