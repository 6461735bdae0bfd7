// The filters of a rule or a backend as a layer: headers changed on the way in and on the way back, redirects and
// failures on purpose answered here. They sit outside of retries (a rule's) or inside (a backend's), never at the
// endpoint: which endpoint is taken must not matter to them.

import { HeddleError } from '#lib/errors.ts';
import { answerLater, failLater } from '../answer.ts';
import { grpcHead, isGrpc, plainHead } from '../error-response.ts';
import type { Headers, HttpLayer, RequestHead, ResponseHead, ResponseStream } from '../http.ts';
import { applyFilters, type FilterAnswer } from '../policy/filters.ts';
import { findRoute, type RequestMatch } from '../policy/route-match.ts';
import type { Filters, ResponseHeaderFilter } from './policy.ts';

/** gRPC status of a redirect, which gRPC does not know: NotFound. */
const GRPC_NOT_FOUND = 5;

/** `matches` are those of the rule the filters belong to: a redirect may replace the prefix that matched. */
export function filterLayer(filters: Filters, matches: readonly RequestMatch[], random: () => number): HttpLayer {
  const routes = [{ hosts: [], rules: [{ matches }] }];
  const needsPrefix = filters.request.some((filter) => filter.kind === 'redirect' && filter.path?.kind === 'prefix');
  return (inner) => ({
    call(request, exchange, response) {
      const prefixLength = needsPrefix ? (findRoute(routes, request)?.prefixLength ?? null) : null;
      const answer = applyFilters(filters.request, request, prefixLength, random);
      if (answer?.kind === 'invalid') return failLater(response, new HeddleError('invalid-policy', answer.message));
      if (answer) return answerLater(response, (target) => send(request, answer, target));
      if (filters.response.length === 0) return inner.call(request, exchange, response);
      return inner.call(request, exchange, new FilteredResponse(filters.response, response));
    },
  });
}

function send(
  request: RequestHead,
  answer: Exclude<FilterAnswer, { kind: 'invalid' }>,
  response: ResponseStream,
): void {
  response.head(headOf(request, answer));
  response.end(null);
}

function headOf(request: RequestHead, answer: Exclude<FilterAnswer, { kind: 'invalid' }>): ResponseHead {
  switch (answer.kind) {
    case 'redirect': {
      if (isGrpc(request)) return grpcHead(request, GRPC_NOT_FOUND, `redirected to ${answer.location}`);
      const head = plainHead(request, answer.status);
      head.headers.add('location', answer.location);
      return head;
    }
    case 'http-failure': {
      const head = plainHead(request, answer.status);
      if (answer.message !== '') head.headers.add('l5d-proxy-error', answer.message);
      return head;
    }
    case 'grpc-failure':
      return grpcHead(request, answer.code, answer.message);
  }
}

class FilteredResponse implements ResponseStream {
  readonly #filters: readonly ResponseHeaderFilter[];
  readonly #response: ResponseStream;

  constructor(filters: readonly ResponseHeaderFilter[], response: ResponseStream) {
    this.#filters = filters;
    this.#response = response;
  }

  informational(head: ResponseHead): void {
    this.#response.informational(head);
  }

  head(head: ResponseHead): void {
    for (const filter of this.#filters) {
      for (const { name, value } of filter.add) head.headers.add(name, value);
      for (const { name, value } of filter.set) head.headers.set(name, value);
      for (const name of filter.remove) head.headers.remove(name);
    }
    this.#response.head(head);
  }

  data(bytes: Uint8Array): boolean {
    return this.#response.data(bytes);
  }

  end(trailers: Headers | null): void {
    this.#response.end(trailers);
  }

  fail(error: HeddleError): void {
    this.#response.fail(error);
  }

  resumeRequest(): void {
    this.#response.resumeRequest();
  }
}
