// Backends, distributions and filters of policy messages in the worker's own words. The message types of HTTP, gRPC,
// TLS and opaque routes differ in name only; what they share is read here once.

import type { Backend as BackendMessage, GrpcRoute_Filter, HttpRoute_Filter } from '#api/gen/outbound.ts';
import { translateFilter } from '../policy/translate-route.ts';
import { readEndpoint } from './endpoint-info.ts';
import {
  type Backend,
  DEFAULT_LOAD,
  type Distribution,
  type Filters,
  type LoadOptions,
  NO_FILTERS,
  type ResponseHeaderFilter,
  type RouteBackend,
} from './policy.ts';
import { invalid, translateDuration, translateRef } from './translate-values.ts';

/** Filters of any route; opaque and TLS routes only know refusals. */
type FilterMessage =
  | HttpRoute_Filter
  | GrpcRoute_Filter
  | { kind: { $case: 'invalid'; value: { message: string } } | { $case: 'forbidden'; value: object } | undefined };

interface RouteBackendMessage {
  backend: BackendMessage | undefined;
  filters: readonly FilterMessage[];
}

interface DistributionMessage {
  kind:
    | { $case: 'empty'; value: object }
    | { $case: 'firstAvailable'; value: { backends: readonly RouteBackendMessage[] } }
    | {
        $case: 'randomAvailable';
        value: { backends: readonly { backend: RouteBackendMessage | undefined; weight: number }[] };
      }
    | undefined;
}

export function translateDistribution(
  message: DistributionMessage | undefined,
  isLocal: (address: string) => boolean,
): Distribution {
  const kind = message?.kind;
  switch (kind?.$case) {
    case 'firstAvailable':
      return { kind: 'first', backends: kind.value.backends.map((each) => translateRouteBackend(each, 1, isLocal)) };
    case 'randomAvailable':
      return {
        kind: 'random',
        backends: kind.value.backends
          .filter(({ weight }) => weight > 0)
          .map(({ backend, weight }) => translateRouteBackend(backend, weight, isLocal)),
      };
    default:
      // A route that only redirects has no backend.
      return { kind: 'first', backends: [] };
  }
}

export function translateFilters(messages: readonly FilterMessage[]): Filters {
  if (messages.length === 0) return NO_FILTERS;
  const request = [];
  const response: ResponseHeaderFilter[] = [];
  for (const { kind } of messages) {
    switch (kind?.$case) {
      case 'responseHeaderModifier': {
        // The same checks as for requests, and the same order: add, set, remove.
        const filter = translateFilter({ $case: 'requestHeaderModifier', value: kind.value });
        if (filter.kind === 'request-headers') response.push(filter);
        break;
      }
      case 'failureInjector':
        request.push(
          'code' in kind.value
            ? translateFilter({ $case: 'grpcFailureInjector', value: kind.value })
            : translateFilter({ $case: 'failureInjector', value: kind.value }),
        );
        break;
      case 'requestHeaderModifier':
      case 'redirect':
        request.push(translateFilter(kind));
        break;
      case 'invalid':
      case 'forbidden':
        break;
      default:
        throw invalid('filters', 'none', 'a known kind of filter');
    }
  }
  return { request, response };
}

function translateRouteBackend(
  message: RouteBackendMessage | undefined,
  weight: number,
  isLocal: (address: string) => boolean,
): RouteBackend {
  const filters = message?.filters ?? [];
  const refusal = filters.find(({ kind }) => kind?.$case === 'invalid' || kind?.$case === 'forbidden');
  const backend = translateBackend(message?.backend, isLocal);
  if (!refusal) return { backend, weight, filters: translateFilters(filters) };
  const reason = refusal.kind?.$case === 'invalid' ? refusal.kind.value.message : 'forbidden by policy';
  return { backend: { kind: 'unusable', ref: backend.ref, reason }, weight, filters: NO_FILTERS };
}

function translateBackend(message: BackendMessage | undefined, isLocal: (address: string) => boolean): Backend {
  const ref = translateRef(message?.metadata);
  const kind = message?.kind;
  switch (kind?.$case) {
    case 'forward': {
      const endpoint = readEndpoint(kind.value, isLocal);
      if (!endpoint) return { kind: 'unusable', ref, reason: 'forward to backend: expected an address' };
      return { kind: 'forward', ref, endpoint };
    }
    case 'balancer': {
      const path = kind.value.discovery?.kind?.value.path ?? '';
      if (path === '') return { kind: 'unusable', ref, reason: 'balance over backend: expected a path to discover' };
      return { kind: 'balancer', ref, path, load: translateLoad(kind.value.load) };
    }
    default:
      return { kind: 'unusable', ref, reason: 'use backend: expected a balancer or an address to forward to' };
  }
}

type LoadMessage = Extract<NonNullable<BackendMessage['kind']>, { $case: 'balancer' }>['value']['load'];

function translateLoad(message: LoadMessage): LoadOptions {
  if (!message) return DEFAULT_LOAD;
  const defaultRttMs = translateDuration(message.value.defaultRtt) ?? DEFAULT_LOAD.defaultRttMs;
  const decayMs = translateDuration(message.value.decay) || DEFAULT_LOAD.decayMs;
  if (message.$case === 'peakEwma') return { defaultRttMs, decayMs, penalty: null };
  const penaltyMs = translateDuration(message.value.penalty) ?? 5_000;
  const maxRetryAfterMs = translateDuration(message.value.maxRetryAfter) ?? penaltyMs;
  return { defaultRttMs, decayMs, penalty: { penaltyMs, maxRetryAfterMs } };
}
