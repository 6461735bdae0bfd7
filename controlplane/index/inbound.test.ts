import { describe, expect, test } from 'vitest';
import type { KubeObject } from '#kube/resources.ts';
import { mkCluster } from '../../test/support/cluster.ts';
import { mkNamespace, mkPod } from '../../test/support/resources.ts';
import type { InboundSnapshot } from '../core/model.ts';

const target = (port = 8080) => ({ namespace: 'default', pod: 'a', port });
const everything = {
  reference: { kind: 'default', name: 'default' },
  authorizations: [],
  matches: [{ path: { kind: 'prefix', value: '/' }, method: null }],
};
const all = ['0.0.0.0/0', '::/0'].map((cidr) => ({ cidr, except: [] }));
const cluster = ['10.0.0.0/8', '100.64.0.0/10', '172.16.0.0/12', '192.168.0.0/16', 'fd00::/8'].map((cidr) => ({
  cidr,
  except: [],
}));
const anyone = { kind: 'unauthenticated' };
const anyIdentity = { kind: 'identities', names: [], suffixes: [[]] };

const annotated = (annotations: Record<string, string>) =>
  Object.fromEntries(Object.entries(annotations).map(([key, value]) => [`config.linkerd.io/${key}`, value]));

function inbound(
  onPod: Record<string, string> = {},
  onNamespace: Record<string, string> = {},
  port = 8080,
): InboundSnapshot {
  const pod = mkPod('a', { annotations: annotated(onPod) });
  return mkCluster([pod, mkNamespace('default', annotated(onNamespace))]).inbound.get(target(port));
}

describe('default policies', () => {
  test.each([
    ['all-unauthenticated', [{ networks: all, clients: anyone }]],
    ['all-authenticated', [{ networks: all, clients: anyIdentity }]],
    ['cluster-unauthenticated', [{ networks: cluster, clients: anyone }]],
    ['cluster-authenticated', [{ networks: cluster, clients: anyIdentity }]],
    ['deny', []],
    ['audit', [{ networks: all, clients: anyone }]],
  ])('%s', (name, authorizations) => {
    const reference = { kind: 'default', name };
    expect(inbound({ 'default-inbound-policy': name })).toEqual({
      kind: 'server',
      reference,
      protocol: 'detect',
      authorizations: authorizations.map((authorization) => ({ reference, ...authorization })),
      routes: [everything],
    });
  });

  test('come from the pod, the namespace, the cluster, in this order', () => {
    const name = (snapshot: InboundSnapshot) => snapshot.kind === 'server' && snapshot.reference.name;
    const policy = (value: string) => ({ 'default-inbound-policy': value });
    expect(name(inbound(policy('deny'), policy('audit')))).toBe('deny');
    expect(name(inbound({}, policy('audit')))).toBe('audit');
    expect(name(inbound())).toBe('all-unauthenticated');
    expect(name(inbound(policy('typo'), policy('audit')))).toBe('audit');
  });

  test('ports that require an identity', () => {
    const name = (policy: string, port = 8080) => {
      const annotations = { 'default-inbound-policy': policy, 'proxy-require-identity-inbound-ports': '8080' };
      const snapshot = inbound(annotations, {}, port);
      return snapshot.kind === 'server' && snapshot.reference.name;
    };
    expect(name('all-unauthenticated')).toBe('all-authenticated');
    expect(name('cluster-unauthenticated')).toBe('cluster-authenticated');
    expect(name('deny')).toBe('deny');
    expect(name('all-unauthenticated', 9090)).toBe('all-unauthenticated');
  });

  test('opaque ports have no routes', () =>
    expect(inbound({}, {}, 5432)).toMatchObject({ protocol: 'opaque', routes: [] }));
});

