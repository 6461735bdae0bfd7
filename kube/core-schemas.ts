// Schemas of the core, apps and discovery resources: the rules of the Kubernetes API that a manifest is likely to
// break, so that a fault is found where it was written.

import type { z } from 'zod';
import type { LabelSelector } from './resources.ts';
import {
  clusterIp,
  count,
  expected,
  flag,
  ip,
  label,
  labelled,
  labelSelector,
  list,
  named,
  object,
  oneOf,
  port,
  portName,
  portOrName,
  subdomain,
  templateMetadata,
  text,
  texts,
} from './schema-parts.ts';
import { matchesSelector } from './selector.ts';

const protocol = oneOf('TCP', 'UDP', 'SCTP');

const probe = object({
  httpGet: object({ path: text.optional(), port: portOrName, scheme: text.optional() }).optional(),
  tcpSocket: object({ port: portOrName }).optional(),
  grpc: object({ port, service: text.nullish().transform((value) => value ?? undefined) }).optional(),
  exec: object({ command: list(text).optional() }).optional(),
  initialDelaySeconds: count.optional(),
  periodSeconds: count.optional(),
});

const container = object({
  name: label,
  image: text.optional(),
  command: list(text).optional(),
  args: list(text).optional(),
  workingDir: text.optional(),
  env: list(object({ name: text, value: text.optional() })).optional(),
  ports: list(
    object({
      name: portName.optional(),
      containerPort: port,
      hostPort: port.optional(),
      protocol: protocol.optional(),
    }),
  ).optional(),
  livenessProbe: probe.optional(),
  readinessProbe: probe.optional(),
  startupProbe: probe.optional(),
  restartPolicy: oneOf('Always').optional(),
  securityContext: object({
    runAsUser: count.optional(),
    runAsGroup: count.optional(),
    capabilities: object({ add: list(text).optional(), drop: list(text).optional() }).optional(),
  }).optional(),
});

const podSpec = object({
  serviceAccountName: subdomain.optional(),
  nodeName: subdomain.optional(),
  hostNetwork: flag.optional(),
  hostname: label.optional(),
  subdomain: label.optional(),
  restartPolicy: oneOf('Always', 'OnFailure', 'Never').optional(),
  initContainers: list(container).optional(),
  containers: list(container).refine((containers) => containers.length > 0, 'expected at least one container'),
}).superRefine((spec, context) => {
  const seen = new Set<string>();
  for (const [field, containers] of [
    ['initContainers', spec.initContainers ?? []],
    ['containers', spec.containers],
  ] as const) {
    for (const [index, { name }] of containers.entries()) {
      if (seen.has(name)) fault(context, [field, index, 'name'], 'expected a name that no other container has');
      seen.add(name);
    }
  }
});

const podStatus = object({
  phase: oneOf('Pending', 'Running', 'Succeeded', 'Failed', 'Unknown').optional(),
  podIP: ip.optional(),
  podIPs: list(object({ ip })).optional(),
  hostIP: ip.optional(),
  startTime: text.optional(),
  conditions: list(object({ type: text, status: oneOf('True', 'False', 'Unknown') })).optional(),
});

export const pod = object({ ...named, spec: podSpec, status: podStatus.optional() });

/** What a runner reports of a pod (see status.ts): no containers are asked for. */
export const podReport = object({
  ...named,
  spec: object({ nodeName: subdomain.optional() }).optional(),
  status: podStatus,
});

export const deployment = object({
  ...named,
  spec: object({
    replicas: expected<number>(
      'a whole number from 0 to 10000',
      (value) => Number.isInteger(value) && Number(value) >= 0 && Number(value) <= 10_000,
    ).optional(),
    selector: labelSelector,
    template: object({ metadata: templateMetadata.optional(), spec: podSpec }),
  }).superRefine(({ selector, template }, context) => {
    if (!matchesSelector(selector as LabelSelector, template.metadata?.labels)) {
      fault(context, ['selector'], 'expected a selector that matches the labels of spec.template.metadata');
    }
  }),
});

export const service = object({
  ...labelled,
  spec: object({
    type: oneOf('ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName').optional(),
    clusterIP: clusterIp.optional(),
    clusterIPs: list(clusterIp).optional(),
    externalName: text.optional(),
    selector: texts.optional(),
    ports: list(
      object({
        name: label.optional(),
        port,
        targetPort: portOrName.optional(),
        protocol: protocol.optional(),
        appProtocol: text.optional(),
      }),
    ).optional(),
    internalTrafficPolicy: oneOf('Cluster', 'Local').optional(),
    ipFamilies: list(oneOf('IPv4', 'IPv6')).optional(),
    ipFamilyPolicy: oneOf('SingleStack', 'PreferDualStack', 'RequireDualStack').optional(),
    publishNotReadyAddresses: flag.optional(),
  }).superRefine((spec, context) => {
    if (spec.type === 'ExternalName' && !spec.externalName) {
      fault(context, ['externalName'], 'expected the name that the service stands for');
    }
    const names = new Set<string>();
    const numbers = new Set<string>();
    for (const [index, entry] of (spec.ports ?? []).entries()) {
      const name = entry.name ?? '';
      if (names.has(name)) fault(context, ['ports', index, 'name'], 'expected a name that no other port has');
      const number = `${entry.protocol ?? 'TCP'}/${entry.port}`;
      if (numbers.has(number)) fault(context, ['ports', index, 'port'], 'expected a port that no other entry has');
      names.add(name);
      numbers.add(number);
    }
  }),
});

export const endpointSlice = object({
  ...named,
  addressType: oneOf('IPv4', 'IPv6', 'FQDN'),
  endpoints: list(
    object({
      addresses: list(text),
      conditions: object({
        ready: flag.nullish().transform((value) => value ?? undefined),
        serving: flag.nullish().transform((value) => value ?? undefined),
        terminating: flag.nullish().transform((value) => value ?? undefined),
      }).optional(),
      hostname: label.optional(),
      nodeName: subdomain.optional(),
      zone: text.optional(),
      hints: object({ forZones: list(object({ name: text })).optional() }).optional(),
      targetRef: object({
        kind: text,
        namespace: label.optional(),
        name: text,
        uid: text.optional(),
      }).optional(),
    }),
  ).optional(),
  ports: list(
    object({
      name: text.optional(),
      port: port.optional(),
      protocol: text.optional(),
      appProtocol: text.optional(),
    }),
  ).optional(),
}).superRefine(({ addressType, endpoints }, context) => {
  for (const [index, endpoint] of (endpoints ?? []).entries()) {
    for (const [position, address] of endpoint.addresses.entries()) {
      const isRight =
        addressType === 'FQDN' || (ip.safeParse(address).success && address.includes(':') === (addressType === 'IPv6'));
      if (!isRight)
        fault(context, ['endpoints', index, 'addresses', position], `expected an address of type ${addressType}`);
    }
  }
});

export const namespace = object(labelled);
export const serviceAccount = object(named);
export const node = object({
  ...named,
  status: object({ addresses: list(object({ type: text, address: text })).optional() }).optional(),
});

/** Adds an issue at a path below the object under refinement. */
export function fault(context: z.RefinementCtx, path: PropertyKey[], message: string): void {
  context.addIssue({ code: 'custom', path, message });
}
