// Sends a request again when its answer says that might help. Sits inside of the whole request's deadline and outside of
// the balancer, so that each attempt picks an endpoint anew. The body is kept while it is small; what is larger goes
// once. Which answers are worth it, how often and how soon is the rule's business (retry-rule.ts).

import type { Clock, Timer } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Exchange, Headers, HttpLayer, HttpService, RequestHead, RequestStream, ResponseStream } from '../http.ts';
import { Attempt } from './retry-attempt.ts';
import type { RetryRule } from './retry-rule.ts';

export function retryLayer(rule: RetryRule, clock: Clock): HttpLayer {
  return (inner) => ({
    call(request, exchange, response) {
      // What leaves HTTP is not to be repeated.
      if (request.upgrade !== null) return inner.call(request, exchange, response);
      const retry = new RetriedRequest({ rule, clock, inner, request, exchange, response });
      retry.start();
      return retry;
    },
  });
}

interface RetryContext {
  rule: RetryRule;
  clock: Clock;
  inner: HttpService;
  request: RequestHead;
  exchange: Exchange;
  response: ResponseStream;
}

export class RetriedRequest implements RequestStream {
  readonly #context: RetryContext;
  #attempt: Attempt | null = null;
  #attempts = 0;
  /** The body so far; null once it is too large or the answer is on its way. */
  #body: Uint8Array[] | null = [];
  #bodyBytes = 0;
  #trailers: Headers | null | undefined;
  #isPaused = false;
  #isOver = false;
  #backoff: Timer | null = null;
  #perTry: Timer | null = null;

  constructor(context: RetryContext) {
    this.#context = context;
  }

  get rule(): RetryRule {
    return this.#context.rule;
  }

  start(): void {
    const { rule, inner, request, exchange, response, clock } = this.#context;
    const attempt = new Attempt(this, response);
    this.#attempt = attempt;
    this.#attempts++;
    // An attempt may change its head; the next one begins with the original.
    const head = this.#hasAttemptsLeft ? { ...request, headers: request.headers.clone() } : request;
    attempt.request = inner.call(head, exchange, attempt);
    if (rule.perTryMs === null || !this.#hasAttemptsLeft) return;
    const { perTryMs } = rule;
    this.#perTry = clock.after(perTryMs, () => {
      const message = `await response headers: expected within ${perTryMs} ms`;
      const error = new HeddleError('response-headers-timeout', message, { source: 'upstream', retry: 'yes' });
      attempt.request?.reset(error);
      attempt.fail(error);
    });
  }

  // From the client.

  data(bytes: Uint8Array): boolean {
    if (this.#isOver) return true;
    this.#keep(bytes);
    const isFlowing = this.#attempt?.request?.data(bytes) ?? false;
    if (!isFlowing) this.#isPaused = true;
    return isFlowing;
  }

  end(trailers: Headers | null): void {
    this.#trailers = trailers;
    if (!this.#isOver) this.#attempt?.request?.end(trailers);
  }

  reset(error: HeddleError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#stopTimers();
    this.#body = null;
    this.#attempt?.request?.reset(error);
  }

  resumeResponse(): void {
    this.#attempt?.request?.resumeResponse();
  }

  // From the attempt.

  /** Is there anything left to try, and may it be tried? Tells metrics why not. */
  canRetry(): boolean {
    const { rule, clock } = this.#context;
    if (!this.#hasAttemptsLeft) {
      rule.observer.limitExceeded();
      return false;
    }
    if (this.#body === null) {
      rule.observer.overflow();
      return false;
    }
    if (rule.needsWholeBody && this.#trailers === undefined) return false;
    return rule.takesBudget(clock.nowMs());
  }

  /** The attempt's head came in time. */
  onHead(): void {
    this.#stopTimers();
  }

  /** The attempt's answer is thrown away: another attempt follows after the back-off. */
  retry(): void {
    const { rule, clock } = this.#context;
    this.#stopTimers();
    this.#attempt = null;
    const delayMs = rule.nextDelayMs(this.#attempts);
    if (delayMs === 0) {
      queueMicrotask(() => this.#again());
      return;
    }
    this.#backoff = clock.after(delayMs, () => this.#again());
  }

  /** The attempt's answer goes to the client. */
  commit(isSuccess: boolean): void {
    const { rule, clock } = this.#context;
    this.#stopTimers();
    this.#body = null;
    rule.deposit(clock.nowMs());
    if (isSuccess && this.#attempts > 1) rule.observer.succeeded();
  }

  /** Nothing more will come. */
  onOver(): void {
    this.#isOver = true;
    this.#stopTimers();
    this.#body = null;
  }

  resumeRequest(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    if (this.#trailers === undefined) this.#context.response.resumeRequest();
  }

  get hasEnded(): boolean {
    return this.#trailers !== undefined;
  }

  get #hasAttemptsLeft(): boolean {
    return this.#attempts <= this.#context.rule.maxRetries;
  }

  #again(): void {
    this.#backoff = null;
    if (this.#isOver) return;
    this.#context.rule.observer.retried();
    this.start();
    const request = this.#attempt?.request;
    if (!request) return;
    let isFlowing = true;
    for (const bytes of this.#body ?? []) isFlowing = request.data(bytes);
    if (this.#bodyBytes > this.rule.bodyBytesMax) this.#body = null;
    if (this.#trailers !== undefined) request.end(this.#trailers);
    else if (isFlowing) this.resumeRequest();
  }

  #keep(bytes: Uint8Array): void {
    if (this.#body === null) return;
    this.#bodyBytes += bytes.length;
    // Between two attempts all of it is needed, however much it is; the client is told to pause.
    if (this.#bodyBytes > this.rule.bodyBytesMax && this.#attempt !== null) this.#body = null;
    else this.#body.push(Uint8Array.from(bytes));
  }

  #stopTimers(): void {
    this.#backoff?.cancel();
    this.#perTry?.cancel();
    this.#backoff = null;
    this.#perTry = null;
  }
}
