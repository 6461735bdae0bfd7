import { describe, expect, test } from 'vitest';
import { mkPod, mkService, mkSlice } from '../test/support/resources.ts';
import { validate } from './validate.ts';

const problems = (value: unknown): string[] => {
  const validation = validate(value);
  if (validation.result === 'foreign') return ['foreign'];
  return validation.problems.map(({ field, message }) => `${field}: ${message}`);
};

describe('sound objects', () => {
  test('come back reduced to what is read', () => {
    const pod = mkPod('web', { spec: { containers: [{ name: 'app', volumeMounts: [] } as never] } });
    const validation = validate(pod);
    expect(validation).toMatchObject({ result: 'valid', kind: 'Pod', problems: [] });
    if (validation.result !== 'valid') return;
    expect(validation.object).toEqual({ ...pod, spec: { ...pod.spec, containers: [{ name: 'app' }] } });
  });

  test('get the default namespace, unless they belong to none', () => {
    const { result, ...rest } = validate({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'a' } });
    expect(result).toBe('valid');
    expect(rest).toMatchObject({ object: { metadata: { namespace: 'default' } } });
    const namespace = validate({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'a', namespace: 'x' } });
    expect(namespace).toMatchObject({ object: { metadata: { name: 'a' } } });
    expect(namespace).not.toHaveProperty('object.metadata.namespace');
  });

  test.each([
    mkService('web', {
      ports: [
        { port: 80, targetPort: 'http', name: 'http' },
        { port: 443, name: 'https' },
      ],
    }),
    mkService('web', { clusterIP: 'None' }),
    mkService('web', { spec: { type: 'ExternalName', externalName: 'example.com' } }),
    mkSlice('web', [mkPod('a')]),
    mkSlice('web', [{ addresses: ['fd00::1'], hints: { forZones: [{ name: 'a' }] } }], { addressType: 'IPv6' }),
    {
      apiVersion: 'policy.linkerd.io/v1beta3',
      kind: 'Server',
      metadata: { name: 's', namespace: 'default' },
      spec: { podSelector: { matchLabels: { app: 'web' } }, port: 'http', proxyProtocol: 'HTTP/1' },
    },
    {
      apiVersion: 'policy.linkerd.io/v1alpha1',
      kind: 'AuthorizationPolicy',
      metadata: { name: 's', namespace: 'default' },
      spec: {
        targetRef: { group: 'policy.linkerd.io', kind: 'Server', name: 's' },
        requiredAuthenticationRefs: [{ kind: 'ServiceAccount', name: 'a' }],
      },
    },
  ])('$kind $metadata.name', (object) =>
    expect(validate(object)).toMatchObject({ result: 'valid', object, problems: [] }),
  );
});

