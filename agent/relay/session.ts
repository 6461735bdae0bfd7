// One worker's questions to the control plane, for as long as one link lasts: its watches are subscriptions of the
// node's relay, its certificate requests go to the identity service. Everything ends with the link.

import type { LinkStatus } from '#api/worker-link.ts';
import type { Clock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { GrpcError, Status } from '#lib/grpc/status.ts';
import type { Log } from '#lib/log.ts';
import type { Subscriber } from './fan-out.ts';

/** Watches of one worker at a time. */
export const SESSION_WATCHES_MAX = 10_000;
/** Certificate requests of one worker at a time: it needs one, and one more while the first hangs. */
export const SESSION_CERTIFIES_MAX = 2;
/** Certificate requests of one worker: so many at once, then one each interval. The allowance of the node is not one pod's. */
export const SESSION_CERTIFIES_BURST = 10;
const CERTIFY_INTERVAL_MS = 5_000;

/** The agent's end of the link, as far as a session writes to it. */
export interface SessionLink {
  certificate(stream: number, payload: Uint8Array): void;
  certifyFailed(stream: number, status: LinkStatus): void;
  update(stream: number, payload: Uint8Array): void;
  stale(stream: number, status: LinkStatus): void;
  watchEnd(stream: number, status: LinkStatus): void;
}

export interface SessionOptions {
  link: SessionLink;
  podUid: string;
  relay: { watch(kind: number, request: Uint8Array, subscriber: Subscriber): () => void };
  certify: (request: Uint8Array, podUid: string, signal: AbortSignal) => Promise<Uint8Array>;
  /** Counts certificates by result: `ok` or the status of the identity service. */
  onCertified: (status: Status) => void;
  clock: Clock;
  log: Log;
}

export class RelaySession {
  readonly #options: SessionOptions;
  readonly #watches = new Map<number, () => void>();
  readonly #abort = new AbortController();
  #certifies = 0;
  #allowance = SESSION_CERTIFIES_BURST;
  #allowanceMs: number;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#allowanceMs = options.clock.nowMs();
  }

  onWatchOpen(stream: number, kind: number, request: Buffer): void {
    const { link, relay } = this.#options;
    if (this.#watches.has(stream)) return;
    if (this.#watches.size >= SESSION_WATCHES_MAX) {
      link.watchEnd(stream, {
        code: Status.resourceExhausted,
        message: `open a watch: expected at most ${SESSION_WATCHES_MAX} of one worker`,
      });
      return;
    }
    try {
      const cancel = relay.watch(kind, request, {
        update: (payload) => this.#update(stream, payload),
        stale: (status) => link.stale(stream, status),
        end: (status) => {
          this.#watches.delete(stream);
          link.watchEnd(stream, status);
        },
      });
      this.#watches.set(stream, cancel);
    } catch (error) {
      if (!(error instanceof HeddleError)) throw error;
      link.watchEnd(stream, { code: Status.invalidArgument, message: error.message });
    }
  }

  /** An answer too large for the link ends this watch. Others read the same answer: it must do nothing to them. */
  #update(stream: number, payload: Uint8Array): void {
    const { link, log } = this.#options;
    try {
      link.update(stream, payload);
    } catch (error) {
      if (!(error instanceof HeddleError)) throw error;
      log.error('answer of the control plane does not fit the link: the watch ends', { error });
      this.onWatchClose(stream);
      link.watchEnd(stream, { code: Status.resourceExhausted, message: error.message });
    }
  }

  onWatchClose(stream: number): void {
    this.#watches.get(stream)?.();
    this.#watches.delete(stream);
  }

  onCertify(stream: number, payload: Buffer): void {
    const refusal = this.#refuse();
    if (refusal !== null) {
      this.#options.link.certifyFailed(stream, { code: Status.resourceExhausted, message: refusal });
      return;
    }
    this.#certifies++;
    this.#allowance--;
    // The frame's bytes are valid during this call only.
    this.#certify(stream, Uint8Array.from(payload)).finally(() => {
      this.#certifies--;
    });
  }

  #refuse(): string | null {
    const nowMs = this.#options.clock.nowMs();
    const earned = Math.floor((nowMs - this.#allowanceMs) / CERTIFY_INTERVAL_MS);
    this.#allowance = Math.min(SESSION_CERTIFIES_BURST, this.#allowance + earned);
    this.#allowanceMs += earned * CERTIFY_INTERVAL_MS;
    if (this.#certifies >= SESSION_CERTIFIES_MAX) {
      return `ask for a certificate: expected at most ${SESSION_CERTIFIES_MAX} requests at a time`;
    }
    if (this.#allowance > 0) return null;
    return `ask for a certificate: expected at most one request in ${CERTIFY_INTERVAL_MS} ms`;
  }

  /** Ends all watches and requests; the link hears nothing more. */
  close(): void {
    this.#abort.abort();
    for (const cancel of this.#watches.values()) cancel();
    this.#watches.clear();
  }

  async #certify(stream: number, request: Uint8Array): Promise<void> {
    const { link, certify, podUid, onCertified, log } = this.#options;
    const { signal } = this.#abort;
    try {
      const response = await certify(request, podUid, signal);
      if (signal.aborted) return;
      onCertified(Status.ok);
      link.certificate(stream, response);
    } catch (error) {
      if (signal.aborted) return;
      const code = error instanceof GrpcError ? error.status : Status.internal;
      const message = error instanceof Error ? error.message : String(error);
      onCertified(code);
      log.warn('identity service issued no certificate', { error });
      link.certifyFailed(stream, { code, message });
    }
  }
}
