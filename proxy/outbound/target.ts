// One original destination: asks discovery, composes the stacks the answers call for, and composes them anew when the
// answers change. Connections hold the target while they live; each request takes the stack of its moment.

import type { DestinationProfile } from '#api/gen/destination.ts';
import type { OutboundPolicy as OutboundPolicyMessage } from '#api/gen/outbound.ts';
import type { Timer } from '#lib/clock.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { formatAddress } from '../address.ts';
import { failLater } from '../answer.ts';
import { type DiscoveryOptions, watchOutboundPolicy, watchProfile } from '../control/discovery.ts';
import type { Watch } from '../control/watch.ts';
import type { HttpService } from '../http.ts';
import type { Labels, TransportRecorder } from '../observe/recorder.ts';
import { type Composed, composeRoutes, type LogicalOptions } from './logical.ts';
import { composeOpaque, type OpaqueOptions, type OpaqueService } from './opaque.ts';
import type { HttpRoutes, OutboundPolicy } from './policy.ts';
import { composeProfile } from './profile-logical.ts';
import { type Original, opaqueRoutes, type Resolution, type ResolveOptions, resolve, resolveLate } from './resolve.ts';

export interface TargetOptions extends LogicalOptions, OpaqueOptions, ResolveOptions {
  discovery: DiscoveryOptions;
  log: Log;
  /** Wraps a target's requests: what turns errors into answers (stack.ts). */
  answerErrors(inner: HttpService): HttpService;
  /** No connection used the target for a while: forget it. */
  onIdle(): void;
}

/** How connections to the target are to be treated. */
export type TargetProtocol =
  | { readonly kind: 'detect'; readonly timeoutMs: number }
  | { readonly kind: 'http1' | 'http2' | 'opaque' | 'tls' }
  | { readonly kind: 'invalid'; readonly reason: string };

interface Stacks {
  readonly protocol: TargetProtocol;
  readonly http1: HttpService;
  readonly http2: HttpService;
  readonly opaque: OpaqueService;
  release(): void;
}

/** Linkerd's limits for the answer of the profile, and of the policy. */
const PROFILE_TIMEOUT_MS = 3_000;
const POLICY_TIMEOUT_MS = 10_000;

export class Target {
  readonly original: Original;
  /** Requests of HTTP/1 and HTTP/2 connections: the stack of the moment, for as long as the target lives. */
  readonly http1: HttpService;
  readonly http2: HttpService;
  /** Accounts of the connections that the application made. */
  readonly source: TransportRecorder;
  readonly #options: TargetOptions;
  readonly #profile: Watch<DestinationProfile>;
  readonly #policy: Watch<OutboundPolicyMessage>;
  readonly #waiting = new Set<(error: HeddleError | null) => void>();
  readonly #timers: Timer[];
  #subscriptions: (() => void)[] = [];
  #stacks: Stacks | null = null;
  #composedFrom: readonly [DestinationProfile | undefined, OutboundPolicyMessage | undefined] | null = null;
  #users = 0;
  #failure: HeddleError | null = null;
  #idle: Timer | null = null;

