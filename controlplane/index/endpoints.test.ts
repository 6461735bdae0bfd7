import { describe, expect, test } from 'vitest';
import { mkCluster } from '../../test/support/cluster.ts';
import { mkNamespace, mkNode, mkPod, mkService, mkSlice } from '../../test/support/resources.ts';
import type { EndpointSnapshot } from '../core/model.ts';
import type { EndpointTarget } from './endpoints.ts';

const WEB: EndpointTarget = { namespace: 'default', name: 'web', port: 80, hostname: null };
const NOBODY = { nodeName: null };
const meshed = { 'linkerd.io/inject': 'enabled' };

function watch(rig: ReturnType<typeof mkCluster>, target = WEB, client: { nodeName: string | null } = NOBODY) {
  const heard: EndpointSnapshot[] = [];
  const subscription = rig.endpoints.subscribe(target, client, (snapshot) => heard.push(snapshot));
  const addresses = () => subscription.current.endpoints.map(({ ip, port }) => `${ip} ${port}`);
  return { heard, subscription, addresses };
}

describe('an endpoint', () => {
  test('of an unmeshed pod, whole', () => {
    const pod = mkPod('web-abc-1', { deployment: 'web' });
    const { subscription } = watch(mkCluster([mkService('web'), pod, mkSlice('web', [pod])]));
    expect(subscription.current).toEqual({
      service: { namespace: 'default', name: 'web' },
      clientZone: null,
      endpoints: [
        {
          ip: '10.1.0.1',
          port: 8080,
          weight: 10_000,
          labels: {
            pod: 'web-abc-1',
            deployment: 'web',
            serviceaccount: 'default',
            pod_template_hash: 'abc',
            zone: '',
          },
          identity: null,
          isMeshed: false,
          protocol: 'unknown',
          transportPort: null,
          authorityOverride: null,
          zone: null,
          nodeName: 'node-1',
          forZones: null,
          targetKey: 'pod:default/web-abc-1',
        },
      ],
    });
  });

  test('of a meshed pod: identity, transport port, label of the control plane', () => {
    const pod = mkPod('a', { annotations: meshed, serviceAccount: 'web' });
    const { subscription } = watch(mkCluster([mkService('web'), pod, mkSlice('web', [pod])]));
    expect(subscription.current.endpoints[0]).toMatchObject({
      identity: 'web.default.serviceaccount.identity.heddle.cluster.local',
      isMeshed: true,
      protocol: 'unknown',
      transportPort: 4143,
      labels: { pod: 'a', serviceaccount: 'web', control_plane_ns: 'heddle', zone: '' },
    });
  });

  test('says HTTP/2 where upgrades are on, and needs no header where only opaque ones do', () => {
    const pod = mkPod('a', { annotations: meshed });
    const objects = [mkService('web'), pod, mkSlice('web', [pod])];
    const config = { isH2UpgradeEnabled: true, transportHeader: 'opaque' } as const;
    expect(watch(mkCluster(objects, config)).subscription.current.endpoints[0]).toMatchObject({
      protocol: 'h2',
      transportPort: null,
    });
    const opaque = mkPod('a', { annotations: { ...meshed, 'config.linkerd.io/opaque-ports': 'http' } });
    expect(watch(mkCluster([...objects, opaque], config)).subscription.current.endpoints[0]).toMatchObject({
      protocol: 'opaque',
      transportPort: 4143,
    });
  });

  test('of a skipped port is the application’s own', () => {
    const pod = mkPod('a', { annotations: { ...meshed, 'config.linkerd.io/skip-inbound-ports': '8080' } });
    const { subscription } = watch(mkCluster([mkService('web'), pod, mkSlice('web', [pod])]));
    expect(subscription.current.endpoints[0]).toMatchObject({ identity: null, isMeshed: false, transportPort: null });
  });

  test('of the proxy itself takes no header', () => {
    const pod = mkPod('a', { annotations: meshed });
    const slice = mkSlice('web', [pod], { ports: [{ port: 4191 }] });
    const { subscription } = watch(mkCluster([mkService('web'), pod, slice]));
    expect(subscription.current.endpoints[0]).toMatchObject({ isMeshed: true, transportPort: null });
  });

  test('of another mesh is meshed without an identity of ours', () => {
    const pod = mkPod('a', { annotations: { ...meshed, 'heddle.dev/meshed': 'other' } });
    const { subscription } = watch(mkCluster([mkService('web'), pod, mkSlice('web', [pod])]));
    expect(subscription.current.endpoints[0]).toMatchObject({
      identity: null,
      isMeshed: true,
      labels: { control_plane_ns: 'other' },
    });
  });

  test('of a Linkerd sidecar, with the port its proxy listens on', () => {
    const pod = mkPod('a', {
      labels: { 'linkerd.io/control-plane-ns': 'heddle' },
      spec: {
        initContainers: [
          { name: 'linkerd-proxy', env: [{ name: 'LINKERD2_PROXY_INBOUND_LISTEN_ADDR', value: '[::]:5143' }] },
        ],
      },
    });
    const { subscription } = watch(mkCluster([mkService('web'), pod, mkSlice('web', [pod])]));
    expect(subscription.current.endpoints[0]).toMatchObject({ isMeshed: true, transportPort: 5143 });
    expect(subscription.current.endpoints[0]!.identity).toMatch(/^default\.default\.serviceaccount/);
  });

  test('is opaque where a Server says so, and not where a Server says otherwise', () => {
    const pod = mkPod('a', { annotations: meshed, labels: { app: 'web' } });
    const slice = mkSlice('web', [pod], { ports: [{ port: 5432 }] });
    const rig = mkCluster([mkService('web'), pod, slice]);
    const { heard, subscription } = watch(rig);
    expect(subscription.current.endpoints[0]!.protocol).toBe('opaque');
    const server = (proxyProtocol: string) => ({
      apiVersion: 'policy.linkerd.io/v1beta3',
      kind: 'Server',
      metadata: { name: 's', namespace: 'default' },
      spec: { podSelector: { matchLabels: { app: 'web' } }, port: 5432, proxyProtocol },
    });
    rig.apply(server('HTTP/2'));
    rig.apply(server('opaque'));
    rig.delete(server('opaque'));
    expect(heard.map(({ endpoints }) => endpoints[0]!.protocol)).toEqual(['unknown', 'opaque']);
  });

  test('of a gateway: identity, HTTP/2 and the name of the other cluster', () => {
    const slice = mkSlice('web', [{ addresses: ['203.0.113.7'] }], { ports: [{ port: 4143 }] });
    slice.metadata.annotations = {
      'mirror.linkerd.io/remote-gateway-identity': 'gateway.id',
      'mirror.linkerd.io/remote-svc-fq-name': 'web.default.svc.east.local',
    };
    expect(watch(mkCluster([mkService('web'), slice])).subscription.current.endpoints).toEqual([
      expect.objectContaining({
        ip: '203.0.113.7',
        port: 4143,
        identity: 'gateway.id',
        protocol: 'h2',
        transportPort: null,
        authorityOverride: 'web.default.svc.east.local:80',
      }),
    ]);
  });
});

