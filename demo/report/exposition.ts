// Reads the Prometheus text format (exposition format 0.0.4) into samples. Only what a node endpoint writes; lines that
// are none are an error, since silence would hide them.

import { HeddleError } from '#lib/errors.ts';

export type Labels = Readonly<Record<string, string>>;

export interface Sample {
  name: string;
  labels: Labels;
  value: number;
}

/** A node of a hundred pods writes a few MiB. */
export const EXPOSITION_CHARS_MAX = 64 * 1024 * 1024;

const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?$/;
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)/y;
const ESCAPES: Record<string, string> = { n: '\n', '\\': '\\', '"': '"' };

/** Throws `bad-exposition` with the line. */
export function parseExposition(text: string): Sample[] {
  if (text.length > EXPOSITION_CHARS_MAX) throw bad(`${text.length} characters`);
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const match = SAMPLE.exec(line);
      if (!match) throw bad(line);
      const [, name, labels = '', value] = match;
      return { name: name!, labels: parseLabels(labels, line), value: parseValue(value!, line) };
    });
}

function parseLabels(text: string, line: string): Labels {
  const labels: Record<string, string> = {};
  LABEL.lastIndex = 0;
  while (LABEL.lastIndex < text.length) {
    const match = LABEL.exec(text);
    if (!match) throw bad(line);
    labels[match[1]!] = match[2]!.replace(/\\(.)/g, (_all, escaped: string) => ESCAPES[escaped] ?? `\\${escaped}`);
  }
  return labels;
}

function parseValue(text: string, line: string): number {
  if (text === '+Inf') return Number.POSITIVE_INFINITY;
  if (text === '-Inf') return Number.NEGATIVE_INFINITY;
  // Prometheus reads it in any case, and clients write `Nan` too.
  const isNan = text.toLowerCase() === 'nan';
  const value = isNan ? Number.NaN : Number(text);
  if (Number.isNaN(value) && !isNan) throw bad(line);
  return value;
}

function bad(line: string): HeddleError {
  return new HeddleError(
    'bad-exposition',
    `read the metrics line "${line.slice(0, 200)}": expected name{labels} value`,
  );
}
