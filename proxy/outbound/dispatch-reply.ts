// The response half of a dispatched request: passes everything on and settles the account of the attempt on the way:
// load at the first body bytes, breaker and metrics at the end.

import type { HeddleError } from '#lib/errors.ts';
import { FAILURE, judgeHead, judgeTrailers, readRetryAfterMs, type Verdict } from '../classify.ts';
import { CANCELLED, endpointErrorName, routeErrorName } from '../error-names.ts';
import type { Headers, ResponseHead, ResponseStream } from '../http.ts';
import type { Dispatch } from './dispatch.ts';
import type { Endpoint, Ticket } from './endpoint.ts';

const SWITCHING_PROTOCOLS = 101;

export class DispatchReply implements ResponseStream {
  readonly #dispatch: Dispatch;
  readonly #response: ResponseStream;
  #endpoint: Endpoint | null = null;
  #ticket: Ticket | null = null;
  #isObserved = false;
  #isSettled = false;
  #isTunnel = false;
  #status = 0;
  #verdict: Verdict | null = null;
  #retryAfterMs: number | null = null;

  constructor(dispatch: Dispatch, response: ResponseStream) {
    this.#dispatch = dispatch;
    this.#response = response;
  }

  /** The request goes to `endpoint` now; once for each attempt. */
  begin(endpoint: Endpoint, ticket: Ticket): void {
    this.#endpoint = endpoint;
    this.#ticket = ticket;
    this.#isObserved = false;
  }

  informational(head: ResponseHead): void {
    this.#response.informational(head);
  }

  head(head: ResponseHead): void {
    const { classes, isForward, backend, attempts } = this.#dispatch.options;
    this.#dispatch.onAnswered();
    this.#endpoint?.http.request();
    backend?.request();
    attempts?.request();
    this.#status = head.status;
    this.#verdict = judgeHead(head, classes);
    if (this.#verdict === null || this.#verdict.outcome !== 'success') {
      this.#retryAfterMs = readRetryAfterMs(head.headers);
    }
    // What the peer's proxy says to this one ends here, but for a client whose only server is gone.
    if (isForward && head.headers.get('l5d-proxy-connection') === 'close') head.closesConnection = true;
    head.headers.remove('l5d-proxy-connection');
    head.headers.remove('l5d-proxy-error');
    const { request } = this.#dispatch;
    this.#isTunnel = head.status === SWITCHING_PROTOCOLS || (request.method === 'CONNECT' && head.status < 300);
    // It may stay silent for long: it is answered now.
    if (this.#isTunnel) this.#observe();
    this.#response.head(head);
  }

  data(bytes: Uint8Array): boolean {
    if (!this.#isObserved) this.#observe();
    return this.#response.data(bytes);
  }

  end(trailers: Headers | null): void {
    if (!this.#isObserved) this.#observe();
    this.#settle(this.#verdict ?? judgeTrailers(trailers), '', '');
    // A tunnel's other direction may go on.
    if (!this.#isTunnel) this.#dispatch.onOver();
    this.#response.end(trailers);
  }

  fail(error: HeddleError): void {
    const hasHead = this.#status !== 0;
    if (!this.#isObserved) this.#observe();
    if (!hasHead) {
      // Nothing was sent: the connect back-off knows of it, and the breaker only if this was its probe.
      const isProbe = this.#ticket?.isProbe ?? false;
      if (error.retry === 'yes' && !isProbe) this.#endpoint?.settle(this.#ticket!, null, this.#nowMs());
      else this.#endpoint?.settle(this.#ticket!, 'failure', this.#nowMs());
      if (this.#dispatch.redispatch(error)) return;
      this.#countRequest();
      this.#record(FAILURE, endpointErrorName(error), routeErrorName(error));
    } else {
      this.#settle(FAILURE, endpointErrorName(error), routeErrorName(error));
    }
    this.#dispatch.onOver();
    this.#response.fail(error);
  }

  resumeRequest(): void {
    this.#dispatch.resumeRequest();
  }

  /** The client went away. That says nothing about the endpoint, unless its head came already. */
  abandon(): void {
    if (this.#isSettled) return;
    const hasHead = this.#status !== 0;
    if (!this.#isObserved) this.#observe();
    if (hasHead) {
      this.#settle(this.#verdict ?? judgeTrailers(null), '', CANCELLED);
    } else {
      this.#endpoint?.settle(this.#ticket!, null, this.#nowMs());
      this.#countRequest();
    }
  }

  #nowMs(): number {
    return this.#dispatch.options.clock.nowMs();
  }

  #countRequest(): void {
    this.#endpoint?.http.request();
    this.#dispatch.options.backend?.request();
    this.#dispatch.options.attempts?.request();
  }

  #observe(): void {
    this.#isObserved = true;
    const ticket = this.#ticket!;
    const nowMs = this.#nowMs();
    this.#endpoint!.observe(ticket, nowMs);
    if (this.#status === 0) return;
    this.#endpoint!.http.latency(this.#status, nowMs - ticket.startedMs);
    this.#dispatch.options.attempts?.latency(this.#status, nowMs - ticket.startedMs);
  }

  /** Once: either direction of a tunnel may end it. */
  #settle(verdict: Verdict, endpointError: string, routeError: string): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#endpoint!.settle(this.#ticket!, verdict.outcome, this.#nowMs(), this.#retryAfterMs);
    this.#record(verdict, endpointError, routeError);
  }

  #record(verdict: Verdict, endpointError: string, routeError: string): void {
    const { backend, attempts } = this.#dispatch.options;
    const { grpcStatus } = verdict;
    this.#endpoint!.http.response(this.#status, verdict.classification, grpcStatus, endpointError);
    attempts?.response(this.#status, verdict.classification, grpcStatus, endpointError);
    backend?.response(this.#status, grpcStatus, routeError, this.#nowMs() - this.#ticket!.startedMs);
  }
}
