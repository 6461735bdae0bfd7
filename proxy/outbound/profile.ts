// ServiceProfiles in the worker's own words: routes by regular expression and method, which answers are failures, what
// may be retried. A profile with routes or overrides replaces the client policy of its service entirely.

import type {
  DestinationProfile,
  RequestMatch,
  ResponseMatch,
  Route,
  WeightedAddr,
  WeightedDst,
} from '#api/gen/destination.ts';
import { describeError } from '#lib/errors.ts';
import type { ResponseClasses } from '../classify.ts';
import type { RequestHead } from '../http.ts';
import type { Labels } from '../observe/recorder.ts';
import { compilePattern, translateMethod } from '../policy/translate-route.ts';
import type { MetaRef } from './policy.ts';
import { DEFAULT_RETRY_BUDGET, type RetryBudgetOptions } from './retry-budget.ts';
import { invalid, translateDuration, translateRef } from './translate-values.ts';

export interface ProfileRoute {
  matches(request: RequestHead): boolean;
  readonly classes: ResponseClasses;
  readonly isRetryable: boolean;
  readonly timeoutMs: number | null;
  /** `route` and whatever else the profile puts there; metrics prefix them with `rt_`. */
  readonly labels: Labels;
}

export interface ProfileOverride {
  /** `host:port` of a service. */
  readonly authority: string;
  readonly weight: number;
  readonly ref: MetaRef;
}

export interface Profile {
  /** Fully qualified name without port; empty for single endpoints. */
  readonly name: string;
  readonly parent: MetaRef;
  readonly isOpaque: boolean;
  readonly endpoint: WeightedAddr | null;
  readonly routes: readonly ProfileRoute[];
  readonly overrides: readonly ProfileOverride[];
  readonly budget: RetryBudgetOptions;
  /** Set where the profile cannot be understood: every request is answered 500. */
  readonly invalidReason: string | null;
}

/** True where the profile, not the policy, says what happens to requests. */
export function isRouting(profile: Profile): boolean {
  return profile.routes.length > 0 || profile.overrides.length > 0 || profile.invalidReason !== null;
}

export function translateProfile(message: DestinationProfile): Profile {
  const base: Profile = {
    name: message.fullyQualifiedName,
    parent: translateRef(message.parentRef),
    isOpaque: message.opaqueProtocol,
    endpoint: message.endpoint ?? null,
    routes: [],
    overrides: [],
    budget: translateBudget(message),
    invalidReason: null,
  };
  try {
    const overrides = message.dstOverrides.filter(({ weight }) => weight > 0).map(translateOverride);
    return { ...base, routes: message.routes.map(translateRoute), overrides };
  } catch (error) {
    return { ...base, invalidReason: describeError(error) };
  }
}

function translateBudget({ retryBudget }: DestinationProfile): RetryBudgetOptions {
  if (!retryBudget) return DEFAULT_RETRY_BUDGET;
  const { retryRatio, minRetriesPerSecond, ttl } = retryBudget;
  // A budget without a ttl would remember nothing.
  const ttlMs = translateDuration(ttl) || DEFAULT_RETRY_BUDGET.ttlMs;
  return { retryRatio: Number.isFinite(retryRatio) ? Math.max(0, retryRatio) : 0, minRetriesPerSecond, ttlMs };
}

function translateOverride({ authority, weight, backendRef }: WeightedDst): ProfileOverride {
  return { authority, weight, ref: translateRef(backendRef) };
}

function translateRoute(message: Route): ProfileRoute {
  const matches = compileRequest(message.condition);
  const classes = message.responseClasses.map(({ condition, isFailure }) => ({
    matches: compileResponse(condition),
    classification: isFailure ? ('failure' as const) : ('success' as const),
  }));
  return {
    matches,
    classes: (status) => classes.find((each) => each.matches(status))?.classification ?? null,
    isRetryable: message.isRetryable,
    timeoutMs: translateDuration(message.timeout) || null,
    labels: message.metricsLabels,
  };
}

function compileRequest(message: RequestMatch | undefined): (request: RequestHead) => boolean {
  const match = message?.match;
  switch (match?.$case) {
    case 'all': {
      const parts = match.value.matches.map(compileRequest);
      return (request) => parts.every((part) => part(request));
    }
    case 'any': {
      const parts = match.value.matches.map(compileRequest);
      return (request) => parts.some((part) => part(request));
    }
    case 'not': {
      const inner = compileRequest(match.value);
      return (request) => !inner(request);
    }
    case 'path': {
      const pattern = compilePattern(match.value.regex);
      return (request) => pattern.test(pathOf(request));
    }
    case 'method': {
      const method = translateMethod(match.value);
      return (request) => request.method === method;
    }
    default:
      throw invalid('condition', 'none', 'all, any, not, path or method');
  }
}

function compileResponse(message: ResponseMatch | undefined): (status: number) => boolean {
  const match = message?.match;
  switch (match?.$case) {
    case 'all': {
      const parts = match.value.matches.map(compileResponse);
      return (status) => parts.every((part) => part(status));
    }
    case 'any': {
      const parts = match.value.matches.map(compileResponse);
      return (status) => parts.some((part) => part(status));
    }
    case 'not': {
      const inner = compileResponse(match.value);
      return (status) => !inner(status);
    }
    case 'status': {
      // One of the two alone is the only code.
      const min = match.value.min || match.value.max;
      const max = match.value.max || match.value.min;
      return (status) => status >= min && status <= max;
    }
    default:
      throw invalid('response condition', 'none', 'all, any, not or status');
  }
}

function pathOf(request: RequestHead): string {
  const query = request.path.indexOf('?');
  return query < 0 ? request.path : request.path.slice(0, query);
}
