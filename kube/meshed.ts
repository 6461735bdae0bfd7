// Whether a pod is meshed, and how its proxy is configured: the one place that reads linkerd.io/inject and the
// config.linkerd.io annotations (reference: Linkerd's proxy injector). A namespace's value is the default, the pod's
// own value overrides it. Values that cannot be read are reported and count as absent.

import { Annotation, DEFAULT_OPAQUE_PORTS, Label } from '#api/names.ts';
import { DEFAULT_INBOUND_POLICIES, type DefaultInboundPolicy } from '#api/worker-config.ts';
import { parseCidr } from '#lib/ip-address.ts';
import { parseDurationMs } from './duration.ts';
import { declaredPorts, namedPorts } from './pod.ts';
import { type PortSet, parsePortSet, unite } from './port-set.ts';
import type { Namespace, ObjectMeta, PodSpec } from './resources.ts';

/** A Pod, or the template of one. */
export interface PodLike {
  metadata: Pick<ObjectMeta, 'annotations' | 'labels'>;
  spec: PodSpec;
}

/** An annotation whose value was not understood. */
export interface AnnotationProblem {
  /** Which object carries it. */
  on: 'pod' | 'namespace';
  annotation: string;
  message: string;
}

export type MeshReason =
  | 'enabled-by-pod'
  | 'enabled-by-namespace'
  | 'disabled-by-pod'
  | 'disabled-by-namespace'
  | 'not-annotated'
  | 'host-network'
  | 'invalid-annotation';

export interface MeshDecision {
  isMeshed: boolean;
  /** linkerd.io/inject: ingress. */
  isIngress: boolean;
  reason: MeshReason;
  problems: AnnotationProblem[];
}

const INJECT_VALUES = ['enabled', 'disabled', 'ingress'];

/**
 * Decides from the annotations as they are now. The stamp (heddle.dev/meshed) is no input: it records the decision for
 * the CNI plugin, which must decide when nobody answers.
 */
export function decideMesh(pod: PodLike, namespace: Namespace | undefined): MeshDecision {
  const onPod = pod.metadata.annotations?.[Annotation.inject];
  const onNamespace = namespace?.metadata.annotations?.[Annotation.inject];
  const problems: AnnotationProblem[] = [];
  for (const [on, value] of [
    ['pod', onPod],
    ['namespace', onNamespace],
  ] as const) {
    if (value === undefined || INJECT_VALUES.includes(value)) continue;
    const message = `read "${value}": expected enabled, disabled or ingress`;
    problems.push({ on, annotation: Annotation.inject, message });
  }
  const decided = (isMeshed: boolean, reason: MeshReason): MeshDecision => ({
    isMeshed,
    isIngress: isMeshed && (onPod ?? onNamespace) === 'ingress',
    reason,
    problems,
  });
  if (pod.spec.hostNetwork) return decided(false, 'host-network');
  if (problems.length > 0) return decided(false, 'invalid-annotation');
  if (onPod === 'disabled') return decided(false, 'disabled-by-pod');
  if (onPod !== undefined) return decided(true, 'enabled-by-pod');
  if (onNamespace === 'disabled') return decided(false, 'disabled-by-namespace');
  if (onNamespace !== undefined) return decided(true, 'enabled-by-namespace');
  return decided(false, 'not-annotated');
}

/** The namespace of the control plane that a pod is stamped with, by Heddle's injector or as a Linkerd sidecar. */
export function stampOf(pod: PodLike): string | null {
  return pod.metadata.annotations?.[Annotation.meshed] ?? pod.metadata.labels?.[Label.controlPlaneNamespace] ?? null;
}

export interface MeshDefaults {
  inboundPolicy: DefaultInboundPolicy;
  opaquePorts: string;
  skipInboundPorts: string;
  skipOutboundPorts: string;
}

export const MESH_DEFAULTS: MeshDefaults = {
  inboundPolicy: 'all-unauthenticated',
  opaquePorts: DEFAULT_OPAQUE_PORTS,
  // Galera replication, as in Linkerd's chart.
  skipInboundPorts: '4567,4568',
  skipOutboundPorts: '4567,4568',
};

/** The effective configuration of a meshed pod. */
export interface PodMeshConfig {
  defaultInboundPolicy: DefaultInboundPolicy;
  opaquePorts: PortSet;
  requireIdentityPorts: PortSet;
  /** Not redirected to the proxy. */
  skipInboundPorts: PortSet;
  skipOutboundPorts: PortSet;
  skipSubnets: string[];
  /** Ports whose policy is watched from the start, ascending. */
  inboundPorts: number[];
  inboundConnectTimeoutMs: number;
  outboundConnectTimeoutMs: number;
  drainGraceMs: number;
  logLevel: 'error' | 'warn' | 'info' | 'debug';
  onAgentDown: 'closed' | 'open';
  mode: 'node' | 'sidecar';
  problems: AnnotationProblem[];
}

/**
 * Joins the annotations of pod and namespace with the defaults. Linkerd's quirk is kept: skip-outbound-ports replaces
 * the default list, skip-inbound-ports is added to it.
 */