describe('problems name the field and what was expected', () => {
  const service = (spec: object) => ({ ...mkService('web'), spec });
  const pod = (spec: object) => ({ ...mkPod('web'), spec });
  const policy = (kind: string, spec: object) => ({
    apiVersion: 'policy.linkerd.io/v1beta1',
    kind,
    metadata: { name: 'a' },
    spec,
  });

  test.each([
    [null, 'null: expected an object with apiVersion and kind'],
    [[], 'null: expected an object with apiVersion and kind'],
    [{ kind: 'Pod' }, 'apiVersion: missing: expected text'],
    [{ apiVersion: 'v1', kind: 3 }, 'kind: read "3": expected text'],
    [{ apiVersion: 'v1', kind: 'Namespace' }, 'metadata: missing: expected an object'],
    [service({ ports: [{ port: 0 }] }), 'spec.ports[0].port: read "0": expected a port from 1 to 65535'],
    [service({ ports: [{ port: 65536 }] }), 'spec.ports[0].port: read "65536": expected a port from 1 to 65535'],
    [service({ ports: [{ port: '80' }] }), 'spec.ports[0].port: read "80": expected a port from 1 to 65535'],
    [service({ ports: [{}] }), 'spec.ports[0].port: missing: expected a port from 1 to 65535'],
    [
      service({
        ports: [
          { port: 80, name: 'a' },
          { port: 81, name: 'a' },
        ],
      }),
      'spec.ports[1].name: read "a": expected a name that no other port has',
    ],
    [
      service({
        ports: [
          { port: 80, name: 'a' },
          { port: 80, name: 'b' },
        ],
      }),
      'spec.ports[1].port: read "80": expected a port that no other entry has',
    ],
    [service({ clusterIP: '10.0.0' }), 'spec.clusterIP: read "10.0.0": expected an IP address or None'],
    [service({ type: 'ExternalName' }), 'spec.externalName: missing: expected the name that the service stands for'],
    [
      service({ type: 'Internal' }),
      'spec.type: read "Internal": expected one of ClusterIP, NodePort, LoadBalancer, ExternalName',
    ],
    [pod({ containers: [] }), 'spec.containers: expected at least one container'],
    [pod({}), 'spec.containers: missing: expected a list'],
    [
      pod({ containers: [{ name: 'a' }, { name: 'a' }] }),
      'spec.containers[1].name: read "a": expected a name that no other container has',
    ],
    [
      pod({ containers: [{ name: 'a', env: [{ name: 'PORT', value: 80 }] }] }),
      'spec.containers[0].env[0].value: read "80": expected text (put it in quotes)',
    ],
    [
      pod({ containers: [{ name: 'a', livenessProbe: { httpGet: { port: 99999 } } }] }),
      'spec.containers[0].livenessProbe.httpGet.port: read "99999": expected a port from 1 to 65535 or the name of a container port',
    ],
    [
      { ...mkPod('Web') },
      'metadata.name: read "Web": expected at most 253 lower-case letters, digits, dashes and dots',
    ],
    [
      { ...mkPod('web'), metadata: { name: 'web', labels: { 'a.b/c': true } } },
      'metadata.labels["a.b/c"]: read "true": expected text (put it in quotes)',
    ],
    [
      mkSlice('web', [{ addresses: ['fd00::1'] }]),
      'endpoints[0].addresses[0]: read "fd00::1": expected an address of type IPv4',
    ],
    [
      policy('Server', { port: 80 }),
      'spec.podSelector: missing: expected either podSelector or externalWorkloadSelector',
    ],
    [
      policy('NetworkAuthentication', { networks: [{ cidr: '10.0.0.0/8', except: ['11.0.0.0/16'] }] }),
      'spec.networks[0].except[0]: read "11.0.0.0/16": expected a part of 10.0.0.0/8',
    ],
    [
      policy('ServerAuthorization', { server: {}, client: { unauthenticated: true } }),
      'spec.server.name: missing: expected either a name or a selector',
    ],
  ])('%#', (value, problem) => {
    expect(validate(value).result).toBe('invalid');
    expect(problems(value)).toEqual([problem]);
  });

  test('a Deployment whose selector misses its own pods', () => {
    const deployment = {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'web' },
      spec: {
        selector: { matchLabels: { app: 'web' } },
        template: { metadata: { labels: { app: 'wep' } }, spec: { containers: [{ name: 'a' }] } },
      },
    };
    expect(problems(deployment)).toEqual([
      'spec.selector: expected a selector that matches the labels of spec.template.metadata',
    ]);
  });
});

describe('annotations that cannot be read', () => {
  test('are problems of an object that stays in use', () => {
    const pod = mkPod('web', {
      annotations: { 'linkerd.io/inject': 'on', 'config.linkerd.io/opaque-ports': '99999' },
    });
    expect(validate(pod).result).toBe('valid');
    expect(problems(pod)).toEqual([
      'metadata.annotations["linkerd.io/inject"]: read "on": expected enabled, disabled or ingress',
      'metadata.annotations["config.linkerd.io/opaque-ports"]: read "99999": expected ports from 1 to 65535',
    ]);
  });

  test('on a Service and on a Namespace', () => {
    expect(problems(mkService('web', { annotations: { 'config.linkerd.io/opaque-ports': 'x!' } }))).toEqual([
      'metadata.annotations["config.linkerd.io/opaque-ports"]: read "x!": expected a port or a range such as 8000-8010',
    ]);
    const annotations = { 'config.linkerd.io/default-inbound-policy': 'open' };
    expect(problems({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'a', annotations } })).toEqual([
      expect.stringContaining('read "open": expected one of all-unauthenticated, all-authenticated'),
    ]);
  });
});

test('resources of other programs, also those that share a kind’s name', () => {
  expect(problems({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' } })).toEqual(['foreign']);
  expect(problems({ apiVersion: 'serving.knative.dev/v1', kind: 'Service', metadata: {} })).toEqual(['foreign']);
  expect(problems({ apiVersion: 'v1', kind: 'toString', metadata: {} })).toEqual(['foreign']);
});