describe('ports', () => {
  const pod = mkPod('a');
  const ports = [
    { name: 'http', port: 8080 },
    { name: 'admin', port: 9090 },
  ];
  const service = mkService('web', {
    ports: [
      { port: 80, name: 'http', targetPort: 'http' },
      { port: 81, name: 'admin', targetPort: 'admin' },
      { port: 82, name: 'absent', targetPort: 'absent' },
      { port: 83, name: 'number', targetPort: 7000 },
    ],
  });
  test.each([
    [80, ['10.1.0.1 8080']],
    [81, ['10.1.0.1 9090']],
    [82, []],
    [83, ['10.1.0.1 7000']],
    [12345, ['10.1.0.1 12345']],
  ])('%i', (port, expected) => {
    const rig = mkCluster([service, pod, mkSlice('web', [pod], { ports })]);
    expect(watch(rig, { ...WEB, port }).addresses()).toEqual(expected);
  });
});

describe('changes', () => {
  test('of pods, slices, namespaces and Services are told, once each', () => {
    const [a, b] = [mkPod('a'), mkPod('b', { ips: ['10.1.0.2'] })];
    const rig = mkCluster([mkService('web'), a, b, mkSlice('web', [a])]);
    const { heard, subscription, addresses } = watch(rig);
    expect(addresses()).toEqual(['10.1.0.1 8080']);
    rig.apply(mkSlice('web', [a, b]));
    expect(addresses()).toEqual(['10.1.0.1 8080', '10.1.0.2 8080']);
    rig.apply(mkSlice('web', [a, b]), a, mkService('web'));
    expect(heard).toHaveLength(1);
    rig.apply(mkNamespace('default', meshed));
    expect(heard).toHaveLength(2);
    expect(heard[1]!.endpoints.every(({ isMeshed }) => isMeshed)).toBe(true);
    rig.apply(mkPod('a', { annotations: { 'linkerd.io/inject': 'disabled' } }));
    expect(heard[2]!.endpoints.map(({ isMeshed }) => isMeshed)).toEqual([false, true]);
    rig.delete(mkService('web'));
    expect(addresses()).toEqual([]);
    rig.apply(mkService('web'));
    expect(addresses()).toHaveLength(2);
    subscription.close();
    rig.delete(mkService('web'));
    expect(heard).toHaveLength(5);
    expect(rig.endpoints.size).toBe(0);
  });

  test('pods that come after their slice', () => {
    const pod = mkPod('a', { annotations: meshed });
    const rig = mkCluster([mkService('web'), mkSlice('web', [pod])]);
    const { addresses } = watch(rig);
    expect(addresses()).toEqual([]);
    rig.apply(pod);
    expect(addresses()).toEqual(['10.1.0.1 8080']);
  });

  test('endpoints that are not ready are left out, those without a condition are ready', () => {
    const pods = [mkPod('a', { ready: false }), mkPod('b', { ips: ['10.1.0.2'] })];
    const slice = mkSlice('web', pods);
    delete slice.endpoints![1]!.conditions;
    expect(watch(mkCluster([mkService('web'), ...pods, slice])).addresses()).toEqual(['10.1.0.2 8080']);
  });

  test('several slices make one set; slices of other Services do not', () => {
    const pods = [mkPod('a'), mkPod('b', { ips: ['10.1.0.2'] }), mkPod('c', { ips: ['10.1.0.3'] })];
    const [a, b, c] = pods as [(typeof pods)[0], (typeof pods)[0], (typeof pods)[0]];
    const rig = mkCluster([
      mkService('web'),
      ...pods,
      mkSlice('web', [a], { name: 'one' }),
      mkSlice('web', [b], { name: 'two' }),
      mkSlice('other', [c]),
    ]);
    const { addresses } = watch(rig);
    expect(addresses()).toEqual(['10.1.0.1 8080', '10.1.0.2 8080']);
    rig.cluster.reset('EndpointSlice', [mkSlice('web', [b], { name: 'two' })]);
    rig.cluster.flush();
    expect(addresses()).toEqual(['10.1.0.2 8080']);
  });

  test('an instance by its hostname', () => {
    const pods = [mkPod('db-0'), mkPod('db-1', { ips: ['10.1.0.2'] })];
    const slice = mkSlice('db', pods);
    slice.endpoints![1]!.hostname = 'db-1';
    const rig = mkCluster([mkService('db', { clusterIP: 'None' }), ...pods, slice]);
    expect(watch(rig, { ...WEB, name: 'db', hostname: 'db-1' }).addresses()).toEqual(['10.1.0.2 8080']);
    expect(watch(rig, { ...WEB, name: 'db', hostname: 'db-2' }).addresses()).toEqual([]);
  });
});

