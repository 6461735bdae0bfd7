import { describe, expect, test } from 'vitest';
import { mkCluster } from '../../test/support/cluster.ts';
import { mkNamespace, mkNode, mkPod, mkService, mkSlice } from '../../test/support/resources.ts';
import type { ProfileSnapshot } from '../core/model.ts';
import type { ProfileTarget } from './profiles.ts';

type Rig = ReturnType<typeof mkCluster>;
const client = { clientNamespace: null, clientNode: null };
const byIp = (ip: string, port = 80): ProfileTarget => ({ host: { kind: 'ip', ip }, port, ...client });
const byName = (name: string, port = 80, hostname: string | null = null): ProfileTarget => ({
  host: { kind: 'service', name: { namespace: 'default', name, hostname } },
  port,
  ...client,
});
const profile = (rig: Rig, target: ProfileTarget): ProfileSnapshot => {
  const subscription = rig.profiles.subscribe(target, () => {});
  const { current } = subscription;
  subscription.close();
  return current;
};

describe('a Service', () => {
  test.each([
    ['by ClusterIP', byIp('10.96.0.1')],
    ['by the second family', byIp('FD00:0::60')],
    ['by name', byName('web')],
  ])('%s', (_how, target) => {
    const rig = mkCluster([mkService('web', { clusterIPs: ['10.96.0.1', 'fd00::60'] })]);
    expect(profile(rig, target)).toEqual({
      kind: 'service',
      service: { namespace: 'default', name: 'web', port: 80 },
      isOpaque: false,
    });
  });

  test('without that port', () => {
    const rig = mkCluster([mkService('web', { ports: [{ port: 53, protocol: 'UDP' }] })]);
    expect(profile(rig, byName('web'))).toEqual({ kind: 'empty' });
    expect(profile(rig, byIp('10.96.0.1', 53))).toEqual({ kind: 'empty' });
  });

  test.each([
    // annotation, namespace's, appProtocol, port, opaque
    [undefined, undefined, undefined, 80, false],
    [undefined, undefined, undefined, 6379, true],
    ['80', undefined, undefined, 80, true],
    ['', undefined, undefined, 6379, false],
    [undefined, '80', undefined, 80, true],
    ['81', '80', undefined, 80, false],
    ['80', undefined, 'http', 80, false],
    [undefined, undefined, 'linkerd.io/opaque', 80, true],
    [undefined, undefined, 'something.else', 80, true],
    [undefined, undefined, 'kubernetes.io/h2c', 6379, false],
  ])(
    'opaque by annotation %j, namespace %j, appProtocol %j on %i: %s',
    (own, inherited, appProtocol, port, isOpaque) => {
      const key = 'config.linkerd.io/opaque-ports';
      const service = mkService('web', {
        ports: [{ port, ...(appProtocol ? { appProtocol } : {}) }],
        annotations: own === undefined ? {} : { [key]: own },
      });
      const namespace = mkNamespace('default', inherited === undefined ? {} : { [key]: inherited });
      expect(profile(mkCluster([service, namespace]), byName('web', port))).toMatchObject({
        kind: 'service',
        isOpaque,
      });
    },
  );

  test('that is not there, is external, or shares its address', () => {
    const rig = mkCluster([
      mkService('a'),
      mkService('b'),
      mkService('out', { clusterIPs: [''], spec: { type: 'ExternalName', externalName: 'x' } }),
    ]);
    expect(profile(rig, byName('absent'))).toMatchObject({ kind: 'refused', code: 'not-found' });
    expect(profile(rig, byName('out'))).toMatchObject({ kind: 'refused', code: 'invalid-argument' });
    expect(profile(rig, byIp('10.96.0.1'))).toMatchObject({
      kind: 'refused',
      code: 'failed-precondition',
      message: 'address 10.96.0.1 belongs to several Services: default/a, default/b',
    });
  });
});

