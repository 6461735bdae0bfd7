import { describe, expect, test } from 'vitest';
import { mkPod } from '../test/support/resources.ts';
import { declaredPorts, httpProbes, isReady, ownerOf, podIps } from './pod.ts';

describe('the owner', () => {
  test('is the Deployment behind a ReplicaSet', () =>
    expect(ownerOf(mkPod('web-abc-1', { deployment: 'web' }))).toEqual({ kind: 'Deployment', name: 'web' }));

  test('is a ReplicaSet of its own otherwise', () => {
    const pod = mkPod('web-1', { deployment: 'web' });
    delete pod.metadata.labels!['pod-template-hash'];
    expect(ownerOf(pod)).toEqual({ kind: 'ReplicaSet', name: 'web-abc' });
  });

  test('is nobody without a controller', () => {
    const pod = mkPod('web');
    pod.metadata.ownerReferences = [{ apiVersion: 'v1', kind: 'Node', name: 'n', uid: 'u' }];
    expect(ownerOf(pod)).toBeNull();
  });
});

test('ports and probes over all containers', () => {
  const pod = mkPod('web', {
    spec: {
      initContainers: [{ name: 'side', ports: [{ containerPort: 9000 }], restartPolicy: 'Always' }],
      containers: [
        {
          name: 'app',
          ports: [
            { containerPort: 8080, name: 'http' },
            { containerPort: 53, protocol: 'UDP' },
          ],
          livenessProbe: { httpGet: { port: 'http', path: '/live' } },
          readinessProbe: { httpGet: { port: 8081, path: 'ready' } },
          startupProbe: { tcpSocket: { port: 7000 } },
        },
        { name: 'other', livenessProbe: { httpGet: { port: 'absent' } } },
      ],
    },
  });
  expect(declaredPorts(pod.spec)).toEqual([8080, 8081, 9000]);
  expect(httpProbes(pod.spec)).toEqual([
    { port: 8080, path: '/live' },
    { port: 8081, path: '/ready' },
  ]);
});

test('addresses and readiness', () => {
  expect(podIps(mkPod('a', { ips: ['10.1.0.1', 'fd00::1'] }))).toEqual(['10.1.0.1', 'fd00::1']);
  const old = mkPod('b', { ips: [] });
  old.status!.podIP = '10.1.0.2';
  expect(podIps(old)).toEqual(['10.1.0.2']);
  expect(isReady(mkPod('c', { ready: false }))).toBe(false);
  expect(isReady(mkPod('d'))).toBe(true);
});
