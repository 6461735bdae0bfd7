import { describe, expect, test } from 'vitest';
import { mkNamespace, mkNode, mkPod, mkService, mkSlice } from '../test/support/resources.ts';
import { assemble } from './assemble.ts';
import { DEFAULT_SERVICE_NETWORKS } from './cluster-ips.ts';
import { formatProblem } from './manifest.ts';
import type { ManifestFile } from './manifest-files.ts';
import type { Deployment, EndpointSlice, Kind, KubeObject, Pod, Service } from './resources.ts';

function file(name: string, ...objects: KubeObject[]): ManifestFile {
  const entries = objects.map((object, index) => ({ kind: object.kind as Kind, object, document: index + 1 }));
  return { file: name, objects: entries, report: null, problems: [] };
}

function report(name: string, pod: Partial<Pod>): ManifestFile {
  const full = { apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace: 'default' }, ...pod } as Pod;
  return { file: `status/default/${name}.json`, objects: [], report: full, problems: [] };
}

const run = (...files: ManifestFile[]) => {
  const { objects, problems } = assemble(files, DEFAULT_SERVICE_NETWORKS);
  const of = <T extends KubeObject>(kind: Kind) => [...objects.get(kind)!.values()] as T[];
  return { of, problems: problems.map(formatProblem) };
};

function mkDeployment(name: string, replicas?: number): Deployment {
  const labels = { app: name };
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace: 'default' },
    spec: {
      ...(replicas === undefined ? {} : { replicas }),
      selector: { matchLabels: labels },
      template: {
        metadata: { labels, annotations: { 'linkerd.io/inject': 'enabled' } },
        spec: { containers: [{ name: 'app', ports: [{ containerPort: 8080, name: 'http' }] }] },
      },
    },
  };
}

describe('Deployments', () => {
  test('become pods as a ReplicaSet would name them', () => {
    const { of } = run(file('a.yaml', mkDeployment('web', 3)));
    const pods = of<Pod>('Pod');
    expect(pods).toHaveLength(3);
    const hash = pods[0]!.metadata.labels!['pod-template-hash']!;
    expect(hash).toMatch(/^[bcdfghjklmnpqrstvwxz2456789]{10}$/);
    for (const { metadata } of pods) {
      expect(metadata.name).toMatch(new RegExp(`^web-${hash}-[bcdfghjklmnpqrstvwxz2456789]{5}$`));
      expect(metadata.labels).toEqual({ app: 'web', 'pod-template-hash': hash });
      expect(metadata.annotations).toEqual({ 'linkerd.io/inject': 'enabled' });
      expect(metadata.ownerReferences).toMatchObject([{ kind: 'ReplicaSet', name: `web-${hash}`, controller: true }]);
      expect(metadata.uid).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    }
    expect(new Set(pods.map(({ metadata }) => metadata.uid)).size).toBe(3);
  });

  test('keep their pods when scaled, and change them all with the template', () => {
    const namesOf = (deployment: Deployment) =>
      run(file('a', deployment))
        .of('Pod')
        .map(({ metadata }) => metadata.name);
    const three = namesOf(mkDeployment('web', 3));
    expect(namesOf(mkDeployment('web', 2))).toEqual(three.slice(0, 2));
    expect(namesOf(mkDeployment('web'))).toEqual(three.slice(0, 1));
    expect(namesOf(mkDeployment('web', 0))).toEqual([]);
    const changed = mkDeployment('web', 3);
    changed.spec.template.spec.containers[0]!.image = 'v2';
    expect(namesOf(changed).filter((name) => three.includes(name))).toEqual([]);
  });
});

