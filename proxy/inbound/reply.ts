// The account of one permitted request: passes both halves on and settles on the way. Failures before the head become
// Linkerd's error responses; behind it the stream is cut.

import type { Clock } from '#lib/clock.ts';
import type { HeddleError } from '#lib/errors.ts';
import { FAILURE, judgeHead, judgeTrailers, readGrpcStatus, type Verdict } from '../classify.ts';
import { CANCELLED, endpointErrorName, routeErrorName } from '../error-names.ts';
import { answerError } from '../error-response.ts';
import type { Exchange, Headers, RequestHead, RequestStream, ResponseHead, ResponseStream } from '../http.ts';
import type { InFlight } from '../in-flight.ts';
import { NO_GRPC_STATUS } from '../observe/recorder.ts';
import type { ClientMetrics, RequestMetrics } from './metrics.ts';

export interface ReplyOptions {
  clock: Clock;
  /** Entered already; left when the exchange is over. */
  inFlight: InFlight;
  metrics: RequestMetrics;
  series: ClientMetrics;
  request: RequestHead;
  exchange: Exchange;
  response: ResponseStream;
  /** Peers of the mesh learn why a request failed. */
  withDetails: boolean;
}

const SWITCHING_PROTOCOLS = 101;

/** The response half. */
export class Reply implements ResponseStream {
  readonly #options: ReplyOptions;
  #status = 0;
  #grpcStatus = NO_GRPC_STATUS;
  #verdict: Verdict | null = null;
  #isObserved = false;
  #isSettled = false;

  constructor(options: ReplyOptions) {
    this.#options = options;
    options.metrics.http.request();
  }

  informational(head: ResponseHead): void {
    this.#options.response.informational(head);
  }

  head(head: ResponseHead): void {
    this.#status = head.status;
    this.#verdict = judgeHead(head, null);
    if (head.version === 'HTTP/2') this.#grpcStatus = readGrpcStatus(head.headers);
    // A tunnel may stay silent for long: it is answered now.
    if (head.status === SWITCHING_PROTOCOLS) this.#observe();
    this.#options.response.head(head);
  }

  data(bytes: Uint8Array): boolean {
    if (!this.#isObserved) this.#observe();
    return this.#options.response.data(bytes);
  }

  end(trailers: Headers | null): void {
    if (trailers) this.#grpcStatus = readGrpcStatus(trailers);
    this.#settle(this.#verdict ?? judgeTrailers(trailers), '', '');
    this.#options.response.end(trailers);
  }

  fail(error: HeddleError): void {
    const { request, response, series, withDetails } = this.#options;
    if (this.#status !== 0) {
      series.httpError('i/o');
      this.#settle(FAILURE, endpointErrorName(error), routeErrorName(error));
      response.fail(error);
      return;
    }
    const { label, status } = answerError(request, error, response, { withDetails });
    this.#status = status;
    series.httpError(label);
    this.#settle(FAILURE, endpointErrorName(error), routeErrorName(error));
  }

  resumeRequest(): void {
    this.#options.response.resumeRequest();
  }

  /** The client went away: nothing of the rest arrives anywhere. */
  abandon(): void {
    this.#settle(this.#status === 0 ? null : (this.#verdict ?? judgeTrailers(null)), '', CANCELLED);
  }

  #observe(): void {
    this.#isObserved = true;
    const { metrics, clock, exchange } = this.#options;
    metrics.http.latency(this.#status, clock.nowMs() - exchange.startedMs);
  }

  /** Null verdict: there was no response to judge. */
  #settle(verdict: Verdict | null, endpointError: string, routeError: string): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    const { metrics, clock, exchange, inFlight } = this.#options;
    inFlight.leave();
    if (!this.#isObserved && this.#status !== 0) this.#observe();
    if (verdict) metrics.http.response(this.#status, verdict.classification, verdict.grpcStatus, endpointError);
    metrics.route.response(this.#status, this.#grpcStatus, routeError, clock.nowMs() - exchange.startedMs);
  }
}

/** The request half: to the application, and to the account when the client gives up. */
export class ForwardedRequest implements RequestStream {
  readonly #reply: Reply;
  readonly #upstream: RequestStream;

  constructor(reply: Reply, upstream: RequestStream) {
    this.#reply = reply;
    this.#upstream = upstream;
  }

  data(bytes: Uint8Array): boolean {
    return this.#upstream.data(bytes);
  }

  end(trailers: Headers | null): void {
    this.#upstream.end(trailers);
  }

  reset(error: HeddleError): void {
    this.#upstream.reset(error);
    this.#reply.abandon();
  }

  resumeResponse(): void {
    this.#upstream.resumeResponse();
  }
}
