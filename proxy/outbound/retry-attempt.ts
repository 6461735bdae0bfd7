// One attempt of a retried request: looks at the answer before anybody else does and either lets it through or throws
// it away. A gRPC answer that tells its status in the trailers is held until something follows its head.

import { HeddleError } from '#lib/errors.ts';
import { judgeTrailers } from '../classify.ts';
import type { Headers, RequestStream, ResponseHead, ResponseStream } from '../http.ts';
import type { RetriedRequest } from './retry.ts';

/** A thrown away answer is read to its end, so that its connection can be used again, unless it is longer than this. */
const DISCARDED_BYTES_MAX = 64 * 1024;
const DISCARDED = new HeddleError('retried', 'discard response: the request is sent again');

export class Attempt implements ResponseStream {
  /** Set by the owner as soon as the inner service returned it. */
  request: RequestStream | null = null;
  readonly #retry: RetriedRequest;
  readonly #response: ResponseStream;
  #state: 'waiting' | 'held' | 'committed' | 'discarded' = 'waiting';
  #held: ResponseHead | null = null;
  #discardedBytes = 0;

  constructor(retry: RetriedRequest, response: ResponseStream) {
    this.#retry = retry;
    this.#response = response;
  }

  informational(head: ResponseHead): void {
    if (this.#state === 'waiting') this.#response.informational(head);
  }

  head(head: ResponseHead): void {
    if (this.#state !== 'waiting') return;
    const isWorth = this.#retry.rule.isHeadRetryable(head);
    if (isWorth === null) {
      this.#state = 'held';
      this.#held = head;
      this.#retry.onHead();
    } else if (isWorth && this.#retry.canRetry()) {
      this.#discard(head.bodyBytes);
    } else {
      this.#commit(head, !isWorth);
    }
  }

  data(bytes: Uint8Array): boolean {
    if (this.#state === 'held') this.#commit(this.#held!, true);
    if (this.#state === 'committed') return this.#response.data(bytes);
    this.#discardedBytes += bytes.length;
    if (this.#discardedBytes > DISCARDED_BYTES_MAX) this.#cut();
    return true;
  }

  end(trailers: Headers | null): void {
    if (this.#state === 'held') {
      const isWorth = this.#retry.rule.isGrpcRetryable(judgeTrailers(trailers));
      if (isWorth && this.#retry.canRetry()) {
        this.#discard(0);
        return;
      }
      this.#commit(this.#held!, !isWorth);
    }
    if (this.#state !== 'committed') return;
    this.#retry.onOver();
    this.#response.end(trailers);
  }

  fail(error: HeddleError): void {
    if (this.#state === 'discarded') return;
    if (this.#state !== 'committed' && this.#retry.rule.isErrorRetryable(error) && this.#retry.canRetry()) {
      this.#state = 'discarded';
      this.request = null;
      this.#retry.retry();
      return;
    }
    if (this.#state !== 'committed') this.#retry.commit(false);
    this.#state = 'discarded';
    this.#retry.onOver();
    this.#response.fail(error);
  }

  resumeRequest(): void {
    if (this.#state !== 'discarded') this.#retry.resumeRequest();
  }

  #commit(head: ResponseHead, isSuccess: boolean): void {
    this.#state = 'committed';
    this.#held = null;
    this.#retry.commit(isSuccess);
    this.#response.head(head);
  }

  #discard(bodyBytes: ResponseHead['bodyBytes']): void {
    this.#state = 'discarded';
    this.#held = null;
    // With the request still under way, or a large answer ahead, cutting is cheaper than waiting for the end.
    const isLarge = typeof bodyBytes === 'number' && bodyBytes > DISCARDED_BYTES_MAX;
    if (!this.#retry.hasEnded || isLarge) this.#cut();
    this.#retry.retry();
  }

  #cut(): void {
    const { request } = this;
    this.request = null;
    request?.reset(DISCARDED);
  }
}
