// The command line of the destination and policy service. Faults are reported all at once, each with the option it
// belongs to.

import { Command, CommanderError } from 'commander';
import {
  DEFAULT_CLUSTER_DOMAIN,
  DEFAULT_CLUSTER_NETWORKS,
  DEFAULT_CONTROL_PLANE_NAMESPACE,
  DEFAULT_OPAQUE_PORTS,
  DEFAULT_TRUST_DOMAIN,
  Port,
} from '#api/names.ts';
import { DEFAULT_INBOUND_POLICIES, type DefaultInboundPolicy } from '#api/worker-config.ts';
import { parseDurationMs } from '#kube/duration.ts';
import { MESH_DEFAULTS } from '#kube/meshed.ts';
import { parsePortSet } from '#kube/port-set.ts';
import { describeError, HeddleError } from '#lib/errors.ts';
import { type ListenAddress, parseListenAddress } from '#lib/grpc/server.ts';
import { parseCidr } from '#lib/ip-address.ts';
import { LogLevel } from '#lib/log.ts';
import type { MeshConfig, TransportHeaderMode } from '../core/config.ts';

/** Where the serving certificate comes from. */
export type CertificateOrigin =
  | { kind: 'files'; certificate: string; privateKey: string }
  | {
      kind: 'identity';
      address: string;
      /** ServiceAccount of the identity service, in the control-plane namespace. */
      identityServiceAccount: string;
      /** The process's own. */
      serviceAccount: string;
      trustAnchors: string;
      tokenFile: string;
    };

export interface DestinationConfig {
  isCheckOnly: boolean;
  source: string;
  destinationListen: ListenAddress;
  policyListen: ListenAddress;
  adminListen: ListenAddress;
  mesh: MeshConfig;
  certificate: CertificateOrigin;
  reloadIntervalMs: number;
  logLevel: LogLevel;
}

const TRANSPORT_HEADER_MODES: readonly TransportHeaderMode[] = ['always', 'opaque'];

function createCommand(): Command {
  return new Command('heddle-destination')
    .description('Tells proxies where services are, how to talk to them, and who may talk to workloads.')
    .option(
      '--source <source>',
      'where resources come from: kubernetes, or dir:<directory of manifests>',
      'dir:/etc/heddle/manifests',
    )
    .option('--destination-addr <address>', 'where the destination service listens', `0.0.0.0:${Port.destination}`)
    .option('--policy-addr <address>', 'where the policy service listens', `0.0.0.0:${Port.policy}`)
    .option('--admin-addr <address>', 'where /live, /ready and /metrics are served', '0.0.0.0:9996')
    .option('--control-plane-namespace <name>', 'part of every identity', DEFAULT_CONTROL_PLANE_NAMESPACE)
    .option('--trust-domain <name>', 'part of every identity', DEFAULT_TRUST_DOMAIN)
    .option('--cluster-domain <name>', 'ending of Service names', DEFAULT_CLUSTER_DOMAIN)
    .option('--cluster-networks <list>', 'networks of pods and Services', DEFAULT_CLUSTER_NETWORKS.join(','))
    .option('--probe-networks <list>', 'networks that HTTP probes come from', '0.0.0.0/0,::/0')
    .option('--default-inbound-policy <policy>', 'of pods that name none', MESH_DEFAULTS.inboundPolicy)
    .option('--default-opaque-ports <list>', 'of pods and Services that name none', DEFAULT_OPAQUE_PORTS)
    .option('--disable-h2-upgrade', 'HTTP/1.1 requests go to meshed endpoints over HTTP/1.1 too, not over HTTP/2')
    .option('--disable-ipv6', 'leave out IPv6 endpoints')
    .option(
      '--transport-header <mode>',
      `connections that begin with one: ${TRANSPORT_HEADER_MODES.join(', ')}`,
      'always',
    )
    .option(
      '--identity-addr <address>',
      'identity service, which issues the serving certificate',
      `heddle-identity:${Port.identity}`,
    )
    .option('--identity-service-account <name>', 'of the identity service', 'heddle-identity')
    .option('--service-account <name>', "the process's own", 'heddle-destination')
    .option('--token-file <file>', "the process's own ServiceAccount token", '/run/heddle/token/token')
    .option('--trust-anchors <file>', 'PEM bundle, watched', '/run/heddle/trust-roots/ca-bundle.crt')
    .option('--tls-cert <file>', 'serve with this certificate chain instead, watched')
    .option('--tls-key <file>', 'and this private key')
    .option('--reload-interval <duration>', 'how often watched files are looked at', '10s')
    .option('--log-level <level>', `one of ${Object.keys(LogLevel).join(', ')}`, 'info')
    .option('--check-config', 'check the options and exit');
}

