import { describe, expect, test } from 'vitest';
import { mkNamespace, mkPod } from '../test/support/resources.ts';
import { decideMesh, MESH_DEFAULTS, podMeshConfig, stampOf } from './meshed.ts';

const inject = (value: string | undefined) => (value === undefined ? {} : { 'linkerd.io/inject': value });

describe('whether a pod is meshed', () => {
  test.each([
    // pod, namespace, meshed, reason
    [undefined, undefined, false, 'not-annotated'],
    [undefined, 'enabled', true, 'enabled-by-namespace'],
    [undefined, 'ingress', true, 'enabled-by-namespace'],
    [undefined, 'disabled', false, 'disabled-by-namespace'],
    ['enabled', undefined, true, 'enabled-by-pod'],
    ['enabled', 'disabled', true, 'enabled-by-pod'],
    ['ingress', undefined, true, 'enabled-by-pod'],
    ['disabled', 'enabled', false, 'disabled-by-pod'],
    ['yes', 'enabled', false, 'invalid-annotation'],
    ['enabled', 'true', false, 'invalid-annotation'],
  ] as const)('pod %s, namespace %s', (onPod, onNamespace, isMeshed, reason) => {
    const decision = decideMesh(
      mkPod('a', { annotations: inject(onPod) }),
      mkNamespace('default', inject(onNamespace)),
    );
    expect(decision).toMatchObject({ isMeshed, reason });
    expect(decision.problems).toHaveLength(reason === 'invalid-annotation' ? 1 : 0);
  });

  test('never on the host network', () => {
    const pod = mkPod('a', { annotations: inject('enabled'), spec: { hostNetwork: true } });
    expect(decideMesh(pod, undefined)).toMatchObject({ isMeshed: false, reason: 'host-network' });
  });

  test('ingress mode is the pod’s, or the namespace’s where the pod says nothing', () => {
    const namespace = mkNamespace('default', inject('ingress'));
    expect(decideMesh(mkPod('a'), namespace).isIngress).toBe(true);
    expect(decideMesh(mkPod('a', { annotations: inject('enabled') }), namespace).isIngress).toBe(false);
  });

  test('an invalid value is named with what was expected', () =>
    expect(decideMesh(mkPod('a', { annotations: inject('on') }), undefined).problems).toEqual([
      { on: 'pod', annotation: 'linkerd.io/inject', message: 'read "on": expected enabled, disabled or ingress' },
    ]));

  test('stamps of either mesh', () => {
    expect(stampOf(mkPod('a'))).toBeNull();
    expect(stampOf(mkPod('a', { annotations: { 'heddle.dev/meshed': 'heddle' } }))).toBe('heddle');
    expect(stampOf(mkPod('a', { labels: { 'linkerd.io/control-plane-ns': 'linkerd' } }))).toBe('linkerd');
  });
});

describe('the effective configuration', () => {
  const config = (onPod: Record<string, string>, onNamespace: Record<string, string> = {}) => {
    const prefix = (keys: Record<string, string>) =>
      Object.fromEntries(Object.entries(keys).map(([key, value]) => [`config.linkerd.io/${key}`, value]));
    return podMeshConfig(mkPod('a', { annotations: prefix(onPod) }), mkNamespace('default', prefix(onNamespace)));
  };

  test('without annotations', () =>
    expect(podMeshConfig(mkPod('a'), undefined)).toEqual({
      defaultInboundPolicy: 'all-unauthenticated',
      opaquePorts: [
        [25, 25],
        [587, 587],
        [3306, 3306],
        [4444, 4444],
        [5432, 5432],
        [6379, 6379],
        [9300, 9300],
        [11211, 11211],
      ],
      requireIdentityPorts: [],
      skipInboundPorts: [[4567, 4568]],
      skipOutboundPorts: [[4567, 4568]],
      skipSubnets: [],
      inboundPorts: [8080],
      inboundConnectTimeoutMs: 100,
      outboundConnectTimeoutMs: 1000,
      drainGraceMs: 120_000,
      logLevel: 'warn',
      onAgentDown: 'closed',
      mode: 'node',
      problems: [],
    }));

  test('the pod overrides the namespace, which overrides the defaults', () => {
    const namespace = { 'default-inbound-policy': 'deny', 'opaque-ports': '1' };
    expect(config({}, namespace)).toMatchObject({ defaultInboundPolicy: 'deny', opaquePorts: [[1, 1]] });
    expect(config({ 'opaque-ports': 'http' }, namespace).opaquePorts).toEqual([[8080, 8080]]);
    expect(config({ 'opaque-ports': '' }, namespace).opaquePorts).toEqual([]);
    const strict = { ...MESH_DEFAULTS, inboundPolicy: 'all-authenticated' } as const;
    expect(podMeshConfig(mkPod('a'), undefined, strict).defaultInboundPolicy).toBe('all-authenticated');
  });

  test('skipped inbound ports are added to the default, skipped outbound ports replace it', () => {
    const { skipInboundPorts, skipOutboundPorts } = config({ 'skip-inbound-ports': '22', 'skip-outbound-ports': '22' });
    expect(skipInboundPorts).toEqual([
      [22, 22],
      [4567, 4568],
    ]);
    expect(skipOutboundPorts).toEqual([[22, 22]]);
  });

  test('an unreadable value falls back and is reported with its place', () => {
    const result = config(
      { 'default-inbound-policy': 'all', 'skip-outbound-ports': '70000', 'skip-subnets': '10.0.0.0/33' },
      { 'default-inbound-policy': 'deny' },
    );
    expect(result).toMatchObject({ defaultInboundPolicy: 'deny', skipOutboundPorts: [[4567, 4568]], skipSubnets: [] });
    expect(result.problems.map(({ on, annotation }) => `${on} ${annotation}`)).toEqual([
      'pod config.linkerd.io/default-inbound-policy',
      'pod config.linkerd.io/skip-outbound-ports',
      'pod config.linkerd.io/skip-subnets',
    ]);
  });

  test('times, levels, own keys', () => {
    expect(config({ 'proxy-inbound-connect-timeout': '2s', 'shutdown-grace-period': '1m' })).toMatchObject({
      inboundConnectTimeoutMs: 2000,
      drainGraceMs: 60_000,
    });
    expect(config({ 'proxy-log-level': 'warn,linkerd=debug' }).logLevel).toBe('warn');
    expect(config({ 'proxy-log-level': 'linkerd=trace,trace' }).logLevel).toBe('debug');
    const open = mkPod('a', { annotations: { 'config.heddle.dev/on-agent-down': 'open' } });
    expect(podMeshConfig(open, undefined).onAgentDown).toBe('open');
  });

  test('a long range of inbound ports is watched in part', () =>
    expect(config({ 'pod-inbound-ports': '80,1000-9999' }).inboundPorts).toHaveLength(256));
});
