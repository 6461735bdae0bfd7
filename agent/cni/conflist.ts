// A network list as bytes, and our plugin in it: put in, replaced, taken out, with every foreign byte and the order of
// the others intact. What cannot be parsed, or what the plugin could not serve, is refused with the reason.
// Format: CNI 1.1.0 section 1; how runtimes read it: libcni NetworkConfFromBytes.

import { HeddleError } from '#lib/errors.ts';
import { elementSpans, memberSpans, type Span, splice } from './json-spans.ts';

export const PLUGIN_TYPE = 'heddle-cni';
/** Versions that the plugin speaks. In a list of another version it would fail every pod of the node. */
const PLUGIN_VERSIONS: readonly string[] = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'];
/** As containerd (go-cni MaxFileSize): a longer file is an error for it too. */
export const CONFIG_BYTES_MAX = 2 * 1024 * 1024;

/** Our section of the list. */
export interface PluginSection {
  type: typeof PLUGIN_TYPE;
  capabilities: { 'io.kubernetes.cri.pod-annotations': true };
  runDir?: string;
  controlPlaneNamespace?: string;
  logLevel?: string;
  statusGate?: string;
  timeouts?: { connectMs?: number; acceptMs?: number; addMs?: number; delMs?: number };
}

/** The section with its capability declared, without which the runtime would keep the pod's annotations to itself. */
export function pluginSection(options: Omit<PluginSection, 'type' | 'capabilities'> = {}): PluginSection {
  return { type: PLUGIN_TYPE, capabilities: { 'io.kubernetes.cri.pod-annotations': true }, ...options };
}

/** What matters of a network configuration, and where its plugins lie in the text. */
export interface ParsedConfig {
  text: string;
  kind: 'list' | 'single';
  name: string;
  /** `type` of each plugin in order. */
  types: string[];
  loadOnlyInlinedPlugins: boolean;
  plugins: unknown[];
  spans: Span[];
}

type Json = Record<string, unknown>;

/**
 * Parses a `.conflist` (kind `list`) or a `.conf` or `.json` (kind `single`), by the rules of libcni.
 * Throws HeddleError `bad-network-config`.
 */
export function parseConfig(bytes: Uint8Array, kind: ParsedConfig['kind']): ParsedConfig {
  const text = decode(bytes);
  const root = parseObject(text);
  const name = root.name;
  if (typeof name !== 'string' || name === '') throw bad('field "name": expected the name of the network');
  if (kind === 'single') {
    if (typeof root.type !== 'string' || root.type === '') throw bad('field "type": expected the type of a plugin');
    const whole = { start: 0, end: text.length };
    return { text, kind, name, types: [root.type], loadOnlyInlinedPlugins: false, plugins: [root], spans: [whole] };
  }
  const plugins = root.plugins ?? [];
  if (!Array.isArray(plugins)) throw bad('field "plugins": expected a list');
  const types = plugins.map((plugin, index) => {
    const type = (plugin as Json | null)?.type;
    if (typeof type !== 'string' || type === '')
      throw bad(`field "plugins.${index}.type": expected the type of a plugin`);
    return type;
  });
  const at = memberSpans(text).get('plugins');
  return {
    text,
    kind,
    name,
    types,
    loadOnlyInlinedPlugins: readBoolean(root, 'loadOnlyInlinedPlugins'),
    plugins,
    spans: at && Array.isArray(root.plugins) ? elementSpans(text, at.start) : [],
  };
}

/** Throws `unsupported-cni-version` when a runtime could call the plugin in a version that it does not speak. */
export function checkVersions(config: ParsedConfig): void {
  const root = parseObject(config.text);
  const offered: unknown[] = [root.cniVersion ?? '', ...(Array.isArray(root.cniVersions) ? root.cniVersions : [])];
  // Beside `cniVersions` the field `cniVersion` may be absent.
  const versions = offered.length > 1 ? offered.filter((version) => version !== '') : offered;
  const strange = versions.find((version) => !PLUGIN_VERSIONS.includes(version as string));
  if (strange === undefined) return;
  throw new HeddleError(
    'unsupported-cni-version',
    `network "${config.name}" has cniVersion "${String(strange)}": expected one of ${PLUGIN_VERSIONS.join(', ')}`,
  );
}

/**
 * The list with our plugin as its last element. One that is there already stays where it is and is replaced only when
 * it differs; a second one goes. Returns the same bytes when nothing has to change.
 */
export function insertPlugin(bytes: Uint8Array, section: PluginSection): Uint8Array {
  const config = parseConfig(bytes, 'list');
  checkVersions(config);
  const [first, ...surplus] = indicesOfOurs(config);
  if (first === undefined) return encode(append(config, section));
  if (surplus.length > 0) return insertPlugin(encode(cut(config, surplus.at(-1)!)), section);
  if (first === 0) throw bad(`plugin "${PLUGIN_TYPE}" is the first of its list: expected a network plugin before it`);
  if (canonical(config.plugins[first]) === canonical(section)) return bytes;
  return encode(splice(config.text, config.spans[first]!, render(config, first, section)));
}

