// The authority in use. New files replace it only when they make one that verifies; until then the one before goes on
// signing, and the trouble is told. Event names are Linkerd's, since alerts are written on them.

import type { Clock } from '#lib/clock.ts';
import { describeError, HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { type AuthorityFiles, CertificateAuthority } from './ca.ts';
import { FileWatch } from './file-watch.ts';

export const IssuerEvent = {
  updated: 'IssuerUpdated',
  updateSkipped: 'IssuerUpdateSkipped',
  validationFailed: 'IssuerValidationFailed',
} as const;
export type IssuerEvent = (typeof IssuerEvent)[keyof typeof IssuerEvent];

/** Where the issuer's files are; names as in a kubernetes.io/tls Secret. */
export interface IssuerPaths {
  certificates: string;
  privateKey: string;
  anchors: string;
}

export interface IssuerOptions {
  paths: IssuerPaths;
  reloadIntervalMs: number;
  clock: Clock;
  log: Log;
  onEvent: (event: IssuerEvent) => void;
}

const VALIDATION_CODES: readonly string[] = ['issuer-untrusted', 'issuer-expired'];

export class Issuer {
  readonly #options: IssuerOptions;
  readonly #watch: FileWatch<keyof IssuerPaths>;
  readonly #listeners = new Set<(authority: CertificateAuthority) => void>();
  #authority: CertificateAuthority | null = null;

  constructor(options: IssuerOptions) {
    this.#options = options;
    this.#watch = new FileWatch({
      paths: options.paths,
      intervalMs: options.reloadIntervalMs,
      clock: options.clock,
      onChange: (files) =>
        this.load({ certificatesPem: files.certificates, privateKeyPem: files.privateKey, anchorsPem: files.anchors }),
      onError: (error) => this.#skip(error),
    });
  }

  /** Null until files were found that make a valid authority. */
  get authority(): CertificateAuthority | null {
    return this.#authority;
  }

  /** Reads the files now and at every interval. */
  async start(): Promise<void> {
    await this.#watch.start();
  }

  close(): void {
    this.#watch.close();
  }

  /** Tells of every authority that comes into use. */
  onUpdate(listener: (authority: CertificateAuthority) => void): void {
    this.#listeners.add(listener);
  }

  /** Takes the files over when they make an authority that verifies now. */
  load(files: AuthorityFiles): void {
    let authority: CertificateAuthority;
    try {
      authority = new CertificateAuthority(files, this.#options.clock.wallMs());
    } catch (error) {
      if (error instanceof HeddleError && VALIDATION_CODES.includes(error.code)) this.reportInvalid(error);
      else this.#skip(error);
      return;
    }
    this.#authority = authority;
    this.#options.onEvent(IssuerEvent.updated);
    this.#options.log.info('issuer updated', {
      event: IssuerEvent.updated,
      issuer: authority.issuer.fingerprint256,
      anchors: authority.anchors.length,
      notAfter: new Date(authority.notAfterMs).toISOString(),
    });
    for (const listener of this.#listeners) listener(authority);
  }

  /** The issuer in use, or one that was offered, does not verify against the anchors. */
  reportInvalid(error: unknown): void {
    this.#options.onEvent(IssuerEvent.validationFailed);
    this.#options.log.error('issuer does not verify', {
      event: IssuerEvent.validationFailed,
      reason: describeError(error),
    });
  }

  #skip(error: unknown): void {
    this.#options.onEvent(IssuerEvent.updateSkipped);
    this.#options.log.warn('issuer update skipped', {
      event: IssuerEvent.updateSkipped,
      reason: describeError(error),
    });
  }
}
