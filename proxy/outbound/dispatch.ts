// Sends requests to members of one backend: picks an endpoint, or waits for one; keeps the endpoint's account (load,
// breaker, metrics); and takes a request that did not leave this process, because no connection could be made, to
// another endpoint. That is no retry: nothing was sent, so no budget and no policy is asked.

import type { Clock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Waiter } from '../balance/balancer.ts';
import type { ResponseClasses } from '../classify.ts';
import type { Exchange, Headers, HttpService, RequestHead, RequestStream, ResponseStream } from '../http.ts';
import type { BackendRecorder, HttpRecorder } from '../observe/recorder.ts';
import { ORIG_PROTO } from '../wire/orig-proto.ts';
import { DispatchReply } from './dispatch-reply.ts';
import type { Ticket } from './endpoint.ts';
import type { HttpEndpoint } from './http-endpoint.ts';

/** Where a dispatcher finds its endpoints: a balancer, or a single one. */
export interface HttpMembers {
  /** One that is ready, other than `except`; null when there is none. */
  pick(except?: HttpEndpoint | null): HttpEndpoint | null;
  /** Waits for one; the error when that is not allowed. */
  wait(waiter: Waiter<HttpEndpoint>): HeddleError | null;
  cancel(waiter: Waiter<HttpEndpoint>): void;
}

export interface DispatchOptions {
  clock: Clock;
  members: HttpMembers;
  /** A single endpoint without balancer: what its proxy says about the connection holds for the client's too. */
  isForward: boolean;
  classes: ResponseClasses | null;
  /** Accounts beside the endpoint's own: a policy route's backend, a profile's route. */
  backend: BackendRecorder | null;
  attempts: HttpRecorder | null;
}

/** Endpoints tried for one request before it fails. */
const ENDPOINTS_TRIED_MAX = 3;
/** Body bytes kept while it is not known whether a connection comes about. */
const HELD_BYTES_MAX = 64 * 1024;
/** RFC 9110 section 9.2.2: may be sent again when it is not known whether the server saw them. */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE']);

export class Dispatcher implements HttpService {
  readonly #options: DispatchOptions;

  constructor(options: DispatchOptions) {
    this.#options = options;
  }

  call(request: RequestHead, exchange: Exchange, response: ResponseStream): RequestStream {
    const dispatch = new Dispatch(this.#options, request, exchange, response);
    dispatch.start();
    return dispatch;
  }
}

export class Dispatch implements RequestStream, Waiter<HttpEndpoint> {
  readonly options: DispatchOptions;
  readonly request: RequestHead;
  readonly #exchange: Exchange;
  readonly #response: ResponseStream;
  readonly #reply: DispatchReply;
  #member: HttpEndpoint | null = null;
  #upstream: RequestStream | null = null;
  #tried = 0;
  /** Body bytes so far, for as long as the request may have to go elsewhere; null once it cannot. */
  #held: Uint8Array[] | null = [];
  #heldBytes = 0;
  #isPaused = false;
  #trailers: Headers | null | undefined;
  #isOver = false;

  constructor(options: DispatchOptions, request: RequestHead, exchange: Exchange, response: ResponseStream) {
    this.options = options;
    this.request = request;
    this.#exchange = exchange;
    this.#response = response;
    this.#reply = new DispatchReply(this, response);
  }

  start(): void {
    const { members } = this.options;
    const member = members.pick();
    if (member) {
      this.#send(member);
      return;
    }
    const refusal = members.wait(this);
    if (refusal) this.#failSoon(refusal);
  }

  // From the balancer.

  ready(member: HttpEndpoint): void {
    this.#resend(member);
  }

  fail(error: HeddleError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#held = null;
    this.#response.fail(error);
  }

  // From the client.

