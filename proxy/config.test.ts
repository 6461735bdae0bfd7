import { describe, expect, test } from 'vitest';
import { HeddleError } from '#lib/errors.ts';
import { parseConfig, parseWorkerConfig } from './config.ts';
import { workerConfig } from './testing.ts';

function messageOf(run: () => void): string {
  try {
    run();
  } catch (error) {
    return error instanceof HeddleError && error.code === 'invalid-config' ? error.message : String(error);
  }
  return 'no error';
}

/** The configuration as JSON, with the field at `path` replaced. */
function changed(path: string, value: unknown): Record<string, unknown> {
  const json = JSON.parse(JSON.stringify(workerConfig()));
  const names = path.split('.');
  const parent = names.slice(0, -1).reduce((object, name) => object[name], json);
  if (value === undefined) delete parent[names.at(-1)!];
  else parent[names.at(-1)!] = value;
  return json;
}

describe('environment', () => {
  const read = (variables: Record<string, string>) => parseConfig((name) => variables[name]);

  test('names pod and version', () => {
    expect(read({ HEDDLE_POD_UID: 'u', HEDDLE_WORKER_VERSION: 'v' })).toEqual({
      podUid: 'u',
      workerVersion: 'v',
      logLevel: 'info',
    });
  });

  test('all faults come together', () => {
    const message = messageOf(() => read({ HEDDLE_LOG_LEVEL: 'loud' }));
    expect(message).toMatch(/HEDDLE_POD_UID.*HEDDLE_WORKER_VERSION|HEDDLE_LOG_LEVEL "loud"/);
    for (const name of ['HEDDLE_POD_UID', 'HEDDLE_WORKER_VERSION', 'HEDDLE_LOG_LEVEL']) expect(message).toContain(name);
  });
});

describe('configuration from the agent', () => {
  test('comes out as it went in', () => {
    const config = workerConfig();
    expect(parseWorkerConfig(JSON.parse(JSON.stringify(config)))).toEqual(config);
  });

  test('may lack an identity, and may have fields of a newer agent', () => {
    expect(parseWorkerConfig({ ...changed('identity', null), future: 1 }).identity).toBeNull();
  });

  test('has addresses as the kernel writes them', () => {
    expect(parseWorkerConfig(changed('pod.ips', ['FD00:0:0::07', '10.0.0.1'])).pod.ips).toEqual([
      'fd00::7',
      '10.0.0.1',
    ]);
  });

  test.each([
    ['pod', undefined, 'field "pod" with nothing: expected an object'],
    ['pod.uid', '', 'field "pod.uid" with ""'],
    ['pod.ips', ['10.0.0.1', '10.0.0'], 'field "pod.ips[1]" with "10.0.0": expected an IP address'],
    ['identity', undefined, 'field "identity"'],
    ['identity.name', 5, 'field "identity.name" with 5'],
    ['inbound.proxyPort', 70_000, 'field "inbound.proxyPort" with 70000: expected a whole number from 1 to 65535'],
    ['inbound.ports', [0], 'field "inbound.ports[0]" with 0: expected a port'],
    ['inbound.opaquePorts', [[5, 4]], 'field "inbound.opaquePorts[0]" with [5,4]'],
    [
      'inbound.defaultPolicy',
      'allow',
      'field "inbound.defaultPolicy" with "allow": expected one of all-unauthenticated',
    ],
    ['inbound.clusterNetworks', ['10.0.0.0/33'], 'field "inbound.clusterNetworks[0]"'],
    ['inbound.detectTimeoutMs', 0, 'field "inbound.detectTimeoutMs" with 0'],
    ['outbound.clusterDomain', '', 'field "outbound.clusterDomain"'],
    ['metricLabels', { 'a-b': 'x' }, 'field "metricLabels" with "a-b"'],
    ['metricLabels', { a: 1 }, 'field "metricLabels.a" with 1'],
    ['drainGraceMs', -1, 'field "drainGraceMs"'],
    ['logLevel', 'loud', 'field "logLevel" with "loud"'],
  ])('refuses %s = %j', (path, value, expected) => {
    expect(messageOf(() => parseWorkerConfig(changed(path, value)))).toContain(expected);
  });

  test('all faults come together', () => {
    const json = { ...changed('logLevel', 'loud'), drainGraceMs: 'x' };
    expect(messageOf(() => parseWorkerConfig(json))).toMatch(/drainGraceMs.*logLevel/);
  });
});
