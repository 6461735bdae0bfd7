// The outermost account of a request: requests under way are counted, and shed above a bound; a policy route's metrics
// are settled with what the client gets, after retries and timeouts.

import type { Clock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { failLater } from '../answer.ts';
import { readGrpcStatus } from '../classify.ts';
import { CANCELLED, routeErrorName } from '../error-names.ts';
import type { Headers, HttpLayer, RequestStream, ResponseHead, ResponseStream } from '../http.ts';
import type { InFlight } from '../in-flight.ts';
import { NO_GRPC_STATUS, type RouteRecorder } from '../observe/recorder.ts';

export interface AccountOptions {
  clock: Clock;
  inFlight: InFlight;
  /** Null: nothing but the count. */
  route: RouteRecorder | null;
}

export function accountLayer(options: AccountOptions): HttpLayer {
  return (inner) => ({
    call(request, exchange, response) {
      if (!options.inFlight.enter()) {
        const message = 'take request: expected fewer requests under way, all that this worker carries are in use';
        return failLater(response, new HeddleError('load-shed', message));
      }
      const account = new Account(options, response, exchange.startedMs);
      return new AccountRequest(account, inner.call(request, exchange, account));
    },
  });
}

class Account implements ResponseStream {
  readonly #options: AccountOptions;
  readonly #response: ResponseStream;
  readonly #startedMs: number;
  #status = 0;
  #grpcStatus = NO_GRPC_STATUS;
  #isSettled = false;

  constructor(options: AccountOptions, response: ResponseStream, startedMs: number) {
    this.#options = options;
    this.#response = response;
    this.#startedMs = startedMs;
  }

  informational(head: ResponseHead): void {
    this.#response.informational(head);
  }

  head(head: ResponseHead): void {
    this.#status = head.status;
    if (head.version === 'HTTP/2') this.#grpcStatus = readGrpcStatus(head.headers);
    this.#response.head(head);
  }

  data(bytes: Uint8Array): boolean {
    return this.#response.data(bytes);
  }

  end(trailers: Headers | null): void {
    if (trailers) this.#grpcStatus = readGrpcStatus(trailers);
    this.settle('');
    this.#response.end(trailers);
  }

  fail(error: HeddleError): void {
    this.settle(routeErrorName(error));
    this.#response.fail(error);
  }

  resumeRequest(): void {
    this.#response.resumeRequest();
  }

  /** Once: a client may go away after its answer, with the body still under way. */
  settle(error: string): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    const { inFlight, route, clock } = this.#options;
    inFlight.leave();
    route?.response(this.#status, this.#grpcStatus, error, clock.nowMs() - this.#startedMs);
  }
}

class AccountRequest implements RequestStream {
  readonly #account: Account;
  readonly #request: RequestStream;

  constructor(account: Account, request: RequestStream) {
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
    this.#account.settle(CANCELLED);
  }

  resumeResponse(): void {
    this.#request.resumeResponse();
  }
}