/** The list without our plugin; the same bytes when it is not there. What `insertPlugin` put in leaves no trace. */
export function removePlugin(bytes: Uint8Array): Uint8Array {
  const config = parseConfig(bytes, 'list');
  const ours = indicesOfOurs(config);
  if (ours.length === 0) return bytes;
  if (config.types.length === ours.length) {
    throw bad(
      `list "${config.name}" holds no plugin but "${PLUGIN_TYPE}": expected others, an empty list is no network`,
    );
  }
  return removePlugin(encode(cut(config, ours.at(-1)!)));
}

/** A list made of a single configuration and our plugin; the configuration's bytes are in it as they were. */
export function wrapSingle(bytes: Uint8Array, section: PluginSection): Uint8Array {
  const config = parseConfig(bytes, 'single');
  checkVersions(config);
  const { cniVersion } = parseObject(config.text) as { cniVersion: string };
  const head = `{\n  "cniVersion": ${JSON.stringify(cniVersion)},\n  "name": ${JSON.stringify(config.name)},\n  "plugins": [\n`;
  return encode(`${head}${config.text.trim()},\n${indent(JSON.stringify(section, null, 2), '    ')}\n  ]\n}\n`);
}

/** Our own file in a drop-in directory. */
export function renderDropIn(section: PluginSection): Uint8Array {
  return encode(`${JSON.stringify(section, null, 2)}\n`);
}

/** True when the list holds our plugin exactly once, behind another, as `section` says. */
export function holdsPlugin(bytes: Uint8Array, section: PluginSection): boolean {
  return insertPlugin(bytes, section) === bytes;
}

/** Indices of our plugin in the list. */
function indicesOfOurs(config: ParsedConfig): number[] {
  return config.types.flatMap((type, index) => (type === PLUGIN_TYPE ? [index] : []));
}

function append(config: ParsedConfig, section: PluginSection): string {
  const last = config.spans.length - 1;
  if (last < 0) throw bad(`list "${config.name}" holds no plugin: expected a network plugin to chain behind`);
  const { end } = config.spans[last]!;
  return splice(config.text, { start: end, end }, `,${spaceBefore(config, last)}${render(config, last, section)}`);
}

/** Without the element and the comma that it needed. */
function cut(config: ParsedConfig, index: number): string {
  const { start, end } = config.spans[index]!;
  const before = config.spans[index - 1];
  if (before) return splice(config.text, { start: before.end, end }, '');
  return splice(config.text, { start, end: config.spans[index + 1]!.start }, '');
}

/** The section in the style of the element at `index`: over several lines where its author breaks lines. */
function render(config: ParsedConfig, index: number, section: PluginSection): string {
  const space = spaceBefore(config, index);
  const newline = space.lastIndexOf('\n');
  if (newline < 0) return JSON.stringify(section);
  const margin = space.slice(newline + 1);
  const step = margin.includes('\t') ? '\t' : margin.length >= 8 ? '    ' : '  ';
  return indent(JSON.stringify(section, null, step), margin).trimStart();
}

/** The white space between an element and the comma or bracket before it. */
function spaceBefore(config: ParsedConfig, index: number): string {
  const { start } = config.spans[index]!;
  let from = start;
  while (' \n\t\r'.includes(config.text[from - 1]!)) from--;
  return config.text.slice(from, start);
}

function indent(text: string, margin: string): string {
  return text
    .split('\n')
    .map((line) => margin + line)
    .join('\n');
}

/** Equal for equal values, whatever the order of keys. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) => {
    if (typeof part !== 'object' || part === null || Array.isArray(part)) return part;
    return Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}

function decode(bytes: Uint8Array): string {
  if (bytes.length > CONFIG_BYTES_MAX) throw bad(`${bytes.length} bytes: expected at most ${CONFIG_BYTES_MAX}`);
  try {
    // A byte order mark is kept, and is then an error as it is for the runtime.
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw bad('the text is not UTF-8', error);
  }
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function parseObject(text: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw bad('the text is not JSON', error);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad('expected a JSON object');
  return value as Json;
}

/** libcni takes a boolean or its word. */
function readBoolean(root: Json, key: string): boolean {
  const value = root[key];
  if (value === undefined || typeof value === 'boolean') return value ?? false;
  const word = typeof value === 'string' ? value.toLowerCase() : '';
  if (word !== 'true' && word !== 'false') throw bad(`field "${key}": expected true or false`);
  return word === 'true';
}

function bad(message: string, cause?: unknown): HeddleError {
  return new HeddleError('bad-network-config', message, cause === undefined ? {} : { cause });
}