test('probes of the kubelet are let in beside any policy', () => {
  const pod = mkPod('a', {
    annotations: annotated({ 'default-inbound-policy': 'deny' }),
    spec: {
      containers: [
        {
          name: 'app',
          ports: [{ containerPort: 8080, name: 'http' }],
          livenessProbe: { httpGet: { port: 'http', path: '/live?full=1' } },
          readinessProbe: { httpGet: { port: 8080, path: '/ready' } },
          startupProbe: { httpGet: { port: 9090, path: '/start' } },
        },
      ],
    },
  });
  const reference = { kind: 'default', name: 'probe' };
  expect(mkCluster([pod]).inbound.get(target())).toMatchObject({
    authorizations: [],
    routes: [
      everything,
      {
        reference,
        authorizations: [{ reference, networks: all, clients: anyone }],
        matches: [
          { path: { kind: 'exact', value: '/live' }, method: 'GET' },
          { path: { kind: 'exact', value: '/ready' }, method: 'GET' },
        ],
      },
    ],
  });
});

test('workloads that are not known', () =>
  expect(mkCluster().inbound.get(target())).toEqual({ kind: 'refused', code: 'not-found', message: 'unknown server' }));

const policy = (kind: string, name: string, spec: unknown, extra: object = {}): KubeObject =>
  ({
    apiVersion: 'policy.linkerd.io/v1beta1',
    kind,
    metadata: { name, namespace: 'default', ...extra },
    spec,
  }) as KubeObject;
const server = (name: string, spec: object = {}, extra: object = {}) =>
  policy('Server', name, { podSelector: { matchLabels: { app: 'web' } }, port: 'http', ...spec }, extra);
const resource = (kind: string, name: string) => ({
  kind: 'resource',
  group: 'policy.linkerd.io',
  resource: kind,
  namespace: 'default',
  name,
});

describe('Servers', () => {
  const pod = mkPod('a', { labels: { app: 'web' }, annotations: annotated({ 'default-inbound-policy': 'audit' }) });

  test('replace the default policy of the port they select, and deny what nobody authorizes', () => {
    const rig = mkCluster([pod, server('web', { proxyProtocol: 'HTTP/1' })]);
    expect(rig.inbound.get(target())).toEqual({
      kind: 'server',
      reference: resource('server', 'web'),
      protocol: 'http1',
      authorizations: [],
      routes: [everything],
    });
    expect(rig.inbound.get(target(9090))).toMatchObject({ reference: { kind: 'default', name: 'audit' } });
  });

  test('have an access policy of their own', () =>
    expect(mkCluster([pod, server('web', { accessPolicy: 'all-authenticated' })]).inbound.get(target())).toMatchObject({
      authorizations: [
        { reference: { kind: 'default', name: 'all-authenticated' }, networks: all, clients: anyIdentity },
      ],
    }));

  test('the oldest counts, then the first by name', () => {
    const name = (...servers: KubeObject[]) => {
      const snapshot = mkCluster([pod, ...servers]).inbound.get(target());
      return snapshot.kind === 'server' && snapshot.reference.name;
    };
    expect(name(server('b'), server('a'))).toBe('a');
    const at = (creationTimestamp: string) => ({ creationTimestamp });
    expect(name(server('a', {}, at('2026-02-01T00:00:00Z')), server('b', {}, at('2026-01-01T00:00:00Z')))).toBe('b');
  });

  test('come and go while somebody watches', () => {
    const rig = mkCluster([pod]);
    const heard: string[] = [];
    rig.inbound.subscribe(target(), (snapshot) =>
      heard.push(
        snapshot.kind === 'server' ? `${snapshot.reference.name} ${snapshot.authorizations.length}` : snapshot.kind,
      ),
    );
    const authorization = policy('ServerAuthorization', 'x', {
      server: { name: 'web' },
      client: { unauthenticated: true },
    });
    rig.apply(server('web'));
    rig.apply(authorization);
    rig.delete(authorization);
    rig.delete(server('web'));
    rig.delete(pod);
    expect(heard).toEqual(['web 0', 'web 1', 'web 0', 'audit 1', 'refused']);
  });
});