describe('what a client sees', () => {
  const onNode = (name: string, ip: string, nodeName: string) => mkPod(name, { ips: [ip], nodeName });
  const pods = [onNode('a', '10.1.0.1', 'n1'), onNode('b', '10.1.0.2', 'n2'), onNode('c', '10.1.0.3', 'n3')];
  const nodes = [mkNode('n1', { zone: 'east' }), mkNode('n2', { zone: 'west' }), mkNode('n3', { zone: 'west' })];
  const hinted = (...zones: (string | null)[]) => {
    const slice = mkSlice('web', pods);
    for (const [index, zone] of zones.entries()) {
      if (zone) slice.endpoints![index]!.hints = { forZones: [{ name: zone }] };
    }
    return slice;
  };
  const seen = (slice = mkSlice('web', pods), nodeName: string | null = 'n2', spec = {}) =>
    watch(mkCluster([mkService('web', { spec }), ...pods, ...nodes, slice]), WEB, { nodeName })
      .addresses()
      .map((address) => address.split(' ')[0]);

  test('its zone is known from its node', () => {
    const rig = mkCluster([mkService('web'), ...pods, ...nodes, mkSlice('web', pods)]);
    const { subscription } = watch(rig, WEB, { nodeName: 'n2' });
    expect(subscription.current.clientZone).toBe('west');
    expect(subscription.current.endpoints.map(({ zone }) => zone)).toEqual(['east', 'west', 'west']);
  });

  test('its node only, where the Service is local', () => {
    expect(seen(undefined, 'n2', { internalTrafficPolicy: 'Local' })).toEqual(['10.1.0.2']);
    expect(seen(undefined, null, { internalTrafficPolicy: 'Local' })).toEqual([]);
  });

  test('its zone only, where every endpoint has hints and one is meant for it', () => {
    expect(seen(hinted('east', 'west', 'west'))).toEqual(['10.1.0.2', '10.1.0.3']);
    expect(seen(hinted('east', null, 'west'))).toHaveLength(3);
    expect(seen(hinted('east', 'east', 'east'))).toHaveLength(3);
    expect(seen(hinted('east', 'west', 'west'), null)).toHaveLength(3);
  });

  test('one family of a target, IPv6 first where it is enabled', () => {
    const pod = mkPod('a', { ips: ['10.1.0.1', 'fd00::1'] });
    const v4only = mkPod('b', { ips: ['10.1.0.2'] });
    const slices = [
      mkSlice('web', [pod, v4only]),
      mkSlice('web', [{ addresses: ['FD00:0::1'], targetRef: { kind: 'Pod', name: 'a' } }], {
        name: 'v6',
        addressType: 'IPv6',
      }),
    ];
    const objects = [mkService('web'), pod, v4only, ...slices];
    expect(watch(mkCluster(objects)).addresses()).toEqual(['10.1.0.2 8080', 'fd00::1 8080']);
    expect(watch(mkCluster(objects, { isIpv6Enabled: false })).addresses()).toEqual(['10.1.0.1 8080', '10.1.0.2 8080']);
  });

  test('equal views share one snapshot, and a node that moves changes its clients’', () => {
    const rig = mkCluster([mkService('web'), ...pods, ...nodes, hinted('east', 'west', 'west')]);
    rig.apply(mkNode('n4', { zone: 'west' }));
    const n2 = watch(rig, WEB, { nodeName: 'n2' });
    const n4 = watch(rig, WEB, { nodeName: 'n4' });
    expect(n2.subscription.current).toBe(n4.subscription.current);
    rig.apply(mkNode('n4', { zone: 'east' }));
    expect(n2.heard).toEqual([]);
    expect(n4.addresses()).toEqual(['10.1.0.1 8080']);
  });
});

test('Services that have no endpoints to watch', () => {
  const { endpoints } = mkCluster([
    mkService('web'),
    mkService('out', { spec: { type: 'ExternalName', externalName: 'example.com' } }),
  ]);
  const code = (name: string) => endpoints.refusalOf({ namespace: 'default', name })?.code ?? null;
  expect(code('web')).toBeNull();
  expect(code('absent')).toBe('not-found');
  expect(code('out')).toBe('invalid-argument');
});
