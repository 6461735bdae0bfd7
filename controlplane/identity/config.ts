// The command line of the identity service. Faults are reported all at once, each with the option it belongs to.

import { Command, CommanderError } from 'commander';
import { DEFAULT_CONTROL_PLANE_NAMESPACE, DEFAULT_TRUST_DOMAIN, IDENTITY_AUDIENCE, Port } from '#api/names.ts';
import { parseDurationMs } from '#kube/duration.ts';
import { describeError, HeddleError } from '#lib/errors.ts';
import { type ListenAddress, parseListenAddress } from '#lib/grpc/server.ts';
import { LogLevel } from '#lib/log.ts';
import type { IssuerPaths } from './issuer.ts';
import { DEFAULT_TOKEN_ISSUER } from './jwt.ts';

export interface IdentityConfig {
  isCheckOnly: boolean;
  listen: ListenAddress;
  adminListen: ListenAddress;
  issuer: IssuerPaths;
  reloadIntervalMs: number;
  controlPlaneNamespace: string;
  trustDomain: string;
  /** The service's own ServiceAccount, in the control-plane namespace. */
  serviceAccount: string;
  agent: { namespace: string; serviceAccount: string };
  leafLifetimeMs: number;
  nodeRate: { perSecond: number; burst: number };
  audience: string;
  tokenIssuer: string;
  tokenKeys: string;
  source: string;
  logLevel: LogLevel;
}

const LEAF_LIFETIME_MIN_MS = 2000;
const LEAF_LIFETIME_MAX_MS = 30 * 24 * 3600 * 1000;

function createCommand(): Command {
  return new Command('heddle-identity')
    .description('Issues certificates to the workloads of the mesh.')
    .option('--identity-addr <address>', 'where the service listens', `0.0.0.0:${Port.identity}`)
    .option('--admin-addr <address>', 'where /live, /ready and /metrics are served', '0.0.0.0:9990')
    .option('--issuer-dir <dir>', 'directory of tls.crt and tls.key', '/run/heddle/identity/issuer')
    .option('--trust-anchors <file>', 'PEM bundle of trust anchors', '/run/heddle/identity/trust-roots/ca-bundle.crt')
    .option('--reload-interval <duration>', 'how often the files are looked at', '10s')
    .option('--control-plane-namespace <name>', 'part of every identity', DEFAULT_CONTROL_PLANE_NAMESPACE)
    .option('--trust-domain <name>', 'part of every identity', DEFAULT_TRUST_DOMAIN)
    .option('--service-account <name>', "the service's own ServiceAccount", 'heddle-identity')
    .option('--agent-service-account <name>', 'the ServiceAccount of the agents', 'heddle-agent')
    .option('--leaf-lifetime <duration>', 'life of a workload certificate', '24h')
    .option('--node-rate <number>', 'certificates a second for one node', '20')
    .option('--node-burst <number>', 'certificates at once for one node', '300')
    .option('--audience <name>', 'audience that tokens must have', IDENTITY_AUDIENCE)
    .option('--token-issuer <url>', 'issuer that tokens must have', DEFAULT_TOKEN_ISSUER)
    .option('--token-keys <file>', 'PEM public keys of the token issuer', '/run/heddle/identity/token-keys.pem')
    .option(
      '--source <source>',
      'where pods come from: kubernetes, or dir:<directory of manifests>',
      'dir:/etc/heddle/manifests',
    )
    .option('--log-level <level>', `one of ${Object.keys(LogLevel).join(', ')}`, 'info')
    .option('--check-config', 'check the options and exit');
}

/** Reads the arguments behind the script's name. Throws `bad-config` naming every fault. */
export function parseConfig(argv: readonly string[]): IdentityConfig {
  const command = createCommand()
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
  try {
    command.parse([...argv], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode !== 0) throw new HeddleError('bad-config', error.message);
    throw error;
  }
  const options = command.opts<Record<string, string>>();
  const faults: string[] = [];
  const read = <T>(name: string, parse: (text: string) => T): T => {
    try {
      return parse(options[name]!);
    } catch (error) {
      faults.push(`--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}: ${describeError(error)}`);
      return undefined as T;
    }
  };
  const controlPlaneNamespace = read('controlPlaneNamespace', dnsName);
  const config: IdentityConfig = {
    isCheckOnly: 'checkConfig' in options,
    listen: read('identityAddr', parseListenAddress),
    adminListen: read('adminAddr', parseListenAddress),
    issuer: {
      certificates: `${options.issuerDir}/tls.crt`,
      privateKey: `${options.issuerDir}/tls.key`,
      anchors: options.trustAnchors!,
    },
    reloadIntervalMs: read('reloadInterval', (text) => duration(text, 100, 3_600_000)),
    controlPlaneNamespace,
    trustDomain: read('trustDomain', dnsName),
    serviceAccount: read('serviceAccount', dnsName),
    agent: { namespace: controlPlaneNamespace, serviceAccount: read('agentServiceAccount', dnsName) },
    leafLifetimeMs: read('leafLifetime', (text) => duration(text, LEAF_LIFETIME_MIN_MS, LEAF_LIFETIME_MAX_MS)),
    nodeRate: {
      perSecond: read('nodeRate', (text) => within(Number(text), 0.1, 10_000, 'a second')),
      burst: read('nodeBurst', (text) => within(Number(text), 1, 100_000, 'at once')),
    },
    audience: read('audience', nonEmpty),
    tokenIssuer: read('tokenIssuer', nonEmpty),
    tokenKeys: read('tokenKeys', nonEmpty),
    source: read('source', nonEmpty),
    logLevel: read('logLevel', logLevel),
  };
  if (faults.length > 0) throw new HeddleError('bad-config', faults.join('\n'));
  return Object.freeze(config);
}

function dnsName(text: string): string {
  if (text.length <= 253 && /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(text)) return text;
  throw new HeddleError('bad-name', `read the name "${text}": expected a DNS name in lower case`);
}

function nonEmpty(text: string): string {
  if (text !== '') return text;
  throw new HeddleError('bad-value', 'read the value "": expected one that is not empty');
}

function duration(text: string, minMs: number, maxMs: number): number {
  const ms = parseDurationMs(text);
  if (ms !== null) return within(ms, minMs, maxMs, 'milliseconds');
  throw new HeddleError('bad-duration', `read the duration "${text}": expected one such as 24h or 10s`);
}

function within(value: number, min: number, max: number, unit: string): number {
  if (value >= min && value <= max) return value;
  throw new HeddleError('out-of-range', `read the value "${value}": expected ${min} to ${max} ${unit}`);
}

function logLevel(text: string): LogLevel {
  if (Object.hasOwn(LogLevel, text)) return text as LogLevel;
  throw new HeddleError('bad-level', `read the level "${text}": expected one of ${Object.keys(LogLevel).join(', ')}`);
}