/** Reads the arguments behind the script's name. Throws `bad-config` naming every fault. */
export function parseConfig(argv: readonly string[]): DestinationConfig {
  const command = createCommand()
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
  try {
    command.parse([...argv], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode !== 0) throw new HeddleError('bad-config', error.message);
    throw error;
  }
  const options = command.opts<Record<string, string | undefined>>();
  const faults: string[] = [];
  const read = <T>(name: string, parse: (text: string) => T): T => {
    try {
      return parse(options[name] ?? '');
    } catch (error) {
      faults.push(`--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}: ${describeError(error)}`);
      return undefined as T;
    }
  };
  const config: DestinationConfig = {
    isCheckOnly: 'checkConfig' in options,
    source: read('source', notEmpty),
    destinationListen: read('destinationAddr', parseListenAddress),
    policyListen: read('policyAddr', parseListenAddress),
    adminListen: read('adminAddr', parseListenAddress),
    mesh: {
      controlPlaneNamespace: read('controlPlaneNamespace', dnsName),
      trustDomain: read('trustDomain', dnsName),
      clusterDomain: read('clusterDomain', dnsName),
      clusterNetworks: read('clusterNetworks', networks),
      probeNetworks: read('probeNetworks', networks),
      defaults: {
        ...MESH_DEFAULTS,
        inboundPolicy: read('defaultInboundPolicy', (text) =>
          oneOf<DefaultInboundPolicy>(text, DEFAULT_INBOUND_POLICIES),
        ),
        opaquePorts: read('defaultOpaquePorts', portList),
      },
      isH2UpgradeEnabled: !('disableH2Upgrade' in options),
      isIpv6Enabled: !('disableIpv6' in options),
      transportHeader: read('transportHeader', (text) => oneOf(text, TRANSPORT_HEADER_MODES)),
    },
    certificate: certificateOrigin(options, read, faults),
    reloadIntervalMs: read('reloadInterval', interval),
    logLevel: read('logLevel', (text) => oneOf(text, Object.keys(LogLevel) as LogLevel[])),
  };
  if (faults.length > 0) throw new HeddleError('bad-config', faults.join('\n'));
  return Object.freeze(config);
}

type Read = <T>(name: string, parse: (text: string) => T) => T;

function certificateOrigin(
  options: Record<string, string | undefined>,
  read: Read,
  faults: string[],
): CertificateOrigin {
  const { tlsCert, tlsKey } = options;
  if (tlsCert !== undefined && tlsKey !== undefined) return { kind: 'files', certificate: tlsCert, privateKey: tlsKey };
  if (tlsCert !== undefined || tlsKey !== undefined) faults.push('--tls-cert, --tls-key: expected both or none');
  return {
    kind: 'identity',
    address: read('identityAddr', notEmpty),
    identityServiceAccount: read('identityServiceAccount', dnsName),
    serviceAccount: read('serviceAccount', dnsName),
    trustAnchors: read('trustAnchors', notEmpty),
    tokenFile: read('tokenFile', notEmpty),
  };
}

function dnsName(text: string): string {
  if (text.length <= 253 && /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(text)) return text;
  throw new HeddleError('bad-name', `read the name "${text}": expected a DNS name in lower case`);
}

function notEmpty(text: string): string {
  if (text !== '') return text;
  throw new HeddleError('bad-value', 'read the value "": expected one that is not empty');
}

function interval(text: string): number {
  const ms = parseDurationMs(text);
  if (ms !== null && ms >= 100 && ms <= 3_600_000) return ms;
  throw new HeddleError('bad-duration', `read the duration "${text}": expected 100ms to 1h`);
}

function networks(text: string): string[] {
  const list = text.split(',').map((part) => part.trim());
  const wrong = list.find((cidr) => !parseCidr(cidr));
  if (wrong === undefined) return list;
  throw new HeddleError('bad-network', `read the network "${wrong}": expected one such as 10.0.0.0/8`);
}

function portList(text: string): string {
  const [problem] = parsePortSet(text).problems;
  if (problem === undefined) return text;
  throw new HeddleError('bad-ports', `read ${problem}`);
}

function oneOf<T extends string>(text: string, values: readonly T[]): T {
  const found = values.find((value) => value === text);
  if (found) return found;
  throw new HeddleError('bad-value', `read the value "${text}": expected one of ${values.join(', ')}`);
}
