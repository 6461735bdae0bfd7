// The account of a request that a ServiceProfile routes: `route_*` tells what the client got, after retries.

import type { Clock } from '#lib/clock.ts';
import type { HeddleError } from '#lib/errors.ts';
import { FAILURE, judgeHead, judgeTrailers, type ResponseClasses, type Verdict } from '../classify.ts';
import { endpointErrorName } from '../error-names.ts';
import type { Headers, HttpLayer, RequestStream, ResponseHead, ResponseStream } from '../http.ts';
import type { HttpRecorder } from '../observe/recorder.ts';

export function profileAccountLayer(clock: Clock, recorder: HttpRecorder, classes: ResponseClasses | null): HttpLayer {
  return (inner) => ({
    call(request, exchange, response) {
      recorder.request();
      const account = new ProfileAccount({ clock, recorder, classes, startedMs: exchange.startedMs, response });
      return new ProfileAccountRequest(account, inner.call(request, exchange, account));
    },
  });
}

interface Context {
  clock: Clock;
  recorder: HttpRecorder;
  classes: ResponseClasses | null;
  startedMs: number;
  response: ResponseStream;
}

class ProfileAccount implements ResponseStream {
  readonly #context: Context;
  #status = 0;
  #verdict: Verdict | null = null;
  #hasLatency = false;
  #isSettled = false;

  constructor(context: Context) {
    this.#context = context;
  }

  informational(head: ResponseHead): void {
    this.#context.response.informational(head);
  }

  head(head: ResponseHead): void {
    this.#status = head.status;
    this.#verdict = judgeHead(head, this.#context.classes);
    this.#context.response.head(head);
  }

  data(bytes: Uint8Array): boolean {
    if (!this.#hasLatency) this.#latency();
    return this.#context.response.data(bytes);
  }

  end(trailers: Headers | null): void {
    this.settle(this.#verdict ?? judgeTrailers(trailers), '');
    this.#context.response.end(trailers);
  }

  fail(error: HeddleError): void {
    this.settle(FAILURE, endpointErrorName(error));
    this.#context.response.fail(error);
  }

  resumeRequest(): void {
    this.#context.response.resumeRequest();
  }

  /** The client went away: that is no failure of the service. */
  abandon(): void {
    if (this.#status === 0) this.#isSettled = true;
    else this.settle(this.#verdict ?? judgeTrailers(null), '');
  }

  settle(verdict: Verdict, error: string): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    if (!this.#hasLatency && this.#status !== 0) this.#latency();
    this.#context.recorder.response(this.#status, verdict.classification, verdict.grpcStatus, error);
  }

  #latency(): void {
    this.#hasLatency = true;
    const { clock, recorder, startedMs } = this.#context;
    recorder.latency(this.#status, clock.nowMs() - startedMs);
  }
}

class ProfileAccountRequest implements RequestStream {
  readonly #account: ProfileAccount;
  readonly #request: RequestStream;

  constructor(account: ProfileAccount, request: RequestStream) {
    this.#account = account;
    this.#request = request;
  }

  data(bytes: Uint8Array): boolean {
    return this.#request.data(bytes);
  }

  end(trailers: Headers | null): void {
    this.#request.end(trailers);
  }

  reset(error: HeddleError): void {
    this.#request.reset(error);
    this.#account.abandon();
  }

  resumeResponse(): void {
    this.#request.resumeResponse();
  }
}
