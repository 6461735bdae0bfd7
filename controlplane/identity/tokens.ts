// Who a token speaks for. The identity service knows only this interface: a cluster's TokenReview API and a directory
// installation's own token issuer stand behind it, and the same checks run on what either says.

import type { KeyObject } from 'node:crypto';
import type { Clock } from '#lib/clock.ts';
import type { BoundObject } from './jwt.ts';
import { TokenError, verifyToken } from './jwt.ts';

/** What a reviewer found out, in the terms of Kubernetes' TokenReview. */
export interface TokenSubject {
  /** `system:serviceaccount:<namespace>:<name>` for ServiceAccounts. */
  username: string;
  /** The pod that the token is bound to. */
  pod: BoundObject | null;
  /** The node that the token, or the pod it is bound to, is on. */
  node: BoundObject | null;
}

export type TokenVerdict =
  | { kind: 'authenticated'; subject: TokenSubject }
  | { kind: 'refused'; reason: string }
  | { kind: 'malformed'; reason: string };

export interface TokenReviewer {
  /** Rejects only when the review itself could not be done; a bad token is a verdict. */
  review(token: string, audience: string): Promise<TokenVerdict>;
}

/** Looks whether an object that a token is bound to still lives, as the API server does. */
export type IsBoundPodLive = (pod: BoundObject) => boolean;

/** Reviews tokens of an installation without an API server, by the public keys of its token issuer. */
export class KeyTokenReviewer implements TokenReviewer {
  readonly #keys: () => readonly KeyObject[];
  readonly #issuer: string;
  readonly #isBoundPodLive: IsBoundPodLive;
  readonly #clock: Clock;

  constructor(options: {
    /** Asked at each review: the key file is reloaded while the service runs. */
    keys: () => readonly KeyObject[];
    issuer: string;
    isBoundPodLive: IsBoundPodLive;
    clock: Clock;
  }) {
    this.#keys = options.keys;
    this.#issuer = options.issuer;
    this.#isBoundPodLive = options.isBoundPodLive;
    this.#clock = options.clock;
  }

  async review(token: string, audience: string): Promise<TokenVerdict> {
    try {
      const expected = { keys: this.#keys(), issuer: this.#issuer, audience, nowMs: this.#clock.wallMs() };
      const claims = verifyToken(token, expected);
      const bound = claims['kubernetes.io'];
      if (bound.pod && !this.#isBoundPodLive(bound.pod)) {
        return { kind: 'refused', reason: `check the token: the pod "${bound.pod.name}" it is bound to is gone` };
      }
      return {
        kind: 'authenticated',
        subject: { username: claims.sub, pod: bound.pod ?? null, node: bound.node ?? null },
      };
    } catch (error) {
      if (error instanceof TokenError) {
        return { kind: error.isMalformed ? 'malformed' : 'refused', reason: error.message };
      }
      throw error;
    }
  }
}
