import { describe, expect, test } from 'vitest';
import { mkCluster } from '../../test/support/cluster.ts';
import { mkPod, mkService } from '../../test/support/resources.ts';
import type { OutboundTarget } from './outbound.ts';

const byIp = (ip: string, port = 80): OutboundTarget => ({
  destination: { kind: 'ip', ip },
  port,
  sourceNamespace: 'default',
});
const byName = (name: string, port = 80): OutboundTarget => ({
  destination: { kind: 'service', namespace: 'default', name },
  port,
  sourceNamespace: 'default',
});
const noTraffic = {
  timeouts: { requestMs: null, responseMs: null, idleMs: null },
  httpRetry: null,
  failureAccrual: null,
};

describe('targets', () => {
  const rig = mkCluster([mkService('web'), mkPod('a')]);
  const service = { namespace: 'default', name: 'web', port: 80 };

  test.each([byIp('10.96.0.1'), byName('web')])('a Service by $destination.kind', (target) =>
    expect(rig.outbound.get(target)).toEqual({ kind: 'service', service, protocol: 'detect', traffic: noTraffic }),
  );

  test('a port that the Service does not have', () =>
    expect(rig.outbound.get(byIp('10.96.0.1', 81))).toEqual({
      kind: 'undefined-port',
      service: { ...service, port: 81 },
    }));

  test.each(['10.1.0.1', '10.200.0.1', 'fd00::1'])('%s in the cluster is left to the profile', (ip) =>
    expect(rig.outbound.get(byIp(ip))).toEqual({ kind: 'refused', code: 'not-found', message: 'No such service' }),
  );

  test.each(['198.51.100.7', '2001:db8::7'])('%s outside is egress', (ip) =>
    expect(rig.outbound.get(byIp(ip, 443))).toEqual({ kind: 'egress', ip, port: 443 }),
  );

  test('a name that is no Service', () =>
    expect(rig.outbound.get(byName('absent'))).toMatchObject({ kind: 'refused', code: 'not-found' }));
});

describe('protocols', () => {
  test.each([
    ['http', 'http1'],
    ['kubernetes.io/h2c', 'http2'],
    ['linkerd.io/tcp', 'opaque'],
    ['grpc', 'opaque'],
    ['', 'detect'],
  ])('appProtocol "%s" is %s', (appProtocol, protocol) => {
    const { outbound } = mkCluster([mkService('web', { ports: [{ port: 80, appProtocol }] })]);
    expect(outbound.get(byName('web'))).toMatchObject({ protocol });
  });

  test('opaque ports', () => {
    const { outbound } = mkCluster([mkService('db', { ports: [5432] })]);
    expect(outbound.get(byName('db', 5432))).toMatchObject({ protocol: 'opaque' });
  });
});

describe('settings of a Service', () => {
  const traffic = (annotations: Record<string, string>) => {
    const snapshot = mkCluster([mkService('web', { annotations })]).outbound.get(byName('web'));
    return snapshot.kind === 'service' ? snapshot.traffic : snapshot;
  };

  test('timeouts in whole numbers of one unit', () => {
    const timeout = (request: string) => traffic({ 'timeout.linkerd.io/request': request });
    expect(timeout('5s')).toMatchObject({ timeouts: { requestMs: 5_000 } });
    expect(timeout('1d')).toMatchObject({ timeouts: { requestMs: 86_400_000 } });
    expect(timeout('0')).toMatchObject({ timeouts: { requestMs: 0 } });
    for (const bad of ['1.5s', '1m30s', '5', '-1s', 'x']) {
      expect(timeout(bad)).toMatchObject({ timeouts: { requestMs: null } });
    }
  });

  test('retries', () => {
    expect(
      traffic({ 'retry.linkerd.io/http': '5xx,429,500-503,gateway-error', 'retry.linkerd.io/timeout': '1s' }),
    ).toMatchObject({
      httpRetry: {
        statuses: [
          [500, 599],
          [429, 429],
          [500, 503],
          [502, 504],
        ],
        limit: 1,
        timeoutMs: 1_000,
      },
    });
    expect(traffic({ 'retry.linkerd.io/http': '5xx', 'retry.linkerd.io/limit': '3' })).toMatchObject({
      httpRetry: { limit: 3 },
    });
    expect(traffic({ 'retry.linkerd.io/http': 'sometimes' })).toMatchObject({ httpRetry: null });
    expect(traffic({ 'retry.linkerd.io/limit': '3' })).toMatchObject({ httpRetry: null });
  });

  test('failure accrual', () => {
    const key = 'balancer.linkerd.io/failure-accrual';
    expect(traffic({ [key]: 'consecutive' })).toMatchObject({
      failureAccrual: {
        maxFailures: 7,
        minPenaltyMs: 1_000,
        maxPenaltyMs: 60_000,
        jitterRatio: 0.5,
        honorsRetryAfter: false,
      },
    });
    expect(
      traffic({
        [key]: 'consecutive',
        [`${key}-consecutive-max-failures`]: '3',
        [`${key}-consecutive-jitter-ratio`]: '0',
      }),
    ).toMatchObject({ failureAccrual: { maxFailures: 3, jitterRatio: 0 } });
    expect(traffic({ [key]: 'consecutive', [`${key}-consecutive-min-penalty`]: '2m' })).toMatchObject({
      failureAccrual: null,
    });
    expect(traffic({ [key]: 'sometimes' })).toMatchObject({ failureAccrual: null });
  });
});

test('a target follows its Service', () => {
  const rig = mkCluster();
  const heard: string[] = [];
  rig.outbound.subscribe(byIp('10.96.0.1'), ({ kind }, version) => heard.push(`${version} ${kind}`));
  rig.apply(mkService('web'));
  rig.apply(mkService('web', { labels: { a: 'b' } }));
  rig.apply(mkService('web', { ports: [81] }));
  rig.apply(mkService('web2'));
  rig.delete(mkService('web'), mkService('web2'));
  expect(heard).toEqual(['2 service', '3 undefined-port', '4 refused', '5 refused']);
});
