// What a worker is told: a few environment variables at birth, then WorkerConfig from the agent. All faults of one
// source are reported together, each with the field's name, so that an operator fixes them in one go.

import { isIP } from 'node:net';
import { DEFAULT_INBOUND_POLICIES, type WorkerConfig } from '#api/worker-config.ts';
import { WorkerEnvironment } from '#api/worker-link.ts';
import { HeddleError } from '#lib/errors.ts';
import { formatIp, parseCidr, parseIp } from '#lib/ip-address.ts';
import { LogLevel } from '#lib/log.ts';

/** What must be known before the agent connects. */
export interface ProcessConfig {
  readonly podUid: string;
  readonly workerVersion: string;
  readonly logLevel: LogLevel;
}

/** Reads the environment through `get`. Throws `invalid-config` with every fault. */
export function parseConfig(get: (name: string) => string | undefined): ProcessConfig {
  const faults: string[] = [];
  const required = (name: string): string => {
    const value = get(name);
    if (!value) faults.push(`${name} "${value ?? ''}": expected a value`);
    return value ?? '';
  };
  const level = get(WorkerEnvironment.logLevel) ?? 'info';
  if (!(level in LogLevel)) {
    faults.push(`${WorkerEnvironment.logLevel} "${level}": expected one of ${Object.keys(LogLevel).join(', ')}`);
  }
  const config = {
    podUid: required(WorkerEnvironment.podUid),
    workerVersion: required(WorkerEnvironment.workerVersion),
    logLevel: level as LogLevel,
  };
  assertNone('read the environment', faults);
  return Object.freeze(config);
}

function assertNone(action: string, faults: readonly string[]): void {
  if (faults.length > 0) throw new HeddleError('invalid-config', `${action}: ${faults.join('; ')}`);
}

/**
 * Checks the JSON of a `config` frame. Unknown fields are ignored, since a newer agent may send them. Throws
 * `invalid-config` with every fault.
 */
export function parseWorkerConfig(json: Record<string, unknown>): WorkerConfig {
  const check = new Checker();
  const pod = check.object(json, 'pod', '');
  const identity = json.identity === null ? null : check.object(json, 'identity', '');
  const inbound = check.object(json, 'inbound', '');
  const outbound = check.object(json, 'outbound', '');
  const config: WorkerConfig = {
    pod: {
      uid: check.text(pod, 'uid', 'pod.'),
      namespace: check.text(pod, 'namespace', 'pod.'),
      name: check.text(pod, 'name', 'pod.'),
      serviceAccount: check.text(pod, 'serviceAccount', 'pod.'),
      node: check.text(pod, 'node', 'pod.'),
      ips: check.list<string>(pod, 'ips', 'pod.', 'an IP address', isAddress).map(canonical),
    },
    metricLabels: check.labels(json, 'metricLabels'),
    identity: identity && {
      name: check.text(identity, 'name', 'identity.'),
      trustAnchorsPem: check.text(identity, 'trustAnchorsPem', 'identity.'),
    },
    inbound: {
      proxyPort: check.integer(inbound, 'proxyPort', 'inbound.', 1, 65_535),
      ports: check.list(inbound, 'ports', 'inbound.', 'a port', isPort),
      opaquePorts: check.list(inbound, 'opaquePorts', 'inbound.', 'a [from, to] pair of ports', isPortRange),
      requireIdentityPorts: check.list(
        inbound,
        'requireIdentityPorts',
        'inbound.',
        'a [from, to] pair of ports',
        isPortRange,
      ),
      defaultPolicy: check.oneOf(inbound, 'defaultPolicy', 'inbound.', DEFAULT_INBOUND_POLICIES),
      clusterNetworks: check.list(inbound, 'clusterNetworks', 'inbound.', 'a network such as 10.0.0.0/8', isNetwork),
      ...check.timeouts(inbound, 'inbound.'),
    },
    outbound: {
      proxyPort: check.integer(outbound, 'proxyPort', 'outbound.', 1, 65_535),
      ...check.timeouts(outbound, 'outbound.'),
      destinationContext: check.anyText(outbound, 'destinationContext', 'outbound.'),
      policyWorkload: check.anyText(outbound, 'policyWorkload', 'outbound.'),
      clusterDomain: check.text(outbound, 'clusterDomain', 'outbound.'),
    },
    drainGraceMs: check.integer(json, 'drainGraceMs', '', 0, MILLISECONDS_MAX),
    logLevel: check.oneOf(json, 'logLevel', '', Object.keys(LogLevel) as LogLevel[]),
  };
  assertNone('read the configuration', check.faults);
  return config;
}

