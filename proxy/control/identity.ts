// The worker's identity over its life: one EC key on P-256, made here and never sent anywhere; a certificate for it,
// renewed at 70 % of what is left of its life; trust anchors as the agent says. Handshakes use what is newest,
// connections keep what they began with. Linkerd's schedule, except that failures are retried sooner.

import { generateKeyPairSync, type KeyObject, type X509Certificate } from 'node:crypto';
import { CertifyRequest } from '#api/gen/identity.ts';
import { Backoff } from '#lib/backoff.ts';
import type { Clock, Timer } from '#lib/clock.ts';
import type { Log } from '#lib/log.ts';
import type { TlsMaterial } from '../io/tls.ts';
import { type IssuedCertificate, isTrusted, parseAnchors, readIssued } from './certificate.ts';
import { certificateRequest } from './csr.ts';

/** Renewal is never planned later than this. */
const REFRESH_MAX_MS = 24 * 3_600_000;
/** Nor sooner than this, or a quarter of the certificate's life where that is less. */
const REFRESH_MIN_MS = 10_000;
const REFRESH_SHARE = 0.7;
/** Retries while there is no certificate yet, and while there is one that still holds. */
const FIRST_BACKOFF = { minMs: 100, maxMs: 10_000, jitter: 0.2 } as const;
const RENEWAL_BACKOFF = { minMs: 1_000, maxMs: 60_000, jitter: 0.5 } as const;
const CERTIFY_TIMEOUT_MS = 15_000;

export interface IdentityMetrics {
  /** Unix seconds. */
  expiration: { set(value: number): void };
  refreshed: { set(value: number): void };
  succeeded: { add(amount: number): void };
  failed: { add(amount: number): void };
}

export interface IdentityOptions {
  /** Sends a protobuf CertifyRequest, resolves with a CertifyResponse. Rejects when refused, unreachable or late. */
  certify(request: Uint8Array, timeoutMs: number): Promise<Uint8Array>;
  /** Takes new material for handshakes to come. May throw: the material is then not used. */
  apply(material: TlsMaterial): void;
  /** There is a (new) certificate in use. */
  onCertificate(): void;
  metrics: IdentityMetrics;
  clock: Clock;
  log: Log;
  random?: () => number;
}

/** Milliseconds until a certificate should be renewed; `lifeMs` is what it had when it was issued. */
export function refreshDelayMs(remainingMs: number, lifeMs: number): number {
  const leastMs = Math.min(REFRESH_MIN_MS, lifeMs / 4);
  return Math.min(REFRESH_MAX_MS, Math.max(leastMs, REFRESH_SHARE * remainingMs));
}

export class Identity {
  readonly #options: IdentityOptions;
  readonly #privateKey: KeyObject;
  readonly #keyPem: string;
  readonly #firstBackoff: Backoff;
  readonly #renewalBackoff: Backoff;
  #name = '';
  #anchorsPem = '';
  #anchors: X509Certificate[] = [];
  #certificate: IssuedCertificate | null = null;
  #lifeMs = 0;
  #timer: Timer | null = null;
  #isCertifying = false;
  /** A refresh was due while one was under way. */
  #isDueAgain = false;
  #lastFailure = '';
  #isClosed = false;

  constructor(options: IdentityOptions) {
    this.#options = options;
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
    this.#privateKey = privateKey;
    this.#keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' });
    this.#firstBackoff = new Backoff(FIRST_BACKOFF, options.random);
    this.#renewalBackoff = new Backoff(RENEWAL_BACKOFF, options.random);
  }

  get name(): string {
    return this.#name;
  }

  /** Unix milliseconds, 0 without a certificate. */
  get expiresMs(): number {
    return this.#certificate?.expiresMs ?? 0;
  }

  /** Why there is no certificate, for people. */
  get lastFailure(): string {
    return this.#lastFailure;
  }

