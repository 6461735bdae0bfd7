// A ServiceProfile as one service: its routes with their response classes, timeouts and retries within one budget,
// above the service's own balancer or the weighted overrides. It takes the place of the client policy's routes.

import { HeddleError } from '#lib/errors.ts';
import { failLater } from '../answer.ts';
import { compose } from '../compose.ts';
import type { HttpLayer, HttpService } from '../http.ts';
import type { Labels, ProfileRouteRecorder } from '../observe/recorder.ts';
import { accountLayer } from './account.ts';
import type { BackendTarget, BackendUse } from './backends.ts';
import { Dispatcher } from './dispatch.ts';
import { distribute } from './distribute.ts';
import type { HttpEndpoint } from './http-endpoint.ts';
import type { Composed, LogicalOptions } from './logical.ts';
import { type Backend, DEFAULT_LOAD, type MetaRef } from './policy.ts';
import type { Profile, ProfileRoute } from './profile.ts';
import { profileAccountLayer } from './profile-account.ts';
import { retryLayer } from './retry.ts';
import { RetryBudget } from './retry-budget.ts';
import { profileRetryRule } from './retry-rule.ts';
import { timeoutLayer } from './timeout.ts';

/** Told to the peer's proxy: which logical destination this request is for. */
const CANONICAL = 'l5d-dst-canonical';

interface WeightedTarget {
  readonly weight: number;
  readonly target: BackendTarget<HttpEndpoint>;
}

/** A service for the routes of a profile. `port` completes the profile's name. */
export function composeProfile(profile: Profile, port: number, options: LogicalOptions): Composed<HttpService> {
  const authority = `${profile.name}:${port}`;
  if (profile.invalidReason !== null) return invalidProfile(profile.invalidReason);
  const use: BackendUse = { parent: profile.parent, authority };
  const leases = profileBackends(profile, port, authority).flatMap(({ backend, weight }) => {
    const lease = options.backends.http(backend, use, null);
    return lease ? [{ lease, weight }] : [];
  });
  const targets = leases.map(({ lease, weight }) => ({ target: lease.value, weight }));
  const budget = new RetryBudget(profile.budget);
  const compiled = profile.routes.map((route) => ({
    route,
    service: composeRoute(route, authority, targets, budget, options),
  }));
  const fallback = composeRoute(null, authority, targets, budget, options);
  return {
    release: () => {
      for (const { lease } of leases) lease.release();
    },
    service: {
      call(request, exchange, response) {
        const found = compiled.find(({ route }) => route.matches(request));
        return (found?.service ?? fallback).call(request, exchange, response);
      },
    },
  };
}

/** The balancers of a profile: its overrides by weight, else the service itself. */
export function profileBackends(
  profile: Profile,
  port: number,
  authority: string,
): { backend: Backend; weight: number }[] {
  const balancer = (path: string, ref: MetaRef): Backend => ({ kind: 'balancer', ref, path, load: DEFAULT_LOAD });
  if (profile.overrides.length === 0) return [{ backend: balancer(authority, profile.parent), weight: 1 }];
  return profile.overrides.map((override) => {
    const hasPort = /:\d+$/.test(override.authority);
    const path = hasPort ? override.authority : `${override.authority}:${port}`;
    return { backend: balancer(path, override.ref), weight: override.weight };
  });
}

/** The stack of one route, outermost first; null is the route of requests that match none. */
function composeRoute(
  route: ProfileRoute | null,
  authority: string,
  targets: readonly WeightedTarget[],
  budget: RetryBudget,
  options: LogicalOptions,
): HttpService {
  const { clock, random, recorder, inFlight } = options;
  const metrics = recorder.profileRoute('outbound', profileLabels(route, authority));
  const classes = route?.classes ?? null;
  const backends = distribute(
    'random',
    targets.map(({ target, weight }) => ({
      weight,
      isAvailable: () => target.isAvailable(),
      service: dispatcher(target, classes, metrics, options),
    })),
    random,
  );
  const requestMs = route?.timeoutMs ?? null;
  return compose(
    [
      // What the client gets, after retries and the timeout.
      profileAccountLayer(clock, metrics.effective, classes),
      accountLayer({ clock, inFlight, route: null }),
      canonicalLayer(authority),
      // The timeout covers all attempts.
      requestMs === null
        ? null
        : timeoutLayer({ clock, requestMs, responseMs: null, idleMs: null, requestCode: 'profile-timeout' }),
      // Above the balancer, so that another attempt picks another endpoint.
      route?.isRetryable ? retryLayer(profileRetryRule(route.classes, budget, metrics), clock) : null,
    ],
    backends,
  );
}

function dispatcher(
  { members, isForward }: BackendTarget<HttpEndpoint>,
  classes: ProfileRoute['classes'] | null,
  metrics: ProfileRouteRecorder,
  { clock }: LogicalOptions,
): HttpService {
  return new Dispatcher({ clock, members, isForward, classes, backend: null, attempts: metrics.actual });
}

function profileLabels(route: ProfileRoute | null, authority: string): Labels {
  const labels: Record<string, string> = { dst: authority };
  for (const [name, value] of Object.entries(route?.labels ?? {})) labels[`rt_${name}`] = value;
  return labels;
}

function canonicalLayer(authority: string): HttpLayer {
  return (inner) => ({
    call(request, exchange, response) {
      request.headers.set(CANONICAL, authority);
      return inner.call(request, exchange, response);
    },
  });
}

function invalidProfile(reason: string): Composed<HttpService> {
  const error = new HeddleError('invalid-policy', reason);
  return {
    service: { call: (_request, _exchange, response) => failLater(response, error) },
    release: () => {},
  };
}
