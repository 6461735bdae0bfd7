// Who may have which certificate. Two ways: a workload brings its own ServiceAccount token, as Linkerd's proxies do, or
// a node's agent asks for a pod that runs on its node. The second never trusts what the agent says about the pod: the
// node comes from the reviewed token, the pod from the cluster.

import { type IdentityParts, identityName } from '#api/names.ts';
import type { Clock } from '#lib/clock.ts';
import { describeError } from '#lib/errors.ts';
import { Status } from '#lib/grpc/status.ts';
import type { PodFacts } from './pods.ts';
import { RateLimit, type RateLimitOptions } from './rate-limit.ts';
import { Refusal } from './refusal.ts';
import type { TokenReviewer, TokenSubject } from './tokens.ts';

export interface CertifyClaim {
  /** The identity asked for, in DNS form. */
  identity: string;
  token: string;
  /** UID of the pod the certificate is for; null when the caller speaks for itself. */
  podUid: string | null;
}

/** What the caller may have, and what the audit line says about it. */
export interface Grant {
  identity: IdentityParts;
  way: 'pod-token' | 'node';
  /** `<namespace>/<ServiceAccount>` of the token. */
  caller: string;
  node: string;
  pod: string;
  podUid: string;
}

export interface AuthorizerOptions {
  reviewer: TokenReviewer;
  audience: string;
  findPod: (uid: string) => PodFacts | undefined;
  controlPlaneNamespace: string;
  trustDomain: string;
  /** The ServiceAccount that agents run as. */
  agent: { namespace: string; serviceAccount: string };
  nodeRate: RateLimitOptions;
  clock: Clock;
}

const DNS_LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

export class Authorizer {
  readonly #options: AuthorizerOptions;
  readonly #nodeRate: RateLimit;

  constructor(options: AuthorizerOptions) {
    this.#options = options;
    this.#nodeRate = new RateLimit(options.nodeRate);
  }

  /** Throws {@link Refusal} when the claim does not hold. */
  async authorize(claim: CertifyClaim): Promise<Grant> {
    const subject = await this.#review(claim.token);
    const caller = parseUsername(subject.username);
    const grant =
      claim.podUid === null ? this.#ownGrant(caller, subject) : this.#nodeGrant(claim.podUid, caller, subject);
    const granted = identityName(grant.identity);
    if (granted !== claim.identity) {
      throw new Refusal(
        Status.failedPrecondition,
        'identity-mismatch',
        `certify the identity "${claim.identity}": the token is good for "${granted}"`,
      );
    }
    return grant;
  }

  async #review(token: string): Promise<TokenSubject> {
    const verdict = await this.#options.reviewer.review(token, this.#options.audience).catch((cause: unknown) => {
      throw new Refusal(Status.unavailable, 'review-failed', `review the token: ${describeError(cause)}`, cause);
    });
    if (verdict.kind === 'authenticated') return verdict.subject;
    const code = verdict.kind === 'malformed' ? Status.invalidArgument : Status.failedPrecondition;
    throw new Refusal(code, `token-${verdict.kind}`, verdict.reason);
  }

  /** Linkerd's way: the token is the workload's own. */
  #ownGrant(caller: ServiceAccountName, subject: TokenSubject): Grant {
    return {
      identity: this.#identityOf(caller.namespace, caller.name),
      way: 'pod-token',
      caller: `${caller.namespace}/${caller.name}`,
      node: subject.node?.name ?? '',
      pod: subject.pod ? `${caller.namespace}/${subject.pod.name}` : '',
      podUid: subject.pod?.uid ?? '',
    };
  }

  #nodeGrant(podUid: string, caller: ServiceAccountName, subject: TokenSubject): Grant {
    const { agent } = this.#options;
    const callerName = `${caller.namespace}/${caller.name}`;
    if (caller.namespace !== agent.namespace || caller.name !== agent.serviceAccount) {
      throw denied(
        'not-agent',
        `certify for a pod as "${callerName}": expected the agent "${agent.namespace}/${agent.serviceAccount}"`,
      );
    }
    const node = subject.node?.name;
    if (!node) throw denied('no-node-claim', `certify for a pod as "${callerName}": expected a token bound to a node`);
    if (!this.#nodeRate.take(node, this.#options.clock.nowMs())) {
      throw new Refusal(
        Status.resourceExhausted,
        'node-rate',
        `certify for node "${node}": more than ${this.#options.nodeRate.perSecond} requests a second, try again later`,
      );
    }
    const pod = this.#livePod(podUid);
    if (pod.node !== node) {
      throw denied(
        'other-node',
        `certify for pod "${pod.namespace}/${pod.name}" from node "${node}": it runs elsewhere`,
      );
    }
    return {
      identity: this.#identityOf(pod.namespace, pod.serviceAccount),
      way: 'node',
      caller: callerName,
      node,
      pod: `${pod.namespace}/${pod.name}`,
      podUid,
    };
  }

  #livePod(podUid: string): PodFacts {
    const pod = this.#options.findPod(podUid);
    // Not terminal: a pod that just started may reach this replica's watch a moment later.
    if (!pod) throw new Refusal(Status.notFound, 'unknown-pod', `certify for pod "${podUid}": no such pod is known`);
    const name = `${pod.namespace}/${pod.name}`;
    if (!pod.isLive) {
      throw new Refusal(Status.failedPrecondition, 'dead-pod', `certify for pod "${name}": it has ended`);
    }
    if (pod.isHostNetwork) {
      throw new Refusal(
        Status.failedPrecondition,
        'host-network',
        `certify for pod "${name}": it uses the node's network and cannot be meshed`,
      );
    }
    return pod;
  }

  #identityOf(namespace: string, serviceAccount: string): IdentityParts {
    const { controlPlaneNamespace, trustDomain } = this.#options;
    return { serviceAccount, namespace, controlPlaneNamespace, trustDomain };
  }
}

interface ServiceAccountName {
  namespace: string;
  name: string;
}

/** `system:serviceaccount:<ns>:<sa>`; names with dots would make identities ambiguous. */
function parseUsername(username: string): ServiceAccountName {
  const parts = username.split(':');
  const [system, kind, namespace = '', name = ''] = parts;
  const isServiceAccount = parts.length === 4 && system === 'system' && kind === 'serviceaccount';
  if (isServiceAccount && DNS_LABEL.test(namespace) && DNS_LABEL.test(name)) return { namespace, name };
  throw new Refusal(
    Status.invalidArgument,
    'not-service-account',
    `read the user "${username.slice(0, 256)}" of the token: expected system:serviceaccount:<namespace>:<name>`,
  );
}

function denied(code: string, message: string): Refusal {
  return new Refusal(Status.permissionDenied, code, message);
}
