// HTTP on an inbound connection. Each request is judged anew by the port's policy of that moment: route, authorization,
// filters, rate limit, in this order; only then it goes to the application, with the client's identity and without any
// that the client claimed for itself.

import type { Clock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { answerLater } from '../answer.ts';
import { answerError, classifyError, grpcHead, isGrpc, plainHead } from '../error-response.ts';
import type { Exchange, HttpService, RequestHead, RequestStream, ResponseStream } from '../http.ts';
import type { InFlight } from '../in-flight.ts';
import { type Authorization, authorize } from '../policy/authorization.ts';
import { applyFilters, type FilterAnswer } from '../policy/filters.ts';
import { findRoute } from '../policy/route-match.ts';
import type { InboundRoute, InboundRule, ServerPolicy } from '../policy/server-policy.ts';
import type { InboundConnection } from './connection.ts';
import type { ClientMetrics, InboundMetrics } from './metrics.ts';
import type { PortPolicy } from './ports.ts';
import { ForwardedRequest, Reply } from './reply.ts';

export interface InboundHttpOptions {
  clock: Clock;
  random: () => number;
  metrics: InboundMetrics;
  inFlight: InFlight;
  connection: InboundConnection;
  port: PortPolicy;
  application: HttpService;
}

const CLIENT_ID = 'l5d-client-id';

/** What one policy means for this client: found once, good until the policy changes. */
interface Verdicts {
  readonly policy: ServerPolicy;
  readonly series: ClientMetrics;
  /** By route: the authorization that permits the client, or null. */
  readonly authorizations: Map<InboundRoute, Authorization | null>;
}

/** The service of one connection. */
export class InboundHttp implements HttpService {
  readonly #options: InboundHttpOptions;
  #verdicts: Verdicts | null = null;

  constructor(options: InboundHttpOptions) {
    this.#options = options;
  }

  call(request: RequestHead, exchange: Exchange, response: ResponseStream): RequestStream {
    const { connection } = this.#options;
    // What a client says about its own identity is never believed, whatever becomes of the request.
    request.headers.remove(CLIENT_ID);
    const verdicts = this.#current();
    const { policy, series } = verdicts;
    if (policy.protocol.kind === 'invalid') {
      const error = new HeddleError('invalid-policy', `apply inbound policy: ${policy.protocol.reason}`);
      return this.#refuse(request, response, error, series);
    }
    const found = findRoute<InboundRule, InboundRoute>(policy.routes, request);
    if (!found) {
      series.routeNotFound();
      return this.#refuse(request, response, new HeddleError('no-route', 'no route found for request'), null);
    }
    const authorization = this.#authorize(verdicts, found.route);
    if (!authorization) {
      series.denied(found.route);
      const error = new HeddleError('unauthorized', `client "${connection.clientName}" is not permitted on this route`);
      return this.#refuse(request, response, error, null);
    }
    const requests = series.request(found.route, authorization);
    requests.allowed.add(1);
    const answer = applyFilters(found.rule.filters, request, found.prefixLength, this.#options.random);
    if (answer) return this.#answer(request, response, answer, series);
    const scope = policy.rateLimits?.take(connection.client.identity, exchange.startedMs) ?? null;
    if (policy.rateLimits && scope !== null) {
      series.rateLimited(policy.rateLimits.ref, scope);
      const error = new HeddleError('rate-limited', `request is above the ${scope} rate limit`);
      return this.#refuse(request, response, error, null);
    }
    return this.#forward(request, exchange, response, series, requests);
  }

  #current(): Verdicts {
    const { port, connection, metrics } = this.#options;
    const policy = port.current;
    if (this.#verdicts?.policy !== policy) {
      const series = metrics.of(connection.target, policy, connection.tls);
      this.#verdicts = { policy, series, authorizations: new Map() };
    }
    return this.#verdicts!;
  }

  #authorize({ authorizations }: Verdicts, route: InboundRoute): Authorization | null {
    let authorization = authorizations.get(route);
    if (authorization === undefined) {
      authorization = authorize(route.authorizations, this.#options.connection.client);
      authorizations.set(route, authorization);
    }
    return authorization;
  }

  #forward(
    request: RequestHead,
    exchange: Exchange,
    response: ResponseStream,
    series: ClientMetrics,
    metrics: ReturnType<ClientMetrics['request']>,
  ): RequestStream {
    const { clock, inFlight, connection, application } = this.#options;
    if (!inFlight.enter()) {
      const error = new HeddleError('load-shed', 'take request: all requests that this worker carries are in use');
      return this.#refuse(request, response, error, series);
    }
    const { identity } = connection.client;
    if (identity !== null) request.headers.add(CLIENT_ID, identity);
    const withDetails = identity !== null;
    const reply = new Reply({ clock, inFlight, metrics, series, request, exchange, response, withDetails });
    return new ForwardedRequest(reply, application.call(request, exchange, reply));
  }

  /** Answers in the application's place. `series` counts it as an error; policy decisions have counters of their own. */
  #refuse(
    request: RequestHead,
    response: ResponseStream,
    error: HeddleError,
    series: ClientMetrics | null,
  ): RequestStream {
    series?.httpError(classifyError(error).label);
    const withDetails = this.#options.connection.client.identity !== null;
    return answerLater(response, (target) => answerError(request, error, target, { withDetails }));
  }

  /** The answer of a filter: a redirect, or a failure on purpose. */
  #answer(request: RequestHead, response: ResponseStream, answer: FilterAnswer, series: ClientMetrics): RequestStream {
    switch (answer.kind) {
      case 'redirect':
        return answerLater(response, (target) => {
          const head = isGrpc(request)
            ? grpcHead(request, GRPC_NOT_FOUND, 'redirected')
            : plainHead(request, answer.status);
          head.headers.add('location', answer.location);
          target.head(head);
          target.end(null);
        });
      case 'http-failure':
        return answerLater(response, (target) => {
          const head = plainHead(request, answer.status);
          if (this.#options.connection.client.identity !== null) head.headers.add('l5d-proxy-error', answer.message);
          target.head(head);
          target.end(null);
        });
      case 'grpc-failure':
        return answerLater(response, (target) => {
          target.head(grpcHead(request, answer.code, answer.message));
          target.end(null);
        });
      case 'invalid':
        return this.#refuse(request, response, new HeddleError('invalid-policy', answer.message), series);
    }
  }
}

/** What a redirect is to gRPC, which knows none. */
const GRPC_NOT_FOUND = 5;