  /**
   * Takes name and anchors; the first call asks for the first certificate. Throws `anchors-invalid` or
   * `tls-material-invalid` and stays as it was.
   */
  configure(name: string, anchorsPem: string): void {
    const isNewName = name !== this.#name;
    if (!isNewName && anchorsPem === this.#anchorsPem) return;
    const anchors = parseAnchors(anchorsPem);
    const kept = isNewName ? null : this.#certificate;
    this.#options.apply({ anchorsPem, certificate: kept && { keyPem: this.#keyPem, chainPem: kept.chainPem } });
    this.#name = name;
    this.#anchorsPem = anchorsPem;
    this.#anchors = anchors;
    this.#certificate = kept;
    // What no peer would trust any more must not wait for its time; what failed for want of the anchor may work now.
    if (!kept || this.#lastFailure !== '' || !isTrusted(kept.chain, anchors)) this.#schedule(0);
  }

  /** The way to the identity service is open (again): an attempt that waits is made at once. */
  retryNow(): void {
    if (this.#name !== '' && this.#lastFailure !== '') this.#schedule(0);
  }

  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
  }

  #schedule(delayMs: number): void {
    this.#timer?.cancel();
    this.#timer = this.#options.clock.after(delayMs, () => {
      this.#timer = null;
      if (this.#isCertifying) this.#isDueAgain = true;
      else void this.#refresh();
    });
  }

  /** Never rejects: failures are counted, told and retried. */
  async #refresh(): Promise<void> {
    const { clock, metrics, log } = this.#options;
    const name = this.#name;
    this.#isCertifying = true;
    try {
      const request = CertifyRequest.encode({
        identity: name,
        // The agent puts its own: a pod's token never comes here.
        token: Buffer.alloc(0),
        certificateSigningRequest: certificateRequest(name, this.#privateKey),
      }).finish();
      const response = await this.#options.certify(request, CERTIFY_TIMEOUT_MS);
      if (this.#isClosed) return;
      if (name === this.#name) this.#use(response);
      metrics.succeeded.add(1);
      this.#firstBackoff.reset();
      this.#renewalBackoff.reset();
    } catch (error) {
      if (this.#isClosed) return;
      metrics.failed.add(1);
      this.#lastFailure = error instanceof Error ? error.message : String(error);
      log.warn('cannot get a certificate', { identity: name, expires: expiry(this.expiresMs), error });
    } finally {
      this.#isCertifying = false;
    }
    if (this.#timer !== null) return;
    // Name or anchors changed meanwhile: what was asked for may not be what is needed now.
    const isDue = this.#isDueAgain || name !== this.#name;
    this.#isDueAgain = false;
    this.#schedule(isDue ? 0 : this.#nextDelayMs(clock.wallMs()));
  }

  #use(response: Uint8Array): void {
    const { clock, metrics, log } = this.#options;
    const nowMs = clock.wallMs();
    const issued = readIssued(response, { name: this.#name, privateKey: this.#privateKey, nowMs });
    if (!isTrusted(issued.chain, this.#anchors)) {
      throw new Error(`certificate issued for "${this.#name}" chains to none of ${this.#anchors.length} trust anchors`);
    }
    this.#options.apply({
      anchorsPem: this.#anchorsPem,
      certificate: { keyPem: this.#keyPem, chainPem: issued.chainPem },
    });
    this.#certificate = issued;
    this.#lifeMs = issued.expiresMs - nowMs;
    this.#lastFailure = '';
    metrics.expiration.set(issued.expiresMs / 1000);
    metrics.refreshed.set(nowMs / 1000);
    log.info('certificate issued', { identity: this.#name, expires: expiry(issued.expiresMs) });
    this.#options.onCertificate();
  }

  #nextDelayMs(nowMs: number): number {
    if (!this.#certificate) return this.#firstBackoff.next();
    const delayMs = refreshDelayMs(this.#certificate.expiresMs - nowMs, this.#lifeMs);
    return this.#lastFailure === '' ? delayMs : Math.min(delayMs, this.#renewalBackoff.next());
  }
}

function expiry(expiresMs: number): string {
  return expiresMs === 0 ? 'none' : new Date(expiresMs).toISOString();
}
