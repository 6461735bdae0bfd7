// Is this value one of the resources Heddle reads, and is it sound? Problems name the field and the remedy; the reader
// of the file adds where it was. An annotation that cannot be read is a problem too, but the object stays in use:
// its defaults apply.

import type { z } from 'zod';
import { Annotation } from '#api/names.ts';
import * as core from './core-schemas.ts';
import { decideMesh, type PodLike, podMeshConfig } from './meshed.ts';
import * as policy from './policy-schemas.ts';
import { parsePortSet } from './port-set.ts';
import type { Deployment, Kind, KubeObject, Namespace, Pod } from './resources.ts';

export interface FieldProblem {
  /** Such as `spec.ports[0].port`; null when it is the object as a whole. */
  field: string | null;
  message: string;
}

export type Validation =
  /** A sound object, reduced to what Heddle reads; problems are unreadable annotations. */
  | { result: 'valid'; kind: Kind; object: KubeObject; problems: FieldProblem[] }
  | { result: 'invalid'; problems: FieldProblem[] }
  /** A resource of other programs. */
  | { result: 'foreign'; apiVersion: string; kind: string };

interface Entry {
  group: string;
  schema: z.ZodType;
  isClusterScoped?: true;
}

const RESOURCES: Record<Kind, Entry> = {
  Namespace: { group: '', schema: core.namespace, isClusterScoped: true },
  ServiceAccount: { group: '', schema: core.serviceAccount },
  Node: { group: '', schema: core.node, isClusterScoped: true },
  Pod: { group: '', schema: core.pod },
  Deployment: { group: 'apps', schema: core.deployment },
  Service: { group: '', schema: core.service },
  EndpointSlice: { group: 'discovery.k8s.io', schema: core.endpointSlice },
  Server: { group: 'policy.linkerd.io', schema: policy.server },
  ServerAuthorization: { group: 'policy.linkerd.io', schema: policy.serverAuthorization },
  AuthorizationPolicy: { group: 'policy.linkerd.io', schema: policy.authorizationPolicy },
  MeshTLSAuthentication: { group: 'policy.linkerd.io', schema: policy.meshTlsAuthentication },
  NetworkAuthentication: { group: 'policy.linkerd.io', schema: policy.networkAuthentication },
};

/** Checks one manifest. Objects of namespaced kinds without a namespace get `default`. */
export function validate(value: unknown): Validation {
  const head = value as { apiVersion?: unknown; kind?: unknown } | null;
  if (typeof head !== 'object' || head === null || Array.isArray(head)) {
    return { result: 'invalid', problems: [{ field: null, message: 'expected an object with apiVersion and kind' }] };
  }
  for (const field of ['apiVersion', 'kind'] as const) {
    if (typeof head[field] === 'string') continue;
    return { result: 'invalid', problems: [{ field, message: `${show(head[field])}expected text` }] };
  }
  const apiVersion = head.apiVersion as string;
  const kind = head.kind as string;
  const entry = Object.hasOwn(RESOURCES, kind) ? RESOURCES[kind as Kind] : undefined;
  const group = apiVersion.includes('/') ? apiVersion.slice(0, apiVersion.indexOf('/')) : '';
  if (!entry || entry.group !== group) return { result: 'foreign', apiVersion, kind };
  const parsed = entry.schema.safeParse(value);
  if (!parsed.success)
    return { result: 'invalid', problems: parsed.error.issues.map((issue) => toProblem(issue, value)) };
  const object = parsed.data as KubeObject;
  if (entry.isClusterScoped) delete object.metadata.namespace;
  else object.metadata.namespace ??= 'default';
  return { result: 'valid', kind: kind as Kind, object, problems: annotationProblems(kind as Kind, object) };
}

/** Checks what a runner reported of a pod. */
export function validateReport(value: unknown): { report: Pod } | { problems: FieldProblem[] } {
  const parsed = core.podReport.safeParse(value);
  if (!parsed.success) return { problems: parsed.error.issues.map((issue) => toProblem(issue, value)) };
  const report = parsed.data as unknown as Pod;
  report.metadata.namespace ??= 'default';
  return { report };
}

function annotationProblems(kind: Kind, object: KubeObject): FieldProblem[] {
  if (kind === 'Pod') return podProblems(object as Pod, 'metadata');
  if (kind === 'Deployment') {
    const { metadata = {}, spec } = (object as Deployment).spec.template;
    return podProblems({ metadata, spec }, 'spec.template.metadata');
  }
  if (kind === 'Namespace') {
    const bare: PodLike = { metadata: {}, spec: { containers: [] } };
    const found = [
      ...decideMesh(bare, object as Namespace).problems,
      ...podMeshConfig(bare, object as Namespace).problems,
    ];
    return found.map(({ annotation, message }) => ({ field: `metadata.annotations["${annotation}"]`, message }));
  }
  const opaque = kind === 'Service' ? object.metadata.annotations?.[Annotation.opaquePorts] : undefined;
  const { problems } = parsePortSet(opaque ?? '', () => []);
  return problems.map((problem) => ({
    field: `metadata.annotations["${Annotation.opaquePorts}"]`,
    message: `read ${problem}`,
  }));
}

function podProblems(pod: PodLike, at: string): FieldProblem[] {
  const found = [...decideMesh(pod, undefined).problems, ...podMeshConfig(pod, undefined).problems];
  return found.map(({ annotation, message }) => ({ field: `${at}.annotations["${annotation}"]`, message }));
}

function toProblem(issue: z.core.$ZodIssue, root: unknown): FieldProblem {
  let value = root;
  let field = '';
  for (const step of issue.path) {
    value = (value as Record<PropertyKey, unknown> | null | undefined)?.[step];
    field += typeof step === 'number' ? `[${step}]` : fieldStep(String(step), field === '');
  }
  return { field: field || null, message: `${show(value)}${issue.message}` };
}

function fieldStep(step: string, isFirst: boolean): string {
  if (!/^[A-Za-z0-9_]+$/.test(step)) return `[${JSON.stringify(step)}]`;
  return isFirst ? step : `.${step}`;
}

/** The offending value where it is short enough to help. */
function show(value: unknown): string {
  if (value === undefined) return 'missing: ';
  if (typeof value === 'object' && value !== null) return '';
  const shown = String(value);
  return `read "${shown.length > 64 ? `${shown.slice(0, 64)}…` : shown}": `;
}
