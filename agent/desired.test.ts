import { describe, expect, test } from 'vitest';
import { Annotation } from '#api/names.ts';
import type { Namespace, Pod } from '#kube/resources.ts';
import { type DesiredInput, desiredState } from './desired.ts';

const settings: DesiredInput['settings'] = {
  nodeName: 'n1',
  trustDomain: 'cluster.local',
  clusterDomain: 'cluster.local',
  controlPlaneNamespace: 'heddle',
  clusterNetworks: ['10.0.0.0/8'],
  defaultInboundPolicy: 'all-unauthenticated',
  trustAnchorsPem: 'PEM',
};
const sandbox = { pod: { namespace: 'shop', name: 'web-0', uid: 'u1' }, annotations: {}, ips: ['10.1.0.5', 'fd00::5'] };

function mkPod(annotations: Record<string, string> = {}, labels: Record<string, string> = {}): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      namespace: 'shop',
      name: 'web-0',
      uid: 'u1',
      annotations,
      labels,
      ownerReferences: [{ apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'web-abc', uid: 'r', controller: true }],
    },
    spec: { serviceAccountName: 'web', containers: [{ name: 'c', ports: [{ name: 'http', containerPort: 8080 }] }] },
  };
}
function mkNamespace(annotations: Record<string, string> = {}): Namespace {
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop', annotations } };
}
const enabled = { [Annotation.inject]: 'enabled' };
function decide(input: Partial<DesiredInput>) {
  return desiredState({ sandbox, pod: undefined, namespace: undefined, hasSynced: true, settings, ...input });
}

describe('desired state of a sandbox', () => {
  test('a meshed pod has the configuration of its annotations and those of its namespace', () => {
    const desired = decide({
      pod: mkPod(
        { [Annotation.opaquePorts]: '3306', [Annotation.skipOutboundPorts]: '25' },
        { 'pod-template-hash': 'abc' },
      ),
      namespace: mkNamespace({ ...enabled, [Annotation.defaultInboundPolicy]: 'deny' }),
    });
    expect(desired).toMatchObject({
      kind: 'meshed',
      problems: [],
      config: {
        pod: { uid: 'u1', namespace: 'shop', name: 'web-0', serviceAccount: 'web', node: 'n1', ips: sandbox.ips },
        metricLabels: {
          namespace: 'shop',
          pod: 'web-0',
          deployment: 'web',
          control_plane_ns: 'heddle',
          workload_ns: 'shop',
          pod_template_hash: 'abc',
        },
        identity: { name: 'web.shop.serviceaccount.identity.heddle.cluster.local', trustAnchorsPem: 'PEM' },
        inbound: { proxyPort: 4143, ports: [8080], opaquePorts: [[3306, 3306]], defaultPolicy: 'deny' },
        outbound: { proxyPort: 4140, destinationContext: '{"ns":"shop","nodeName":"n1","pod":"web-0"}' },
      },
      plan: { inbound: true, outbound: true, failOpen: false },
    });
    expect(desired.kind === 'meshed' && desired.plan.skipOutboundPorts).toContainEqual({ from: 25, to: 25 });
  });

  test('a value that cannot be read is named with object, annotation and remedy, and does no other harm', () => {
    const desired = decide({
      pod: mkPod({ ...enabled, [Annotation.defaultInboundPolicy]: 'open', [Annotation.skipInboundPorts]: '80,99999' }),
      namespace: mkNamespace({ [Annotation.proxyLogLevel]: 'loud' }),
    });
    expect(desired).toMatchObject({
      kind: 'meshed',
      config: { inbound: { defaultPolicy: 'all-unauthenticated' }, logLevel: 'warn' },
      problems: [
        expect.stringMatching(
          /^pod "shop\/web-0": annotation "config.linkerd.io\/default-inbound-policy": read "open": expected/,
        ),
        expect.stringMatching(
          /^namespace "shop": annotation "config.linkerd.io\/proxy-log-level": read "loud": expected/,
        ),
        expect.stringMatching(
          /^pod "shop\/web-0": read annotation ".*skip-inbound-ports" with "99999": expected ports/,
        ),
      ],
    });
    expect(desired.kind === 'meshed' && desired.plan.skipInboundPorts).toContainEqual({ from: 80, to: 80 });
  });

  test('without the pod itself, what the runtime handed over decides, or who asks must wait', () => {
    expect(decide({ namespace: mkNamespace() })).toMatchObject({ kind: 'unmeshed', reason: 'not-annotated' });
    expect(decide({ namespace: mkNamespace(enabled) })).toMatchObject({ kind: 'waiting' });
    const withInject = { ...sandbox, annotations: enabled };
    expect(decide({ sandbox: withInject, hasSynced: false, namespace: mkNamespace() })).toMatchObject({
      kind: 'waiting',
    });
    expect(decide({ hasSynced: false })).toMatchObject({ kind: 'unknown' });
    expect(decide({ sandbox: { ...sandbox, annotations: null } })).toMatchObject({ kind: 'unknown' });
  });

  test('the control plane and pods in sidecar mode have no worker on the node', () => {
    const controlPlane = { ...sandbox, pod: { ...sandbox.pod, namespace: 'heddle' } };
    expect(decide({ sandbox: controlPlane, pod: mkPod(enabled) })).toMatchObject({ kind: 'unmeshed' });
    const pod = mkPod({ ...enabled, [Annotation.mode]: 'sidecar' });
    expect(decide({ pod })).toMatchObject({ kind: 'unmeshed', reason: 'sidecar mode' });
  });
});
