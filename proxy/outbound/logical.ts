// Routes of a client policy as one service: which rule takes a request, and the stack that the rule puts above its
// backends. Composed when a policy arrives; a request walks through finished layers.

import type { Clock } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import { failLater } from '../answer.ts';
import { compose } from '../compose.ts';
import type { HttpLayer, HttpService } from '../http.ts';
import type { InFlight } from '../in-flight.ts';
import type { Recorder, RouteRecorder } from '../observe/recorder.ts';
import { findRoute, type Matchable, type RequestMatch, type Routable } from '../policy/route-match.ts';
import { accountLayer } from './account.ts';
import type { Backends, BackendUse } from './backends.ts';
import { Dispatcher } from './dispatch.ts';
import { type Choice, distribute } from './distribute.ts';
import { filterLayer } from './filter-layer.ts';
import { takeOverrides } from './override-headers.ts';
import type { Filters, HttpRoute, HttpRoutes, HttpRule, RouteBackend } from './policy.ts';
import { backendLabels, parentLabels, routeLabels } from './ref-labels.ts';
import { retryLayer } from './retry.ts';
import { policyRetryRule } from './retry-rule.ts';
import type { Lease } from './shared.ts';
import { timeoutLayer } from './timeout.ts';

export interface LogicalOptions {
  clock: Clock;
  random: () => number;
  recorder: Recorder;
  backends: Backends;
  inFlight: InFlight;
}

/** A composed stack; it holds its backends until `release`. */
export interface Composed<S> {
  readonly service: S;
  release(): void;
}

interface ComposedRule extends Matchable {
  readonly service: HttpService;
}

interface ComposedRoute extends Routable<ComposedRule> {
  readonly rules: readonly ComposedRule[];
}

/** A service for the routes of a policy. */
export function composeRoutes(http: HttpRoutes, use: BackendUse, options: LogicalOptions): Composed<HttpService> {
  const composer = new RouteComposer(http, use, options);
  const routes = http.routes.map((route) => ({
    hosts: route.hosts,
    rules: route.rules.map((rule) => ({ matches: rule.matches, service: composer.rule(route, rule) })),
  }));
  const release = () => {
    for (const lease of composer.leases) lease.release();
  };
  const [only] = routes;
  const [onlyRule] = only?.rules ?? [];
  // The usual policy: one route that takes everything. It needs no matching.
  const isSimple = routes.length === 1 && only?.rules.length === 1 && only.hosts.length === 0;
  if (isSimple && onlyRule && takesEverything(onlyRule.matches)) return { service: onlyRule.service, release };
  return {
    release,
    service: {
      call(request, exchange, response) {
        const found = findRoute<ComposedRule, ComposedRoute>(routes, request);
        if (found) return found.rule.service.call(request, exchange, response);
        return failLater(response, new HeddleError('no-route', 'no route found for request'));
      },
    },
  };
}

function takesEverything(matches: readonly RequestMatch[]): boolean {
  return matches.length === 0 || matches.some(isCatchAll);
}

function isCatchAll({ path, headers, query, method }: RequestMatch): boolean {
  const isAnyPath = path === null || (path.kind === 'prefix' && path.prefix === '/');
  return isAnyPath && headers.length === 0 && query.length === 0 && method === null;
}

class RouteComposer {
  readonly leases: Lease<unknown>[] = [];
  readonly #http: HttpRoutes;
  readonly #use: BackendUse;
  readonly #options: LogicalOptions;

  constructor(http: HttpRoutes, use: BackendUse, options: LogicalOptions) {
    this.#http = http;
    this.#use = use;
    this.#options = options;
  }

  /** The stack of one rule, outermost first. */
  rule(route: HttpRoute, rule: HttpRule): HttpService {
    const { clock, random, recorder, inFlight } = this.#options;
    const metrics = recorder.route('outbound', this.#http.protocol, {
      ...parentLabels(this.#use.parent),
      ...routeLabels(route.ref),
    });
    const choices = rule.distribution.backends.map((backend) => this.#choice(route, rule, backend));
    const backends = distribute(rule.distribution.kind, choices, random);
    const attempts = this.#attempts(rule, metrics, backends);
    return compose(
      [
        // What the client gets, whatever happened below, is what the route's metrics tell.
        accountLayer({ clock, inFlight, route: metrics }),
        // Headers change once per request, not per attempt; what is answered here needs neither deadline nor backend.
        this.#filters(rule.filters, rule),
        // The application may change deadline and retries of this request; without its word the rule's own stand.
        rule.allowsOverrides ? this.#overrides(rule, metrics, backends) : null,
      ],
      attempts,
    );
  }

  /** Deadlines and retries of a rule above its backends. */
  #attempts(rule: Pick<HttpRule, 'retry' | 'timeouts'>, metrics: RouteRecorder, backends: HttpService): HttpService {
    const { clock, random } = this.#options;
    const { requestMs, responseMs, idleMs } = rule.timeouts;
    const requestCode = 'request-timeout' as const;
    return compose(
      [
        // The request's deadline covers all attempts and the back-off between them.
        requestMs === null ? null : timeoutLayer({ clock, requestMs, responseMs: null, idleMs: null, requestCode }),
        // Above the choice of a backend: another attempt may go to another one.
        rule.retry ? retryLayer(policyRetryRule(rule.retry, metrics, random), clock) : null,
        // These bound one attempt.
        responseMs === null && idleMs === null
          ? null
          : timeoutLayer({ clock, requestMs: null, responseMs, idleMs, requestCode }),
      ],
      backends,
    );
  }

  /** Composes per request, for the few requests that ask for something of their own. */
  #overrides(rule: HttpRule, metrics: RouteRecorder, backends: HttpService): HttpLayer {
    return (inner) => ({
      call: (request, exchange, response) => {
        const overrides = takeOverrides(rule, request.headers);
        const service = overrides ? this.#attempts(overrides, metrics, backends) : inner;
        return service.call(request, exchange, response);
      },
    });
  }

  #choice(route: HttpRoute, rule: HttpRule, { backend, weight, filters }: RouteBackend) {
    const { clock, recorder, backends } = this.#options;
    const lease = backends.http(backend, this.#use, this.#http.breaker);
    if (!lease) return unusableChoice(weight, backend.kind === 'unusable' ? backend.reason : '');
    this.leases.push(lease);
    const { members, isForward } = lease.value;
    const labels = { ...parentLabels(this.#use.parent), ...routeLabels(route.ref), ...backendLabels(backend.ref) };
    const dispatcher = new Dispatcher({
      clock,
      members,
      isForward,
      classes: null,
      backend: recorder.backend(this.#http.protocol, labels),
      attempts: null,
    });
    // A backend's filters run for each attempt that goes there, on the attempt's own copy of the head.
    const service = compose([this.#filters(filters, rule)], dispatcher);
    return { weight, service, isAvailable: () => lease.value.isAvailable() };
  }

  #filters(filters: Filters, rule: HttpRule): HttpLayer | null {
    if (filters.request.length === 0 && filters.response.length === 0) return null;
    return filterLayer(filters, rule.matches, this.#options.random);
  }
}

/** Keeps its share of the requests, and fails them. */
export function unusableChoice(weight: number, reason: string): Choice & { service: HttpService } {
  const error = new HeddleError('invalid-backend', reason, { source: 'upstream' });
  return {
    weight,
    isAvailable: () => true,
    service: { call: (_request, _exchange, response) => failLater(response, error) },
  };
}