describe('reports of a runner', () => {
  test('are merged into the pod', () => {
    const pod = mkPod('a', { ips: [], uid: 'declared' });
    const status = { phase: 'Running', podIPs: [{ ip: '10.1.0.9' }] } as const;
    const { of } = run(
      file('a', pod),
      report('a', {
        metadata: { name: 'a', namespace: 'default', uid: 'real' },
        spec: { nodeName: 'n2' } as never,
        status: status as never,
      }),
    );
    expect(of<Pod>('Pod')).toEqual([
      { ...pod, metadata: { ...pod.metadata, uid: 'real' }, spec: { ...pod.spec, nodeName: 'n2' }, status },
    ]);
  });

  test('of pods that are gone are left out', () => {
    const { of, problems } = run(report('ghost', { status: {} }));
    expect(of('Pod')).toEqual([]);
    expect(problems).toEqual([]);
  });
});

describe('EndpointSlices', () => {
  test('follow from selectors, ready pods and named ports', () => {
    const ports = [{ port: 80, name: 'http', targetPort: 'http' }];
    const service = mkService('web', { ports, clusterIPs: ['10.96.0.1', 'fd00::60'] });
    const labels = { app: 'web' };
    const other = { containers: [{ name: 'app', ports: [{ containerPort: 9090, name: 'http' }] }] };
    const { of } = run(
      file(
        'a',
        service,
        mkNode('node-1', { zone: 'z1' }),
        mkPod('a', { labels, ips: ['10.1.0.1', 'fd00::1'] }),
        mkPod('b', { labels, ips: ['10.1.0.2'], ready: false }),
        mkPod('c', { labels, ips: ['10.1.0.3'], spec: other }),
        mkPod('done', { labels, ips: ['10.1.0.4'], phase: 'Succeeded' }),
        mkPod('pending', { labels, ips: [] }),
        mkPod('other', { labels: { app: 'x' }, ips: ['10.1.0.5'] }),
        mkPod('elsewhere', { labels, namespace: 'shop', ips: ['10.1.0.6'] }),
      ),
    );
    const slices = of<EndpointSlice>('EndpointSlice').map(({ addressType, endpoints, ports, metadata }) => ({
      labels: metadata.labels,
      addressType,
      ports,
      endpoints: endpoints!.map((e) => `${e.addresses} ${e.conditions!.ready} ${e.zone} ${e.targetRef!.name}`),
    }));
    const labelled = { labels: { 'kubernetes.io/service-name': 'web' } };
    const http = (port: number) => [{ name: 'http', port, protocol: 'TCP' }];
    expect(slices).toEqual([
      { ...labelled, addressType: 'IPv4', ports: http(8080), endpoints: ['10.1.0.1 true z1 a', '10.1.0.2 false z1 b'] },
      { ...labelled, addressType: 'IPv6', ports: http(8080), endpoints: ['fd00::1 true z1 a'] },
      { ...labelled, addressType: 'IPv4', ports: http(9090), endpoints: ['10.1.0.3 true z1 c'] },
    ]);
  });

  test('are of the families of the Service', () => {
    const pod = mkPod('a', { labels: { app: 'web' }, ips: ['10.1.0.1', 'fd00::1'] });
    const addresses = (service: Service) =>
      run(file('a', service, pod))
        .of<EndpointSlice>('EndpointSlice')
        .flatMap(({ endpoints }) => endpoints!.flatMap((endpoint) => endpoint.addresses));
    expect(addresses(mkService('web'))).toEqual(['10.1.0.1']);
    expect(addresses(mkService('web', { clusterIPs: ['fd00::60'] }))).toEqual(['fd00::1']);
    const headless = mkService('web', { clusterIPs: ['None'] });
    expect(addresses(headless)).toEqual(['10.1.0.1', 'fd00::1']);
    headless.spec.ipFamilies = ['IPv6'];
    expect(addresses(headless)).toEqual(['fd00::1']);
  });

  test('that are given are the only ones of their Service', () => {
    const given = mkSlice('web', [{ addresses: ['10.9.9.9'] }]);
    const { of } = run(file('a', mkService('web'), given, mkPod('a', { labels: { app: 'web' } })));
    expect(of('EndpointSlice')).toEqual([given]);
  });

  test('of not-ready pods are ready where the Service wants them', () => {
    const service = mkService('web', { spec: { publishNotReadyAddresses: true } });
    const { of } = run(file('a', service, mkPod('a', { labels: { app: 'web' }, ready: false })));
    expect(of<EndpointSlice>('EndpointSlice')[0]!.endpoints![0]!.conditions!.ready).toBe(true);
  });
});