describe('authorizations of a Server', () => {
  const pod = mkPod('a', { labels: { app: 'web' } });
  const authorizations = (...objects: KubeObject[]) => {
    const snapshot = mkCluster([pod, server('web', {}, { labels: { tier: 'front' } }), ...objects]).inbound.get(
      target(),
    );
    return snapshot.kind === 'server' ? snapshot.authorizations : snapshot;
  };

  test('ServerAuthorization by name and by labels', () => {
    const client = {
      meshTLS: { identities: ['*', '*.a.b', 'c.d'], serviceAccounts: [{ name: 'x' }, { name: 'y', namespace: 'z' }] },
    };
    expect(authorizations(policy('ServerAuthorization', 'names', { server: { name: 'web' }, client }))).toEqual([
      {
        reference: resource('serverauthorization', 'names'),
        networks: cluster,
        clients: {
          kind: 'identities',
          names: [
            'c.d',
            'x.default.serviceaccount.identity.heddle.cluster.local',
            'y.z.serviceaccount.identity.heddle.cluster.local',
          ],
          suffixes: [[], ['a', 'b']],
        },
      },
    ]);
    const open = { unauthenticated: true, networks: [{ cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] }] };
    const bySelector = (tier: string) =>
      policy('ServerAuthorization', 'labels', { server: { selector: { matchLabels: { tier } } }, client: open });
    expect(authorizations(bySelector('front'))).toEqual([
      {
        reference: resource('serverauthorization', 'labels'),
        networks: [{ cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] }],
        clients: anyone,
      },
    ]);
    expect(authorizations(bySelector('back'))).toEqual([]);
  });

  test('mesh TLS without a client certificate', () =>
    expect(
      authorizations(
        policy('ServerAuthorization', 'tls', {
          server: { name: 'web' },
          client: { meshTLS: { unauthenticatedTLS: true } },
        }),
      ),
    ).toMatchObject([{ clients: { kind: 'tls' } }]));

  test('AuthorizationPolicy with what it requires', () => {
    const group = 'policy.linkerd.io';
    const objects = [
      policy('AuthorizationPolicy', 'p', {
        targetRef: { group, kind: 'Server', name: 'web' },
        requiredAuthenticationRefs: [
          { group, kind: 'MeshTLSAuthentication', name: 'clients' },
          { group, kind: 'NetworkAuthentication', name: 'nets' },
        ],
      }),
      policy('MeshTLSAuthentication', 'clients', {
        identityRefs: [
          { kind: 'ServiceAccount', name: 'x' },
          { kind: 'ServiceAccount' },
          { kind: 'Namespace', name: 'shop' },
        ],
      }),
      policy('NetworkAuthentication', 'nets', { networks: [{ cidr: '10.0.0.0/8' }] }),
    ];
    expect(authorizations(...objects)).toEqual([
      {
        reference: resource('authorizationpolicy', 'p'),
        networks: [{ cidr: '10.0.0.0/8', except: [] }],
        clients: {
          kind: 'identities',
          names: ['x.default.serviceaccount.identity.heddle.cluster.local'],
          suffixes: [
            ['default', 'serviceaccount', 'identity', 'heddle', 'cluster', 'local'],
            ['shop', 'serviceaccount', 'identity', 'heddle', 'cluster', 'local'],
          ],
        },
      },
    ]);
    // A reference that leads nowhere authorizes nobody.
    expect(authorizations(objects[0]!, objects[1]!)).toEqual([]);
    expect(authorizations(objects[0]!, objects[2]!)).toEqual([]);
  });

  test('AuthorizationPolicy for a whole namespace, requiring nothing', () => {
    const namespaced = (name: string) =>
      policy('AuthorizationPolicy', 'p', { targetRef: { kind: 'Namespace', name }, requiredAuthenticationRefs: [] });
    expect(authorizations(namespaced('default'))).toMatchObject([{ networks: all, clients: anyone }]);
    expect(authorizations(namespaced('other'))).toEqual([]);
  });

  test('an authentication that comes later', () => {
    const rig = mkCluster([
      pod,
      server('web'),
      policy('AuthorizationPolicy', 'p', {
        targetRef: { group: 'policy.linkerd.io', kind: 'Server', name: 'web' },
        requiredAuthenticationRefs: [{ kind: 'NetworkAuthentication', name: 'nets', namespace: 'other' }],
      }),
    ]);
    const heard: number[] = [];
    rig.inbound.subscribe(target(), (snapshot) =>
      heard.push(snapshot.kind === 'server' ? snapshot.authorizations.length : -1),
    );
    rig.apply(policy('NetworkAuthentication', 'nets', { networks: [{ cidr: '10.0.0.0/8' }] }, { namespace: 'other' }));
    expect(heard).toEqual([1]);
  });
});
