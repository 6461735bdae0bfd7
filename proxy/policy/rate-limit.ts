// Local rate limits of one inbound port by the generic cell rate algorithm (ITU-T I.371): a limit of N per second
// admits bursts of N and then one each 1/N s. The total counts first, then either the override that names the client
// or the limit for each identity. Clients without an identity share one cell.

import type { ResourceRef } from './authorization.ts';

export interface RateLimitRules {
  /** Requests per second of all clients together; 0: no such limit. */
  readonly totalPerSecond: number;
  /** Requests per second of each identity; 0: no such limit. */
  readonly identityPerSecond: number;
  /** Replaces the limit of each identity for those named; their requests share one cell. */
  readonly overrides: readonly { readonly perSecond: number; readonly identities: ReadonlySet<string> }[];
}

/** Which limit refused: the label `ratelimit_scope`. */
export type RateLimitScope = 'total' | 'identity';

/** Identities with a cell of their own at a time. */
export const RATE_LIMIT_CELLS_MAX = 10_000;

const SHARED_BY_UNAUTHENTICATED = '';

/** One cell: when the bucket would be full again, in milliseconds of the caller's clock. */
interface Cell {
  fullAtMs: number;
}

export class RateLimits {
  /** The policy resource that metrics name. */
  readonly ref: ResourceRef;
  readonly #rules: RateLimitRules;
  readonly #total: Cell = { fullAtMs: 0 };
  readonly #overrides: readonly Cell[];
  readonly #identities = new Map<string, Cell>();
  readonly #cellsMax: number;

  constructor(ref: ResourceRef, rules: RateLimitRules, cellsMax: number = RATE_LIMIT_CELLS_MAX) {
    this.ref = ref;
    this.#rules = rules;
    this.#overrides = rules.overrides.map(() => ({ fullAtMs: 0 }));
    this.#cellsMax = cellsMax;
  }

  /** Takes one request of `identity` at `nowMs`: null when it may pass, else the limit that refused it. */
  take(identity: string | null, nowMs: number): RateLimitScope | null {
    if (!takeFrom(this.#total, this.#rules.totalPerSecond, nowMs)) return 'total';
    const override = identity === null ? -1 : this.#rules.overrides.findIndex((rule) => rule.identities.has(identity));
    if (override >= 0) {
      const { perSecond } = this.#rules.overrides[override]!;
      return takeFrom(this.#overrides[override]!, perSecond, nowMs) ? null : 'identity';
    }
    if (this.#rules.identityPerSecond === 0) return null;
    const cell = this.#cellOf(identity ?? SHARED_BY_UNAUTHENTICATED, nowMs);
    return takeFrom(cell, this.#rules.identityPerSecond, nowMs) ? null : 'identity';
  }

  #cellOf(identity: string, nowMs: number): Cell {
    const known = this.#identities.get(identity);
    if (known) return known;
    if (this.#identities.size >= this.#cellsMax) this.#makeRoom(nowMs);
    const cell = { fullAtMs: 0 };
    this.#identities.set(identity, cell);
    return cell;
  }

  /** A cell that is full again remembers nothing and can go; where none is, the oldest goes and starts anew. */
  #makeRoom(nowMs: number): void {
    for (const [identity, cell] of this.#identities) {
      if (cell.fullAtMs <= nowMs) this.#identities.delete(identity);
    }
    for (const identity of this.#identities.keys()) {
      if (this.#identities.size < this.#cellsMax) break;
      this.#identities.delete(identity);
    }
  }
}

function takeFrom(cell: Cell, perSecond: number, nowMs: number): boolean {
  if (perSecond === 0) return true;
  const burstMs = 1000;
  const fullAtMs = Math.max(cell.fullAtMs, nowMs) + 1000 / perSecond;
  // Half a microsecond of slack: N times 1/N must not add up to more than a second by rounding.
  if (fullAtMs - nowMs > burstMs + 0.0005) return false;
  cell.fullAtMs = fullAtMs;
  return true;
}