describe('ClusterIPs', () => {
  const bare = (name: string, spec: Partial<Service['spec']> = {}): Service => ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'default' },
    spec: { ports: [{ port: 80 }], ...spec },
  });
  const ips = (...services: Service[]) => {
    const { of } = run(file('a', ...services));
    return Object.fromEntries(
      of<Service>('Service').map(({ metadata, spec }) => [metadata.name, spec.clusterIPs ?? spec.clusterIP]),
    );
  };

  test('are given out by name, whatever else there is', () => {
    const alone = ips(bare('web')).web;
    expect(alone).toEqual([expect.stringMatching(/^10\.(9[6-9]|10\d|11[01])\.\d+\.\d+$/)]);
    expect(ips(bare('db'), bare('web'), bare('cache')).web).toEqual(alone);
  });

  test('of both families where asked for', () =>
    expect(ips(bare('web', { ipFamilyPolicy: 'RequireDualStack' })).web).toEqual([
      expect.stringMatching(/^10\./),
      expect.stringMatching(/^fd00:10:96::/),
    ]));

  test('that are given stay, and are not given out again', () => {
    const [address] = ips(bare('web')).web as string[];
    const result = ips(bare('web'), bare('rival', { clusterIP: address! }));
    expect(result.rival).toEqual([address]);
    expect(result.web).not.toEqual([address]);
  });

  test('are not for headless and external ones', () =>
    expect(ips(bare('a', { clusterIP: 'None' }), bare('b', { type: 'ExternalName', externalName: 'x' }))).toEqual({
      a: 'None',
      b: undefined,
    }));
});

describe('what is implied', () => {
  test('namespaces and their default ServiceAccounts', () => {
    const { of } = run(file('a', mkPod('a', { namespace: 'shop' }), mkNamespace('given', { a: 'b' })));
    expect(of('Namespace').map(({ metadata }) => metadata.name)).toEqual(['given', 'shop']);
    expect(of('ServiceAccount').map(({ metadata }) => `${metadata.namespace}/${metadata.name}`)).toEqual([
      'given/default',
      'shop/default',
    ]);
  });
});

describe('faults between objects', () => {
  test('the same name twice: the first counts', () => {
    const first = mkService('web', { clusterIP: '10.96.0.1' });
    const { of, problems } = run(
      file('a.yaml', first),
      file('b.yaml', mkPod('x'), mkService('web', { clusterIP: '10.96.0.2' })),
    );
    expect(of('Service')).toEqual([first]);
    expect(problems).toEqual([
      'b.yaml document 2, Service default/web, metadata.name: skip it: the one in "a.yaml document 1" has the same name',
    ]);
  });

  test('one address for two pods, unless one is finished or on the host network', () => {
    const ips = ['10.1.0.7'];
    const { problems } = run(
      file(
        'a.yaml',
        mkPod('a', { ips }),
        mkPod('b', { ips }),
        mkPod('done', { ips, phase: 'Failed' }),
        mkPod('host', { ips, spec: { hostNetwork: true } }),
      ),
    );
    expect(problems).toEqual([
      'a.yaml document 2, Pod default/b, status.podIPs: read "10.1.0.7": Pod default/a has this address too',
    ]);
  });

  test('a ServiceAccount that is not there', () =>
    expect(run(file('a.yaml', mkPod('a', { serviceAccount: 'web' }))).problems).toEqual([
      'a.yaml document 1, Pod default/a, spec.serviceAccountName: read "web": expected a ServiceAccount of namespace "default"',
    ]));
});