  /** Opens the watches; the caller holds the target with `acquire` at once. */
  constructor(original: Original, options: TargetOptions) {
    this.original = original;
    this.#options = options;
    const { address, port } = original;
    // The two live and end together, so the target keeps their idle time.
    const discovery = { ...options.discovery, idleMs: Number.POSITIVE_INFINITY };
    this.#profile = watchProfile(formatAddress(address, port), discovery);
    this.#policy = watchOutboundPolicy(address, port, discovery);
    this.http1 = options.answerErrors(this.#current('http1'));
    this.http2 = options.answerErrors(this.#current('http2'));
    this.source = options.recorder.transport('outbound', 'src', sourceLabels(original));
    this.#timers = [
      options.clock.after(PROFILE_TIMEOUT_MS, () => this.#onProfileLate()),
      options.clock.after(POLICY_TIMEOUT_MS, () => this.#onPolicyLate()),
    ];
  }

  get isUsed(): boolean {
    return this.#users > 0;
  }

  /** Since when nobody who could answer is in touch (worker's clock), null while somebody is. */
  get staleSinceMs(): number | null {
    const since = [this.#profile, this.#policy].filter((watch) => watch.isCut).map((watch) => watch.staleSinceMs ?? 0);
    return since.length === 0 ? null : Math.min(...since);
  }

  /** A connection uses the target until the function returned is called. */
  acquire(): () => void {
    this.#idle?.cancel();
    this.#idle = null;
    if (this.#users++ === 0) {
      this.#subscriptions = [
        this.#profile.subscribe(() => this.#onAnswer()),
        this.#policy.subscribe(() => this.#onAnswer()),
      ];
      // The answers may have changed while nobody listened.
      this.#onAnswer();
    }
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      if (--this.#users > 0) return;
      for (const unsubscribe of this.#subscriptions) unsubscribe();
      this.#subscriptions = [];
      this.#armIdle();
    };
  }

  /** Null once the target is known; the listener is called later, once, unless the function returned is called. */
  whenKnown(listener: (error: HeddleError | null) => void): (() => void) | null {
    if (this.#stacks) return null;
    if (this.#failure) {
      const failure = this.#failure;
      let isWanted = true;
      queueMicrotask(() => isWanted && listener(failure));
      return () => {
        isWanted = false;
      };
    }
    this.#waiting.add(listener);
    return () => this.#waiting.delete(listener);
  }

  /** Only once the target is known. */
  get protocol(): TargetProtocol {
    return this.#stacks?.protocol ?? { kind: 'invalid', reason: 'target is not known' };
  }

  get opaque(): OpaqueService {
    return this.#stacks!.opaque;
  }

  /** Ends the watches and lets the backends go. */
  close(): void {
    this.#profile.close();
    this.#policy.close();
    this.#stacks?.release();
    for (const timer of this.#timers) timer.cancel();
    this.#idle?.cancel();
  }

  #armIdle(): void {
    const { clock, discovery, onIdle } = this.#options;
    this.#idle = clock.after(discovery.idleMs, () => {
      // With the control plane out of reach what is known now is all there is: it outlives its idle time.
      if (this.#stacks && this.staleSinceMs !== null) {
        this.#armIdle();
        return;
      }
      this.close();
      onIdle();
    });
  }

  #onAnswer(): void {
    if (this.#composedFrom?.[0] === this.#profile.value && this.#composedFrom?.[1] === this.#policy.value) {
      if (this.#stacks) return;
    }
    // Known targets follow every change; a lost profile does not unmake what was composed with it.
    const resolution =
      this.#stacks && this.#policy.value !== undefined
        ? resolveLate(this.original, this.#profile, this.#policy, this.#options)
        : resolve(this.original, this.#profile, this.#policy, this.#options);
    if (resolution) this.#compose(resolution);
  }

  /** The policy alone will do, if it is there. */
  #onProfileLate(): void {
    if (this.#stacks || this.#policy.value === undefined) return;
    this.#compose(resolveLate(this.original, this.#profile, this.#policy, this.#options));
  }

  #onPolicyLate(): void {
    if (this.#stacks) return;
    try {
      this.#compose(resolveLate(this.original, this.#profile, this.#policy, this.#options));
    } catch (error) {
      this.#failure = error as HeddleError;
      this.#options.log.warn('connections are refused until discovery answers', { error });
      this.#tell(this.#failure);
    }
  }

  #compose(resolution: Resolution): void {
    const before = this.#stacks;
    this.#composedFrom = [this.#profile.value, this.#policy.value];
    this.#failure = null;
    this.#stacks = composeStacks(resolution, this.original, this.#options);
    // After the new stacks took their leases, so that backends in use by both live on.
    before?.release();
    if (this.#stacks.protocol.kind === 'invalid') {
      const { reason } = this.#stacks.protocol;
      this.#options.log.warn('policy cannot be understood: connections are refused', { ...this.original, reason });
    }
    this.#tell(null);
  }

  #tell(error: HeddleError | null): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const listener of waiting) listener(error);
  }

  #current(version: 'http1' | 'http2'): HttpService {
    return {
      call: (request, exchange, response) => {
        const service = this.#stacks?.[version];
        if (service) return service.call(request, exchange, response);
        return failLater(response, new HeddleError('discovery-unavailable', 'target is not known'));
      },
    };
  }
}

/** The application's side of a connection is inside of the pod, and never secured. */
function sourceLabels({ address, port }: Original): Labels {
  return {
    target_addr: formatAddress(address, port),
    target_ip: address,
    target_port: String(port),
    tls: 'no_identity',
    no_tls_reason: 'loopback',
  };
}

/** The stacks of a target: everything a connection to it may turn out to need. */
function composeStacks(resolution: Resolution, original: Original, options: TargetOptions): Stacks {
  const { policy, authority } = resolution;
  const use = { parent: policy.parent, authority };
  const [http1, http2] =
    resolution.kind === 'profile'
      ? sameForBoth(composeProfile(resolution.profile, original.port, options))
      : composePolicy(policy, authority, options);
  const opaque = composeOpaque(opaqueRoutes(policy), use, options);
  return {
    protocol: protocolOf(resolution),
    http1: http1.service,
    http2: http2.service,
    opaque: opaque.service,
    release: () => {
      http1.release();
      if (http2 !== http1) http2.release();
      opaque.release();
    },
  };
}

function composePolicy(
  { parent, protocol }: OutboundPolicy,
  authority: string,
  options: TargetOptions,
): readonly [Composed<HttpService>, Composed<HttpService>] {
  const compose = (http: HttpRoutes) => composeRoutes(http, { parent, authority }, options);
  switch (protocol.kind) {
    case 'detect':
      return [compose(protocol.http1), compose(protocol.http2)];
    case 'http1':
    case 'http2':
    case 'grpc':
      return sameForBoth(compose(protocol.http));
    default:
      return sameForBoth(noHttp(protocol.kind === 'invalid' ? protocol.reason : 'target takes no requests'));
  }
}

function sameForBoth<T>(composed: T): readonly [T, T] {
  return [composed, composed];
}

function noHttp(reason: string): Composed<HttpService> {
  const error = new HeddleError('invalid-policy', reason);
  return { service: { call: (_request, _exchange, response) => failLater(response, error) }, release: () => {} };
}

function protocolOf(resolution: Resolution): TargetProtocol {
  const { protocol } = resolution.policy;
  const isOpaque = resolution.kind === 'profile' ? resolution.profile.isOpaque : resolution.isOpaque;
  if (isOpaque && protocol.kind !== 'invalid') return { kind: 'opaque' };
  switch (protocol.kind) {
    case 'detect':
      return { kind: 'detect', timeoutMs: protocol.timeoutMs };
    case 'grpc':
      return { kind: 'http2' };
    case 'invalid':
      return { kind: 'invalid', reason: protocol.reason };
    default:
      return { kind: protocol.kind };
  }
}