/** The longest a timer can wait. */
const MILLISECONDS_MAX = 0x7fffffff;
const LABEL_NAME = /^[a-zA-Z_][a-zA-Z0-9_]*$/;

const isAddress = (item: unknown): boolean => typeof item === 'string' && isIP(item) !== 0;
/** As the kernel and Node write it, so that addresses can be compared as texts. */
const canonical = (address: string): string => {
  const bytes = parseIp(address);
  return bytes ? formatIp(bytes) : address;
};
const isPort = (item: unknown): boolean =>
  Number.isInteger(item) && (item as number) >= 1 && (item as number) <= 65_535;
const isNetwork = (item: unknown): boolean => typeof item === 'string' && parseCidr(item) !== null;
const isPortRange = (item: unknown): boolean =>
  Array.isArray(item) && item.length === 2 && item.every(isPort) && (item[0] as number) <= (item[1] as number);

type Json = Record<string, unknown>;

/** Reads fields and collects what is wrong with them. */
class Checker {
  readonly faults: string[] = [];

  object(parent: Json, name: string, path: string): Json {
    const value = parent[name];
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json;
    this.#fault(path + name, value, 'an object');
    return {};
  }

  anyText(parent: Json, name: string, path: string): string {
    const value = parent[name];
    if (typeof value === 'string') return value;
    this.#fault(path + name, value, 'a text');
    return '';
  }

  text(parent: Json, name: string, path: string): string {
    const value = parent[name];
    if (typeof value === 'string' && value !== '') return value;
    this.#fault(path + name, value, 'a text that is not empty');
    return '';
  }

  integer(parent: Json, name: string, path: string, min: number, max: number): number {
    const value = parent[name];
    if (Number.isInteger(value) && (value as number) >= min && (value as number) <= max) return value as number;
    this.#fault(path + name, value, `a whole number from ${min} to ${max}`);
    return min;
  }

  oneOf<T extends string>(parent: Json, name: string, path: string, values: readonly T[]): T {
    const value = parent[name];
    if (values.includes(value as T)) return value as T;
    this.#fault(path + name, value, `one of ${values.join(', ')}`);
    return values[0]!;
  }

  list<T>(parent: Json, name: string, path: string, expected: string, isItem: (item: unknown) => boolean): T[] {
    const value = parent[name];
    if (!Array.isArray(value)) {
      this.#fault(path + name, value, `a list of which each is ${expected}`);
      return [];
    }
    for (const [index, item] of value.entries()) {
      if (!isItem(item)) this.#fault(`${path}${name}[${index}]`, item, expected);
    }
    return value as T[];
  }

  labels(parent: Json, name: string): Record<string, string> {
    const labels = this.object(parent, name, '');
    for (const [label, value] of Object.entries(labels)) {
      if (!LABEL_NAME.test(label)) this.#fault(name, label, 'label names of letters, digits and _');
      if (typeof value !== 'string') this.#fault(`${name}.${label}`, value, 'a text');
    }
    return labels as Record<string, string>;
  }

  timeouts(parent: Json, path: string) {
    const read = (name: string) => this.integer(parent, name, path, 1, MILLISECONDS_MAX);
    return {
      detectTimeoutMs: read('detectTimeoutMs'),
      connectTimeoutMs: read('connectTimeoutMs'),
      discoveryIdleMs: read('discoveryIdleMs'),
    };
  }

  #fault(field: string, value: unknown, expected: string): void {
    this.faults.push(`field "${field}" with ${JSON.stringify(value) ?? 'nothing'}: expected ${expected}`);
  }
}
