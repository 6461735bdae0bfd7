// The certificate that a control-plane process serves with: obtained at start, renewed at 70 % of its life and whenever
// the issuer changes, swapped for new handshakes only, so that no connection is lost. The private key is made here and
// never leaves the process.

import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import type { CertifyResponse } from '#api/gen/identity.ts';
import { Backoff } from '#lib/backoff.ts';
import type { Clock, Timer } from '#lib/clock.ts';
import { describeError, HeddleError } from '#lib/errors.ts';
import type { KeyMaterial } from '#lib/grpc/tls.ts';
import type { Log } from '#lib/log.ts';
import { toPem } from './authority.ts';
import { createCertificateRequest } from './csr.ts';

/** What a TLS server serves with, and how long. */
export interface KeyedChain extends KeyMaterial {
  notAfterMs: number;
}

export interface ServingCertificateOptions {
  identity: string;
  /** Has a DER request signed. Rejects when that is not possible now; it is asked again after a while. */
  certify: (request: Buffer) => Promise<CertifyResponse>;
  clock: Clock;
  log: Log;
}

const RENEW_AT = 0.7;
/** A certificate that has almost no life left is not renewed in a busy loop. */
const RENEW_DELAY_MIN_MS = 500;
const RETRY = { minMs: 200, maxMs: 10_000, jitter: 0.5 };

export class ServingCertificate {
  readonly #options: ServingCertificateOptions;
  readonly #key: KeyObject;
  readonly #request: Buffer;
  readonly #backoff = new Backoff(RETRY);
  readonly #listeners = new Set<(chain: KeyedChain) => void>();
  #current: KeyedChain | null = null;
  #timer: Timer | null = null;
  #isRenewing = false;
  #isStale = false;
  #isClosed = false;

  constructor(options: ServingCertificateOptions) {
    this.#options = options;
    this.#key = generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey;
    this.#request = createCertificateRequest(options.identity, this.#key);
  }

  /** Null until the first certificate was issued. */
  get current(): KeyedChain | null {
    return this.#current;
  }

  /** Tells of every certificate, at once of the current one if there is one. */
  onChange(listener: (chain: KeyedChain) => void): void {
    this.#listeners.add(listener);
    if (this.#current) listener(this.#current);
  }

  /** Has a new certificate made now; also what starts the renewals. Trouble is logged and tried again. */
  async renew(): Promise<void> {
    // One at a time; what changed meanwhile is caught up with by one more round.
    this.#isStale = true;
    if (this.#isRenewing) return;
    this.#isRenewing = true;
    this.#timer?.cancel();
    let delayMs = RENEW_DELAY_MIN_MS;
    while (this.#isStale && !this.#isClosed) {
      this.#isStale = false;
      delayMs = await this.#obtain();
    }
    this.#isRenewing = false;
    if (!this.#isClosed) this.#timer = this.#options.clock.after(delayMs, () => void this.renew());
  }

  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#listeners.clear();
  }

  /** Resolves with the milliseconds to wait before the next round. */
  async #obtain(): Promise<number> {
    const { identity, certify, clock, log } = this.#options;
    try {
      const response = await certify(this.#request);
      const chain = this.#chainOf(response);
      if (this.#isClosed) return 0;
      this.#current = chain;
      this.#backoff.reset();
      log.info('serving certificate renewed', { identity, notAfter: new Date(chain.notAfterMs).toISOString() });
      for (const listener of this.#listeners) listener(chain);
      return Math.max(RENEW_DELAY_MIN_MS, (chain.notAfterMs - clock.wallMs()) * RENEW_AT);
    } catch (error) {
      const delayMs = this.#backoff.next();
      log.warn('serving certificate not renewed', {
        identity,
        retryMs: Math.round(delayMs),
        reason: describeError(error),
      });
      return delayMs;
    }
  }

  #chainOf(response: CertifyResponse): KeyedChain {
    const notAfterMs = Number(response.validUntil?.seconds ?? 0n) * 1000;
    if (response.leafCertificate.length === 0 || notAfterMs <= this.#options.clock.wallMs()) {
      throw new HeddleError('bad-certificate', 'read the issued certificate: expected one that is valid now');
    }
    return {
      privateKeyPem: this.#key.export({ format: 'pem', type: 'pkcs8' }) as string,
      certificatePem: [response.leafCertificate, ...response.intermediateCertificates].map(toPem).join(''),
      notAfterMs,
    };
  }
}
