// What to redirect in a pod, from its annotations and those of its namespace, as Linkerd spells them. Pure. A value that
// cannot be understood is reported with its annotation and the remedy, and everything else keeps its effect: a typo in
// one list must neither unmesh a pod nor stop its other exceptions.

import { Annotation, Port } from '#api/names.ts';
import { HeddleError } from '#lib/errors.ts';
import { parseCidr } from '#lib/ip-address.ts';
import type { PortRange, RedirectPlan } from './redirector.ts';

/** Linkerd's defaults: control ports of Galera clusters, whose server speaks first and breaks when delayed. */
export const DEFAULT_SKIP_PORTS = '4567,4568';
/** More of one annotation have no effect. */
export const SKIP_ENTRIES_MAX = 64;

/** Never redirected in either direction: a proxy's own control and admin ports (`linkerd.io/proxy-control-port`). */
const CONTROL_PORTS: PortRange = { from: Port.tap, to: Port.workerAdmin };

type Annotations = Readonly<Record<string, string>>;

export interface PlanInput {
  podAnnotations: Annotations;
  /** Annotations of the namespace; they count where the pod has none of the kind. */
  namespaceAnnotations: Annotations;
}

export interface PlanResult {
  plan: RedirectPlan;
  /** Values that were not understood, one error each, code `bad-annotation`. */
  problems: HeddleError[];
}

/** Works out the plan of a meshed pod. Never throws. */
export function planRedirect(input: PlanInput): PlanResult {
  const problems: HeddleError[] = [];
  const ports = (annotation: string, fallback: string) =>
    list(input, annotation, fallback, problems, parsePortRange, PORT_REMEDY);
  const defaults = DEFAULT_SKIP_PORTS.split(',').flatMap((port) => parsePortRange(port) ?? []);
  const networks = (annotation: string) => list(input, annotation, '', problems, parseNetwork, NETWORK_REMEDY);
  const plan: RedirectPlan = {
    inbound: true,
    outbound: true,
    failOpen: failOpen(input, problems),
    // Linkerd's quirk: the annotation is added to the inbound default, and replaces the outbound one.
    skipInboundPorts: [CONTROL_PORTS, ...defaults, ...ports(Annotation.skipInboundPorts, '')],
    skipOutboundPorts: [CONTROL_PORTS, ...ports(Annotation.skipOutboundPorts, DEFAULT_SKIP_PORTS)],
    skipOutboundCidrs: networks(Annotation.skipOutboundSubnets),
    // Sources only, as in Linkerd: taking destinations out as well would silently send their traffic in clear.
    skipInboundCidrs: networks(Annotation.skipSubnets),
  };
  return { plan, problems };
}

const PORT_REMEDY = 'expected ports from 1 to 65535 or ranges such as "8000-8010", separated by commas';
const NETWORK_REMEDY = 'expected networks such as "10.0.0.0/8", separated by commas';

/** `80` or `8000-8010`; null when it is neither. */
export function parsePortRange(text: string): PortRange | null {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (!match) return null;
  const from = Number(match[1]);
  const to = Number(match[2] ?? match[1]);
  return from >= 1 && from <= to && to <= 65535 ? { from, to } : null;
}

function parseNetwork(text: string): string | null {
  return parseCidr(text) ? text : null;
}

function annotationOf(input: PlanInput, annotation: string): string | undefined {
  return input.podAnnotations[annotation] ?? input.namespaceAnnotations[annotation];
}

function list<T>(
  input: PlanInput,
  annotation: string,
  fallback: string,
  problems: HeddleError[],
  parse: (text: string) => T | null,
  remedy: string,
): T[] {
  const entries = (annotationOf(input, annotation) ?? fallback)
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '');
  const parsed: T[] = [];
  for (const entry of entries.slice(0, SKIP_ENTRIES_MAX)) {
    const value = parse(entry);
    if (value === null) problems.push(problem(annotation, entry, remedy));
    else parsed.push(value);
  }
  if (entries.length > SKIP_ENTRIES_MAX) {
    problems.push(problem(annotation, `${entries.length} entries`, `expected at most ${SKIP_ENTRIES_MAX}`));
  }
  return parsed;
}

function failOpen(input: PlanInput, problems: HeddleError[]): boolean {
  const value = annotationOf(input, Annotation.onAgentDown)?.trim();
  if (value === undefined || value === 'closed') return false;
  if (value === 'open') return true;
  problems.push(problem(Annotation.onAgentDown, value, 'expected "closed" or "open", taken as "closed"'));
  return false;
}

function problem(annotation: string, value: string, remedy: string): HeddleError {
  return new HeddleError('bad-annotation', `read annotation "${annotation}" with "${value}": ${remedy}`);
}