export function podMeshConfig(
  pod: PodLike,
  namespace: Namespace | undefined,
  defaults: MeshDefaults = MESH_DEFAULTS,
): PodMeshConfig {
  const read = new AnnotationReader(pod, namespace);
  const byName = (name: string) => namedPorts(pod.spec, name);
  const ports = (annotation: string, fallback: string, resolve?: (name: string) => readonly number[]) =>
    read.value(annotation, portsOf(resolve)) ?? parsePortSet(fallback, resolve).ports;
  const milliseconds = (annotation: string, fallback: number) => read.value(annotation, durationOf) ?? fallback;
  return {
    defaultInboundPolicy:
      read.value(Annotation.defaultInboundPolicy, oneOf(DEFAULT_INBOUND_POLICIES)) ?? defaults.inboundPolicy,
    opaquePorts: ports(Annotation.opaquePorts, defaults.opaquePorts, byName),
    requireIdentityPorts: ports(Annotation.requireIdentityInboundPorts, ''),
    skipInboundPorts: unite(parsePortSet(defaults.skipInboundPorts).ports, ports(Annotation.skipInboundPorts, '')),
    skipOutboundPorts: ports(Annotation.skipOutboundPorts, defaults.skipOutboundPorts),
    skipSubnets: read.value(Annotation.skipSubnets, subnetsOf) ?? [],
    inboundPorts: inboundPortsOf(pod, ports(Annotation.podInboundPorts, '')),
    inboundConnectTimeoutMs: milliseconds(Annotation.inboundConnectTimeout, 100),
    outboundConnectTimeoutMs: milliseconds(Annotation.outboundConnectTimeout, 1000),
    drainGraceMs: milliseconds(Annotation.shutdownGracePeriod, 120_000),
    logLevel: read.value(Annotation.proxyLogLevel, logLevelOf) ?? 'warn',
    onAgentDown: read.value(Annotation.onAgentDown, oneOf(['closed', 'open'] as const)) ?? 'closed',
    mode: read.value(Annotation.mode, oneOf(['node', 'sidecar'] as const)) ?? 'node',
    problems: read.problems,
  };
}

/** A value, or why there is none. */
type Parsed<T> = { value: T } | { problem: string };

class AnnotationReader {
  readonly problems: AnnotationProblem[] = [];
  readonly #sources: readonly (readonly ['pod' | 'namespace', Record<string, string> | undefined])[];

  constructor(pod: PodLike, namespace: Namespace | undefined) {
    this.#sources = [
      ['pod', pod.metadata.annotations],
      ['namespace', namespace?.metadata.annotations],
    ];
  }

  /** The first readable value of pod, then namespace. */
  value<T>(annotation: string, parse: (text: string) => Parsed<T>): T | undefined {
    for (const [on, annotations] of this.#sources) {
      const text = annotations?.[annotation];
      if (text === undefined) continue;
      const parsed = parse(text);
      if ('value' in parsed) return parsed.value;
      this.problems.push({ on, annotation, message: parsed.problem });
    }
    return undefined;
  }
}

function portsOf(resolve?: (name: string) => readonly number[]): (text: string) => Parsed<PortSet> {
  return (text) => {
    const { ports, problems } = parsePortSet(text, resolve);
    return problems.length === 0 ? { value: ports } : { problem: `read ${problems.join('; ')}` };
  };
}

function oneOf<T extends string>(values: readonly T[]): (text: string) => Parsed<T> {
  return (text) => {
    const found = values.find((value) => value === text);
    return found ? { value: found } : { problem: `read "${text}": expected one of ${values.join(', ')}` };
  };
}

function durationOf(text: string): Parsed<number> {
  const ms = parseDurationMs(text);
  return ms === null ? { problem: `read "${text}": expected a duration such as 500ms or 10s` } : { value: ms };
}

function subnetsOf(text: string): Parsed<string[]> {
  const subnets = text.split(',').flatMap((part) => part.trim() || []);
  const wrong = subnets.find((subnet) => !parseCidr(subnet));
  if (wrong !== undefined) return { problem: `read "${wrong}": expected a network such as 10.0.0.0/8` };
  return { value: subnets };
}

/** Linkerd's levels are lists of targets (`warn,linkerd=info`): the one without a target counts. */
function logLevelOf(text: string): Parsed<PodMeshConfig['logLevel']> {
  const level = text.split(',').find((part) => !part.includes('=')) ?? 'warn';
  const name = level.trim().toLowerCase();
  if (name === 'trace') return { value: 'debug' };
  if (name === 'off') return { value: 'error' };
  return oneOf(['error', 'warn', 'info', 'debug'] as const)(name);
}

/** Ports of a long range beyond these are watched at their first connection instead. */
const WATCHED_PORTS_MAX = 256;

function inboundPortsOf(pod: PodLike, given: PortSet): number[] {
  if (given.length === 0) return declaredPorts(pod.spec).slice(0, WATCHED_PORTS_MAX);
  const ports: number[] = [];
  for (const [from, to] of given) {
    for (let port = from; port <= to && ports.length < WATCHED_PORTS_MAX; port++) ports.push(port);
  }
  return ports;
}
