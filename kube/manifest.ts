// Text of a manifest file to objects: YAML with several documents, or JSON, Lists unpacked. Pure.

import { LineCounter, parseAllDocuments } from 'yaml';
import type { Kind, KubeObject } from './resources.ts';
import type { SourceProblem } from './source.ts';
import { type FieldProblem, validate } from './validate.ts';

/** Documents of one file, and objects of one List. */
const DOCUMENTS_MAX = 10_000;

/** A fault in a file, for people: where, which object, which field, what was expected. */
export interface Problem extends SourceProblem {
  file: string;
  /** Counted from 1; null when it is the file as a whole. */
  document: number | null;
}

export interface ManifestObject {
  kind: Kind;
  object: KubeObject;
  document: number;
}

export interface Manifest {
  objects: ManifestObject[];
  problems: Problem[];
  /** False when something in the file could not be taken: the version before it is the better one. */
  isSound: boolean;
}

/** Reads a file's text. Everything that is sound is in the result, even when other parts are not. */
export function parseManifest(file: string, text: string): Manifest {
  const manifest: Manifest = { objects: [], problems: [], isSound: true };
  const fail = (document: number | null, message: string) => {
    manifest.isSound = false;
    manifest.problems.push({ file, document, object: null, field: null, message, severity: 'error' });
  };
  const values = file.endsWith('.json') ? readJson(text, fail) : readYaml(text, fail);
  if (values.length > DOCUMENTS_MAX) {
    fail(null, `read ${values.length} documents: expected at most ${DOCUMENTS_MAX}`);
    values.length = DOCUMENTS_MAX;
  }
  for (const { document, value } of values) {
    // An empty document, such as before a leading `---`.
    if (value === null || value === undefined) continue;
    for (const item of unpack(value)) take(item, file, document, manifest);
  }
  return manifest;
}

interface Value {
  document: number;
  value: unknown;
}

type Fail = (document: number | null, message: string) => void;

function readJson(text: string, fail: Fail): Value[] {
  try {
    return [{ document: 1, value: JSON.parse(text) }];
  } catch (error) {
    fail(1, `parse JSON: ${(error as Error).message}`);
    return [];
  }
}

function readYaml(text: string, fail: Fail): Value[] {
  const lines = new LineCounter();
  const values: Value[] = [];
  for (const [index, parsed] of parseAllDocuments(text, { lineCounter: lines, prettyErrors: false }).entries()) {
    const document = index + 1;
    const error = parsed.errors[0];
    if (error) {
      const { line, col } = lines.linePos(error.pos[0]);
      fail(document, `parse YAML at line ${line}, column ${col}: ${error.message}`);
      continue;
    }
    try {
      values.push({ document, value: parsed.toJS() });
    } catch (cause) {
      // More aliases than the parser's bound.
      fail(document, `read YAML: ${(cause as Error).message}`);
    }
  }
  return values;
}

function unpack(value: unknown): unknown[] {
  const list = value as { apiVersion?: unknown; kind?: unknown; items?: unknown };
  const isList = list.apiVersion === 'v1' && typeof list.kind === 'string' && list.kind.endsWith('List');
  return isList && Array.isArray(list.items) ? list.items.slice(0, DOCUMENTS_MAX) : [value];
}

function take(value: unknown, file: string, document: number, manifest: Manifest): void {
  const at = { file, document, object: describe(value) };
  const add = (problems: readonly FieldProblem[]) => {
    for (const problem of problems) manifest.problems.push({ ...at, ...problem, severity: 'error' });
  };
  const validation = validate(value);
  switch (validation.result) {
    case 'valid':
      manifest.objects.push({ kind: validation.kind, object: validation.object, document });
      add(validation.problems);
      return;
    case 'invalid':
      manifest.isSound = false;
      add(validation.problems);
      return;
    case 'foreign': {
      const message = `skip "${validation.kind}" of "${validation.apiVersion}": expected a kind that Heddle uses`;
      manifest.problems.push({ ...at, field: 'kind', message, severity: 'warning' });
    }
  }
}

/** `Kind namespace/name`, as far as it is there. */
function describe(value: unknown): string | null {
  const { kind, metadata } = (value ?? {}) as { kind?: unknown; metadata?: { name?: unknown; namespace?: unknown } };
  if (typeof kind !== 'string') return null;
  const name = typeof metadata?.name === 'string' ? metadata.name : '?';
  return typeof metadata?.namespace === 'string' ? `${kind} ${metadata.namespace}/${name}` : `${kind} ${name}`;
}

/** One line: `web.yaml document 2, Service shop/web, spec.ports[0].port: read "0": expected …`. */
export function formatProblem({ file, document, object, field, message }: Problem): string {
  const place = [document === null ? file : `${file} document ${document}`, object, field];
  return `${place.filter((part) => part !== null).join(', ')}: ${message}`;
}
