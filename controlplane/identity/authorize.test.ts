import { describe, expect, test } from 'vitest';
import type { Pod } from '#kube/resources.ts';
import { FakeClock } from '#lib/clock.ts';
import { Status } from '#lib/grpc/status.ts';
import { Authorizer, type CertifyClaim } from './authorize.ts';
import { PodIndex } from './pods.ts';
import type { TokenReviewer, TokenSubject } from './tokens.ts';

function mkPod(
  name: string,
  change: Partial<Pod['spec']> = {},
  phase: NonNullable<Pod['status']>['phase'] = 'Running',
): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'web', uid: `uid-${name}` },
    spec: { serviceAccountName: 'nginx', nodeName: 'n1', containers: [], ...change },
    status: { phase },
  };
}

const NGINX = 'nginx.web.serviceaccount.identity.heddle.cluster.local';

const SUBJECTS: Record<string, TokenSubject> = {
  agent: subject('heddle:heddle-agent', 'n1'),
  'agent-of-n2': subject('heddle:heddle-agent', 'n2'),
  'agent-without-node': subject('heddle:heddle-agent', null),
  'same-name-elsewhere': subject('web:heddle-agent', 'n1'),
  nginx: subject('web:nginx', 'n1'),
  person: { username: 'alice', pod: null, node: null },
  dotted: subject('web:a.b', null),
};

function subject(account: string, node: string | null): TokenSubject {
  return { username: `system:serviceaccount:${account}`, pod: null, node: node ? { name: node, uid: node } : null };
}

/** Tokens here are names in SUBJECTS: what a token says is the reviewer's business. */
const reviewer: TokenReviewer = {
  review: async (token) => {
    if (token === 'broken-reviewer') throw new Error('connection refused');
    if (token === 'malformed') return { kind: 'malformed', reason: 'not a token' };
    const found = SUBJECTS[token];
    return found ? { kind: 'authenticated', subject: found } : { kind: 'refused', reason: 'unknown token' };
  },
};

function make(burst = 100): { authorizer: Authorizer; pods: PodIndex; clock: FakeClock } {
  const pods = new PodIndex();
  const clock = new FakeClock();
  for (const pod of [
    mkPod('live'),
    mkPod('pending', {}, 'Pending'),
    mkPod('ended', {}, 'Succeeded'),
    mkPod('failed', {}, 'Failed'),
    mkPod('host', { hostNetwork: true }),
    mkPod('other', { nodeName: 'n2' }),
    mkPod('redis', { serviceAccountName: 'redis' }),
  ]) {
    pods.apply('Pod', pod);
  }
  const authorizer = new Authorizer({
    reviewer,
    audience: 'identity.l5d.io',
    findPod: (uid) => pods.get(uid),
    controlPlaneNamespace: 'heddle',
    trustDomain: 'cluster.local',
    agent: { namespace: 'heddle', serviceAccount: 'heddle-agent' },
    nodeRate: { perSecond: 1, burst, keysMax: 2 },
    clock,
  });
  return { authorizer, pods, clock };
}

function claim(token: string, podUid: string | null, identity = NGINX): CertifyClaim {
  return { identity, token, podUid };
}

describe('a workload with its own token', () => {
  test('gets its own identity', async () => {
    expect(await make().authorizer.authorize(claim('nginx', null))).toMatchObject({
      way: 'pod-token',
      caller: 'web/nginx',
      identity: { namespace: 'web', serviceAccount: 'nginx' },
    });
  });

  test.each([
    ['another identity', 'nginx', 'redis.web.serviceaccount.identity.heddle.cluster.local', 9, 'identity-mismatch'],
    ['another trust domain', 'nginx', 'nginx.web.serviceaccount.identity.heddle.other', 9, 'identity-mismatch'],
    ['a token nobody knows', 'stolen', NGINX, 9, 'token-refused'],
    ['a malformed token', 'malformed', NGINX, 3, 'token-malformed'],
    ['a person as user', 'person', NGINX, 3, 'not-service-account'],
    ['a ServiceAccount with a dot', 'dotted', NGINX, 3, 'not-service-account'],
    ['a reviewer that cannot be reached', 'broken-reviewer', NGINX, 14, 'review-failed'],
  ])('is refused with %s', async (_what, token, identity, status, code) => {
    const { authorizer } = make();
    await expect(authorizer.authorize(claim(token, null, identity))).rejects.toMatchObject({ status, code });
  });
});

describe('an agent', () => {
  test.each(['uid-live', 'uid-pending'])('gets the identity of the pod "%s" of its node', async (podUid) => {
    expect(await make().authorizer.authorize(claim('agent', podUid))).toMatchObject({
      way: 'node',
      node: 'n1',
      podUid,
      identity: { namespace: 'web', serviceAccount: 'nginx' },
    });
  });

  test.each([
    ['a pod of another node', 'agent', 'uid-other', Status.permissionDenied, 'other-node'],
    ['a pod that nobody knows', 'agent', 'uid-none', Status.notFound, 'unknown-pod'],
    ['a pod that ended', 'agent', 'uid-ended', Status.failedPrecondition, 'dead-pod'],
    ['a pod that failed', 'agent', 'uid-failed', Status.failedPrecondition, 'dead-pod'],
    ['a pod on the host network', 'agent', 'uid-host', Status.failedPrecondition, 'host-network'],
    ['a pod of another ServiceAccount', 'agent', 'uid-redis', Status.failedPrecondition, 'identity-mismatch'],
    ['a token without a node', 'agent-without-node', 'uid-live', Status.permissionDenied, 'no-node-claim'],
    ['the token of a workload', 'nginx', 'uid-live', Status.permissionDenied, 'not-agent'],
    ['a ServiceAccount of its name elsewhere', 'same-name-elsewhere', 'uid-live', Status.permissionDenied, 'not-agent'],
    ['the token of another node', 'agent-of-n2', 'uid-live', Status.permissionDenied, 'other-node'],
  ])('is refused for %s', async (_what, token, podUid, status, code) => {
    await expect(make().authorizer.authorize(claim(token, podUid))).rejects.toMatchObject({ status, code });
  });

  test('is refused once the pod is gone, or was made again', async () => {
    const { authorizer, pods } = make();
    pods.delete('Pod', { namespace: 'web', name: 'live' });
    await expect(authorizer.authorize(claim('agent', 'uid-live'))).rejects.toMatchObject({ code: 'unknown-pod' });
    const again = mkPod('live');
    pods.apply('Pod', { ...again, metadata: { ...again.metadata, uid: 'uid-again' } } as Pod);
    await expect(authorizer.authorize(claim('agent', 'uid-again'))).resolves.toMatchObject({ podUid: 'uid-again' });
    pods.reset('Pod', []);
    expect(pods.size).toBe(0);
  });

  test('that asks too often is told to wait, and the other node is not', async () => {
    const { authorizer, clock } = make(2);
    const ask = (): Promise<unknown> => authorizer.authorize(claim('agent', 'uid-live'));
    await ask();
    await ask();
    await expect(ask()).rejects.toMatchObject({ status: Status.resourceExhausted, code: 'node-rate' });
    await expect(authorizer.authorize(claim('agent-of-n2', 'uid-other'))).resolves.toBeDefined();
    clock.advance(1000);
    await ask();
    await expect(ask()).rejects.toMatchObject({ code: 'node-rate' });
  });
});
