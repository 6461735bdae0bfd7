// The bundle of trust anchors as it is on disk, looked at every few seconds: Kubernetes replaces the directory behind
// it by a link, which no file watch tells of reliably. A bundle that holds no certificate is not taken.

import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Clock, Timer } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';

const LOOK_MS = 2_000;
const BUNDLE_BYTES_MAX = 1024 * 1024;

export class TrustAnchors {
  readonly #file: string;
  readonly #clock: Clock;
  readonly #log: Log;
  #pem: string;
  #fault = '';
  #timer: Timer | null = null;
  /** Called when the bundle changed. */
  onChange: () => void = () => {};

  /** Reads the bundle. Throws `bad-trust-anchors` when there is none. */
  constructor(options: { file: string; clock: Clock; log: Log }) {
    this.#file = options.file;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#pem = readBundle(this.#file);
    this.#arm();
  }

  get pem(): string {
    return this.#pem;
  }

  close(): void {
    this.#timer?.cancel();
  }

  #arm(): void {
    this.#timer = this.#clock.after(LOOK_MS, () => {
      this.#look();
      this.#arm();
    });
  }

  #look(): void {
    try {
      const pem = readBundle(this.#file);
      this.#fault = '';
      if (pem === this.#pem) return;
      this.#pem = pem;
      this.#log.info('trust anchors changed', { file: this.#file });
      this.onChange();
    } catch (error) {
      const fault = error instanceof Error ? error.message : String(error);
      if (fault !== this.#fault) this.#log.error('cannot read the trust anchors: the last ones stay', { error });
      this.#fault = fault;
    }
  }
}

function readBundle(file: string): string {
  let pem: string;
  try {
    pem = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new HeddleError('bad-trust-anchors', `read the trust anchors "${file}": expected a readable file`, { cause });
  }
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0 || pem.length > BUNDLE_BYTES_MAX) {
    throw new HeddleError('bad-trust-anchors', `read the trust anchors "${file}": expected certificates in PEM`);
  }
  for (const block of blocks) {
    try {
      new X509Certificate(block);
    } catch (cause) {
      throw new HeddleError('bad-trust-anchors', `read the trust anchors "${file}": expected X.509 certificates`, {
        cause,
      });
    }
  }
  return pem;
}
