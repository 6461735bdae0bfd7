// Prometheus text (exposition format 0.0.4) from a registry, in pieces: a scrape of thousands of series never builds
// one large string, and the caller may pause between two pieces. Families come sorted by name, each at most once.

import type { Family, Registry } from './registry.ts';

/** A piece is passed on when it has reached this size; it is at most one series longer. */
export const EXPOSITION_CHUNK_CHARS = 32 * 1024;

/** Label names that series use themselves: a label of the pod by such a name must not appear twice. */
const OWN_LABELS =
  /^(direction|peer|authority|tls|no_tls_reason|client_id|server_id|sni|dst|rt_route|skipped|hostname|(target|srv|route|authz|parent|backend|ratelimit|dst)_\w+|status|status_code|http_status|grpc_status|classification|error|errno|le|op|endpoint_state|result|overflow|session_protocol|worker_state)$/;

/** `a="b",c="d"`, values escaped. */
export function renderLabels(labels: Readonly<Record<string, string>>): string {
  let text = '';
  for (const name in labels) {
    text += `${text === '' ? '' : ','}${name}="${escapeLabel(labels[name]!)}"`;
  }
  return text;
}

/** Both parts with the comma they need between them. */
export function joinLabels(first: string, second: string): string {
  if (first === '' || second === '') return first + second;
  return `${first},${second}`;
}

/**
 * The labels that every series of this pod carries. What collides with a series' own name gets Prometheus' prefix;
 * `familyLabels` are names that only one family uses.
 */
export function renderPodLabels(
  labels: Readonly<Record<string, string>>,
  familyLabels: readonly string[] = [],
): string {
  const renamed: Record<string, string> = {};
  for (const [name, value] of Object.entries(labels)) {
    renamed[OWN_LABELS.test(name) || familyLabels.includes(name) ? `exported_${name}` : name] = value;
  }
  return renderLabels(renamed);
}

function escapeLabel(value: string): string {
  return /[\\"\n]/.test(value) ? value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n') : value;
}

/** The text of all series, `podLabels` put on each. Families without series are left out. */
export function* expose(
  registry: Registry,
  podLabels: Readonly<Record<string, string>>,
): Generator<string, void, void> {
  const common = renderPodLabels(podLabels);
  let chunk = '';
  for (const family of registry.families) {
    if (family.cells.size === 0) continue;
    const { name, kind, help, ownLabels } = family.definition;
    const pod = ownLabels ? renderPodLabels(podLabels, ownLabels) : common;
    chunk += `# HELP ${name} ${help}\n# TYPE ${name} ${kind}\n`;
    for (const [labels, cell] of family.cells) {
      const all = joinLabels(labels, pod);
      chunk +=
        kind === 'histogram'
          ? histogramLines(registry, family, cell.offset, all)
          : `${name}${all === '' ? '' : `{${all}}`} ${formatNumber(registry.values[cell.offset]!)}\n`;
      if (chunk.length >= EXPOSITION_CHUNK_CHARS) {
        yield chunk;
        chunk = '';
      }
    }
  }
  if (chunk !== '') yield chunk;
}

function histogramLines(registry: Registry, family: Family, offset: number, labels: string): string {
  const { name, buckets } = family.definition;
  let lines = '';
  let count = 0;
  for (const [index, bound] of buckets!.entries()) {
    count += registry.values[offset + index]!;
    lines += `${name}_bucket{${joinLabels(labels, `le="${bound}"`)}} ${count}\n`;
  }
  count += registry.values[offset + buckets!.length]!;
  lines += `${name}_bucket{${joinLabels(labels, 'le="+Inf"')}} ${count}\n`;
  const braces = labels === '' ? '' : `{${labels}}`;
  const sum = formatNumber(registry.values[offset + family.slots - 1]!);
  return `${lines}${name}_sum${braces} ${sum}\n${name}_count${braces} ${count}\n`;
}

function formatNumber(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return '+Inf';
  if (value === Number.NEGATIVE_INFINITY) return '-Inf';
  return String(value);
}