  data(bytes: Uint8Array): boolean {
    if (this.#isOver) return true;
    if (this.#held !== null) this.#hold(bytes);
    const isFlowing = this.#upstream?.data(bytes) ?? false;
    if (!isFlowing) this.#isPaused = true;
    return isFlowing;
  }

  end(trailers: Headers | null): void {
    if (this.#isOver) return;
    this.#trailers = trailers;
    this.#upstream?.end(trailers);
  }

  reset(error: HeddleError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#held = null;
    if (this.#upstream === null) {
      this.options.members.cancel(this);
      return;
    }
    this.#upstream.reset(error);
    this.#reply.abandon();
  }

  resumeResponse(): void {
    this.#upstream?.resumeResponse();
  }

  // From the reply.

  /** An answer came: the request is with the server and stays there. */
  onAnswered(): void {
    this.#held = null;
  }

  /** The connection takes body bytes: those before are on their way. */
  resumeRequest(): void {
    this.#held = null;
    this.#resume();
  }

  /** The exchange is over; nothing more goes either way. */
  onOver(): void {
    this.#isOver = true;
    this.#held = null;
  }

  /** Takes the request to another endpoint if it may go there. False: it has failed. */
  redispatch(error: HeddleError): boolean {
    if (this.#isOver || this.#tried >= ENDPOINTS_TRIED_MAX || this.#held === null) return false;
    const isReused = error.retry === 'if-reused' && IDEMPOTENT.has(this.request.method);
    if (error.retry !== 'yes' && !isReused) return false;
    const { members } = this.options;
    // After a connection that had gone stale a new one to the same endpoint is as good as another.
    const next = members.pick(this.#member) ?? (isReused ? members.pick() : null);
    if (!next) return false;
    // What the way to the first endpoint needed is not for the next one.
    this.request.headers.remove(ORIG_PROTO);
    this.#resend(next);
    return true;
  }

  /** Sends with what was held; the client goes on when the endpoint took all of it. */
  #resend(member: HttpEndpoint): void {
    if (this.#send(member)) this.#resume();
  }

  #resume(): void {
    if (!this.#isPaused || this.#isOver) return;
    this.#isPaused = false;
    if (this.#trailers === undefined) this.#response.resumeRequest();
  }

  /** Returns true when the endpoint takes more body bytes. */
  #send(member: HttpEndpoint): boolean {
    const { info } = member.endpoint;
    const required = this.request.headers.get('l5d-require-id');
    if (required !== undefined && required !== info.identity?.name) {
      const message = `send request to "${info.identity?.name ?? 'an endpoint without identity'}": expected "${required}"`;
      this.#failSoon(new HeddleError('identity-required', message, { source: 'upstream' }));
      return false;
    }
    this.#tried++;
    this.#member = member;
    const hasBody = this.request.bodyBytes !== null && this.request.bodyBytes !== 0;
    const ticket: Ticket = member.endpoint.begin(this.options.clock.nowMs());
    this.#reply.begin(member.endpoint, ticket);
    // With a connection at hand the body is under way at once: keeping it would only cost memory.
    const isKept = !hasBody || !member.hasConnection(this.request);
    const held = this.#held;
    if (!isKept) this.#held = null;
    this.#upstream = member.call(headFor(this.request, member, required), this.#exchange, this.#reply);
    let isFlowing = true;
    for (const bytes of held ?? []) isFlowing = this.#upstream.data(bytes);
    if (this.#trailers !== undefined) this.#upstream.end(this.#trailers);
    return isFlowing;
  }

  #hold(bytes: Uint8Array): void {
    this.#heldBytes += bytes.length;
    if (this.#heldBytes > HELD_BYTES_MAX && this.#upstream !== null) this.#held = null;
    else this.#held?.push(Uint8Array.from(bytes));
  }

  /** A service may not call back before it returned. */
  #failSoon(error: HeddleError): void {
    queueMicrotask(() => this.fail(error));
  }
}

/** The head as this endpoint gets it. Heads are shared by attempts, so that a change needs a copy. */
function headFor(request: RequestHead, member: HttpEndpoint, required: string | undefined): RequestHead {
  const { authorityOverride } = member.endpoint.info;
  if (authorityOverride === null && required === undefined) return request;
  const head = { ...request, headers: request.headers.clone() };
  head.headers.remove('l5d-require-id');
  if (authorityOverride !== null) {
    // The gateway of another cluster routes by the name it knows.
    head.authority = authorityOverride;
    head.headers.remove('host');
    head.headers.remove('l5d-dst-canonical');
  }
  return head;
}