describe('a pod', () => {
  const annotations = { 'linkerd.io/inject': 'enabled' };

  test('by its address', () => {
    const rig = mkCluster([mkPod('a', { annotations }), mkNode('node-1', { zone: 'z' })]);
    expect(profile(rig, { ...byIp('10.1.0.1', 8080), clientNode: 'node-1' })).toEqual({
      kind: 'endpoint',
      endpoint: expect.objectContaining({
        ip: '10.1.0.1',
        port: 8080,
        identity: 'default.default.serviceaccount.identity.heddle.cluster.local',
        labels: { pod: 'a', serviceaccount: 'default', control_plane_ns: 'heddle', zone: 'z' },
      }),
      namespace: 'default',
      clientZone: 'z',
      isOpaque: false,
    });
    expect(profile(rig, byIp('10.1.0.1', 3306))).toMatchObject({ isOpaque: true, endpoint: { protocol: 'opaque' } });
  });

  test('by a port of its host, dialled at its own address', () => {
    const pod = mkPod('a', {
      annotations,
      ips: ['10.1.0.1', 'fd00::1'],
      spec: { containers: [{ name: 'app', ports: [{ containerPort: 3306, hostPort: 80 }] }] },
    });
    pod.status!.hostIP = '192.0.2.1';
    const rig = mkCluster([pod]);
    expect(profile(rig, byIp('192.0.2.1', 80))).toMatchObject({
      endpoint: { ip: '10.1.0.1', port: 3306, isMeshed: true },
      isOpaque: true,
    });
    expect(profile(rig, byIp('192.0.2.1', 81))).toMatchObject({
      endpoint: { ip: '192.0.2.1', port: 81, isMeshed: false },
    });
  });

  test('by its name behind a headless Service', () => {
    const pod = mkPod('db-0', { annotations });
    const slice = mkSlice('db', [pod]);
    slice.endpoints![0]!.hostname = 'db-0';
    const rig = mkCluster([mkService('db', { clusterIP: 'None' }), pod, slice]);
    expect(profile(rig, byName('db', 8080, 'db-0'))).toMatchObject({
      kind: 'endpoint',
      endpoint: { ip: '10.1.0.1', port: 8080, isMeshed: true },
    });
    expect(profile(rig, byName('db', 8080, 'db-1'))).toMatchObject({ kind: 'refused', code: 'not-found' });
  });

  test('that shares its address', () => {
    const rig = mkCluster([mkPod('a'), mkPod('b')]);
    expect(profile(rig, byIp('10.1.0.1'))).toMatchObject({
      code: 'failed-precondition',
      message: 'address 10.1.0.1 belongs to several pods: default/a, default/b',
    });
    rig.apply(mkPod('b', { phase: 'Succeeded' }));
    expect(profile(rig, byIp('10.1.0.1'))).toMatchObject({ kind: 'endpoint' });
  });
});

test('an address that nobody knows', () => {
  const rig = mkCluster();
  const bare = {
    weight: 10_000,
    labels: {},
    identity: null,
    isMeshed: false,
    protocol: 'unknown',
    transportPort: null,
    authorityOverride: null,
    zone: null,
    nodeName: null,
    forZones: null,
    targetKey: null,
  };
  const rest = { kind: 'endpoint', namespace: null, clientZone: null };
  expect(profile(rig, byIp('198.51.100.1', 443))).toEqual({
    ...rest,
    endpoint: { ...bare, ip: '198.51.100.1', port: 443 },
    isOpaque: false,
  });
  expect(profile(rig, byIp('198.51.100.1', 25))).toMatchObject({ isOpaque: true });
});

test('an address changes hands', () => {
  const rig = mkCluster();
  const heard: string[] = [];
  rig.profiles.subscribe(byIp('10.96.0.1'), (snapshot) =>
    heard.push(snapshot.kind === 'endpoint' ? `pod ${snapshot.endpoint.labels.pod}` : snapshot.kind),
  );
  rig.apply(mkPod('a', { ips: ['10.96.0.1'] }));
  rig.apply(mkPod('a', { ips: ['10.96.0.1'], labels: { irrelevant: 'x' } }));
  rig.delete(mkPod('a'));
  rig.apply(mkService('web'));
  rig.apply(mkService('web', { ports: [81] }));
  rig.delete(mkService('web'));
  expect(heard).toEqual(['pod a', 'pod undefined', 'service', 'empty', 'pod undefined']);
});
