// Running nft inside a pod's namespace: the thread enters it, the child is born there, the thread returns.

import { spawnSync } from 'node:child_process';
import { HeddleError } from '#lib/errors.ts';
import { isErrno } from '#lib/libc.ts';
import { inNetns } from '../netns.ts';

const NFT_TIMEOUT_MS = 10_000;
const OUTPUT_BYTES_MAX = 4 * 1024 * 1024;

/** Runs nft with `args` and `input` in the namespace; returns what it printed, throws what it said when it fails. */
export function runNft(netnsFd: number, args: readonly string[], input = ''): string {
  const options = { input, encoding: 'utf8', timeout: NFT_TIMEOUT_MS, maxBuffer: OUTPUT_BYTES_MAX } as const;
  const result = inNetns(netnsFd, () => {
    const first = spawnSync('nft', args, options);
    // Debian keeps it where only root's login shell looks.
    return isErrno(first.error, 'ENOENT') ? spawnSync('/usr/sbin/nft', args, options) : first;
  });
  if (result.error) {
    throw new HeddleError('nft-missing', 'run "nft": expected it in PATH or /usr/sbin', { cause: result.error });
  }
  if (result.status !== 0) {
    const said = result.stderr.trim().split('\n')[0] ?? '';
    throw new HeddleError(
      'nft-failed',
      `run "nft ${args.join(' ')}": expected nftables with nat and CAP_NET_ADMIN; nft says "${said}"`,
    );
  }
  return result.stdout;
}

/** Applies a script in one transaction. */
export function applyNft(netnsFd: number, script: string): void {
  runNft(netnsFd, ['-f', '-'], script);
}
