// Kubernetes objects for tests, with everything filled in that does not matter to the test.

import type { EndpointSlice, Namespace, Node, Pod, PodSpec, Service, ServicePort } from '#kube/resources.ts';

type Labels = Record<string, string>;

export function mkNamespace(name: string, annotations: Labels = {}): Namespace {
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name, annotations } };
}

export function mkNode(name: string, options: { zone?: string } = {}): Node {
  const labels: Labels = options.zone === undefined ? {} : { 'topology.kubernetes.io/zone': options.zone };
  return { apiVersion: 'v1', kind: 'Node', metadata: { name, labels } };
}

export interface PodOptions {
  namespace?: string;
  uid?: string;
  ips?: string[];
  labels?: Labels;
  annotations?: Labels;
  serviceAccount?: string;
  nodeName?: string;
  ready?: boolean;
  phase?: NonNullable<Pod['status']>['phase'];
  spec?: Partial<PodSpec>;
  /** The Deployment it belongs to; adds the pod-template-hash and the ReplicaSet. */
  deployment?: string;
}

export function mkPod(name: string, options: PodOptions = {}): Pod {
  const { namespace = 'default', ips = ['10.1.0.1'], deployment } = options;
  const owner = deployment && {
    labels: { 'pod-template-hash': 'abc' },
    references: [{ apiVersion: 'apps/v1', kind: 'ReplicaSet', name: `${deployment}-abc`, uid: 'rs', controller: true }],
  };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      namespace,
      uid: options.uid ?? `uid-${namespace}-${name}`,
      labels: { ...options.labels, ...(owner ? owner.labels : {}) },
      annotations: options.annotations ?? {},
      ...(owner ? { ownerReferences: owner.references } : {}),
    },
    spec: {
      serviceAccountName: options.serviceAccount ?? 'default',
      nodeName: options.nodeName ?? 'node-1',
      containers: [{ name: 'app', ports: [{ containerPort: 8080, name: 'http' }] }],
      ...options.spec,
    },
    status: {
      phase: options.phase ?? 'Running',
      ...(ips.length > 0 ? { podIP: ips[0]!, podIPs: ips.map((ip) => ({ ip })) } : {}),
      conditions: [{ type: 'Ready', status: options.ready === false ? 'False' : 'True' }],
    },
  };
}

export interface ServiceOptions {
  namespace?: string;
  clusterIP?: string;
  clusterIPs?: string[];
  ports?: (number | ServicePort)[];
  selector?: Labels;
  annotations?: Labels;
  labels?: Labels;
  spec?: Partial<Service['spec']>;
}

export function mkService(name: string, options: ServiceOptions = {}): Service {
  const clusterIPs = options.clusterIPs ?? [options.clusterIP ?? '10.96.0.1'];
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      name,
      namespace: options.namespace ?? 'default',
      annotations: options.annotations ?? {},
      labels: options.labels ?? {},
    },
    spec: {
      clusterIP: clusterIPs[0]!,
      clusterIPs,
      selector: options.selector ?? { app: name },
      ports: (options.ports ?? [80]).map((port) => (typeof port === 'number' ? { port } : port)),
      ...options.spec,
    },
  };
}

export interface SliceOptions {
  namespace?: string;
  addressType?: EndpointSlice['addressType'];
  ports?: NonNullable<EndpointSlice['ports']>;
  name?: string;
}

type SliceEndpoint = NonNullable<EndpointSlice['endpoints']>[number];

/** A slice whose endpoints are pods, or anything else spelled out. */
export function mkSlice(
  service: string,
  endpoints: (Pod | SliceEndpoint)[],
  options: SliceOptions = {},
): EndpointSlice {
  const namespace = options.namespace ?? 'default';
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: options.name ?? `${service}-slice`,
      namespace,
      labels: { 'kubernetes.io/service-name': service },
    },
    addressType: options.addressType ?? 'IPv4',
    endpoints: endpoints.map((endpoint) => ('kind' in endpoint ? podEndpoint(endpoint) : endpoint)),
    ports: options.ports ?? [{ port: 8080, protocol: 'TCP' }],
  };
}

function podEndpoint(pod: Pod): SliceEndpoint {
  return {
    addresses: [pod.status!.podIP!],
    conditions: { ready: pod.status?.conditions?.[0]?.status === 'True' },
    ...(pod.spec.nodeName ? { nodeName: pod.spec.nodeName } : {}),
    targetRef: { kind: 'Pod', namespace: pod.metadata.namespace!, name: pod.metadata.name },
  };
}
