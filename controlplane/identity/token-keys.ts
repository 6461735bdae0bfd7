// The public keys of a directory installation's token issuer, reloaded when their file changes: keys are exchanged by
// putting both in the file for as long as tokens of the old one live.

import type { KeyObject } from 'node:crypto';
import type { Clock } from '#lib/clock.ts';
import { describeError, HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { FileWatch } from './file-watch.ts';
import { parsePublicKeys } from './jwt.ts';

export class TokenKeys {
  readonly #watch: FileWatch<'keys'>;
  #keys: readonly KeyObject[] | null = null;

  constructor(options: { path: string; intervalMs: number; clock: Clock; log: Log }) {
    const { path, intervalMs, clock, log } = options;
    const report = (error: unknown): void => log.warn('token keys not loaded', { path, reason: describeError(error) });
    this.#watch = new FileWatch({
      paths: { keys: path },
      intervalMs,
      clock,
      onChange: (files) => {
        try {
          this.#keys = parsePublicKeys(files.keys, path);
          log.info('token keys loaded', { path, keys: this.#keys.length });
        } catch (error) {
          report(error);
        }
      },
      onError: report,
    });
  }

  /** Throws `token-key` while no file could be read: a review cannot be done then, which is not the token's fault. */
  get(): readonly KeyObject[] {
    if (this.#keys) return this.#keys;
    throw new HeddleError('token-key', 'review the token: expected the public keys of the token issuer to be loaded');
  }

  async start(): Promise<void> {
    await this.#watch.start();
  }

  close(): void {
    this.#watch.close();
  }
}
