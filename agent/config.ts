// The agent's command line. All faults are reported at once, each with its option; the result is frozen.

import { isIP } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { Command, CommanderError } from 'commander';
import {
  DEFAULT_CLUSTER_DOMAIN,
  DEFAULT_CLUSTER_NETWORKS,
  DEFAULT_CONTROL_PLANE_NAMESPACE,
  DEFAULT_TRUST_DOMAIN,
  identityName,
  Port,
} from '#api/names.ts';
import { DEFAULT_INBOUND_POLICIES, type DefaultInboundPolicy } from '#api/worker-config.ts';
import { describeError, HeddleError } from '#lib/errors.ts';
import { type ListenAddress, parseListenAddress } from '#lib/grpc/server.ts';
import { parseCidr } from '#lib/ip-address.ts';
import { LogLevel } from '#lib/log.ts';
import { addCniOptions, type CniConfig, readCniOptions } from './cni-options.ts';

export const REDIRECT_KINDS = ['auto', 'ebpf', 'nftables'] as const;
export type RedirectKind = (typeof REDIRECT_KINDS)[number];

/** A control-plane service: where it is and who it must be. */
export interface ControlPlaneService {
  address: string;
  identity: string;
}

export interface AgentConfig {
  isCheckOnly: boolean;
  /** Stop all workers, remove redirection, and exit. */
  isUninstall: boolean;
  nodeName: string;
  runDir: string;
  stateDir: string;
  source: string;
  destination: ControlPlaneService;
  policy: ControlPlaneService;
  identity: ControlPlaneService;
  trustAnchors: string;
  tokenFile: string;
  controlPlaneNamespace: string;
  trustDomain: string;
  clusterDomain: string;
  clusterNetworks: string[];
  redirect: RedirectKind;
  /** Null: /sys/fs/bpf/heddle where that is a bpffs, else `<run dir>/bpf`. */
  bpffsDir: string | null;
  /** Null: found by the kubelet's names, else the root. */
  podsCgroup: string | null;
  bpfObject: string;
  cgroupRoot: string;
  /** Null: the CNI plugin is somebody else's to install. */
  cni: CniConfig | null;
  workerMemoryBytes: number;
  workerProcesses: number;
  defaultInboundPolicy: DefaultInboundPolicy;
  adminListen: ListenAddress;
  logLevel: LogLevel;
  workerLogLevel: LogLevel;
}

const MIB = 1024 * 1024;

function createCommand(sourceRoot: string): Command {
  return new Command('heddle-agent')
    .description("Meshes this node's pods: redirection, one worker for each pod, metrics.")
    .option('--node-name <name>', 'the name of this node', os.hostname().toLowerCase())
    .option('--run-dir <dir>', 'sockets and state that a reboot clears', '/run/heddle')
    .option('--state-dir <dir>', "the workers' runtime", '/var/lib/heddle')
    .option(
      '--source <source>',
      'where pods come from: kubernetes, or dir:<directory of manifests>',
      'dir:/etc/heddle/manifests',
    )
    .option('--destination-addr <address>', 'destination service', destinationAddress(Port.destination))
    .option('--policy-addr <address>', 'policy service', destinationAddress(Port.policy))
    .option('--identity-addr <address>', 'identity service', `heddle-identity:${Port.identity}`)
    .option('--destination-service-account <name>', 'of destination and policy service', 'heddle-destination')
    .option('--identity-service-account <name>', 'of the identity service', 'heddle-identity')
    .option('--trust-anchors <file>', 'PEM bundle, watched', '/run/heddle/trust-roots/ca-bundle.crt')
    .option('--token-file <file>', "the agent's own ServiceAccount token", '/run/heddle/token/token')
    .option('--control-plane-namespace <name>', 'part of every identity', DEFAULT_CONTROL_PLANE_NAMESPACE)
    .option('--trust-domain <name>', 'part of every identity', DEFAULT_TRUST_DOMAIN)
    .option('--cluster-domain <name>', 'ending of Service names', DEFAULT_CLUSTER_DOMAIN)
    .option('--cluster-networks <list>', 'networks of pods and services', DEFAULT_CLUSTER_NETWORKS.join(','))
    .option('--redirect <kind>', `one of ${REDIRECT_KINDS.join(', ')}`, 'auto')
    .option('--bpffs-dir <dir>', 'where eBPF programs and maps are pinned')
    .option('--bpf-object <file>', 'compiled eBPF programs', path.join(sourceRoot, 'build/bpf/heddle.bpf.o'))
    .option('--pods-cgroup <dir>', 'the common cgroup2 directory of all pods')
    .option('--cgroup-root <name>', "name of the workers' cgroup in every hierarchy", 'heddle')
    .option('--worker-memory-mib <number>', 'memory limit of a worker', '256')
    .option('--worker-processes <number>', 'limit of threads and processes of a worker', '64')
    .option('--default-inbound-policy <policy>', 'of pods that name none', 'all-unauthenticated')
    .option('--admin-addr <address>', 'metrics and health', `0.0.0.0:${Port.agentAdmin}`)
    .option('--log-level <level>', `one of ${Object.keys(LogLevel).join(', ')}`, 'info')
    .option('--worker-log-level <level>', 'of workers until their pod says another', 'warn')
    .option('--uninstall', 'take CNI configuration, redirection and workers off this node, and exit')
    .option('--check-config', 'check the options and exit');
}

function destinationAddress(port: number): string {
  return `heddle-destination:${port}`;
}

/** Reads the arguments behind the script's name. Throws `bad-config` naming every fault. */
export function parseConfig(argv: readonly string[], sourceRoot: string): AgentConfig {
  const command = addCniOptions(createCommand(sourceRoot), sourceRoot)
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
  const trustDomain = read('trustDomain', dnsName);
  const service = (address: string, account: string): ControlPlaneService => ({
    address: read(address, hostAndPort),
    identity: identityName({
      serviceAccount: read(account, dnsName),
      namespace: controlPlaneNamespace,
      controlPlaneNamespace,
      trustDomain,
    }),
  });
  const config: AgentConfig = {
    isCheckOnly: 'checkConfig' in options,
    isUninstall: 'uninstall' in options,
    nodeName: read('nodeName', dnsName),
    runDir: read('runDir', absolute),
    stateDir: read('stateDir', absolute),
    source: read('source', sourceOf),
    destination: service('destinationAddr', 'destinationServiceAccount'),
    policy: service('policyAddr', 'destinationServiceAccount'),
    identity: service('identityAddr', 'identityServiceAccount'),
    trustAnchors: read('trustAnchors', absolute),
    tokenFile: read('tokenFile', absolute),
    controlPlaneNamespace,
    trustDomain,
    clusterDomain: read('clusterDomain', dnsName),
    clusterNetworks: read('clusterNetworks', networks),
    redirect: read('redirect', oneOf(REDIRECT_KINDS)),
    bpffsDir: options.bpffsDir === undefined ? null : read('bpffsDir', absolute),
    podsCgroup: options.podsCgroup === undefined ? null : read('podsCgroup', absolute),
    bpfObject: read('bpfObject', (text) => path.resolve(text)),
    cgroupRoot: read('cgroupRoot', fileName),
    cni: readCniOptions(options, read),
    workerMemoryBytes: MIB * read('workerMemoryMib', (text) => within(text, 64, 65_536)),
    workerProcesses: read('workerProcesses', (text) => within(text, 16, 4_096)),
    defaultInboundPolicy: read('defaultInboundPolicy', oneOf(DEFAULT_INBOUND_POLICIES)),
    adminListen: read('adminAddr', parseListenAddress),
    logLevel: read('logLevel', oneOf(Object.keys(LogLevel) as LogLevel[])),
    workerLogLevel: read('workerLogLevel', oneOf(Object.keys(LogLevel) as LogLevel[])),
  };
  if (faults.length > 0) throw new HeddleError('bad-config', faults.join('\n'));
  return Object.freeze(config);
}

function fault(what: string, text: string, expected: string): HeddleError {
  return new HeddleError('bad-value', `read the ${what} "${text}": expected ${expected}`);
}

function dnsName(text: string): string {
  if (text.length <= 253 && /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(text)) return text;
  throw fault('name', text, 'a DNS name in lower case');
}

function fileName(text: string): string {
  if (/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,100}$/.test(text)) return text;
  throw fault('name', text, 'a single directory name');
}

function absolute(text: string): string {
  if (path.isAbsolute(text)) return path.normalize(text);
  throw fault('path', text, 'an absolute path');
}

function sourceOf(text: string): string {
  if (text === 'kubernetes' || /^dir:.+$/.test(text)) return text;
  throw fault('source', text, 'kubernetes or dir:<directory of manifests>');
}

function hostAndPort(text: string): string {
  const { host, port } = parseListenAddress(text);
  if (port > 0 && host !== '' && (isIP(host) !== 0 || /^[a-zA-Z0-9.-]+$/.test(host))) return text;
  throw fault('address', text, 'host:port of a service');
}

function networks(text: string): string[] {
  const list = text.split(',').map((part) => part.trim());
  const wrong = list.find((network) => !parseCidr(network));
  if (wrong === undefined) return list;
  throw fault('network', wrong, 'one such as 10.0.0.0/8');
}

function oneOf<T extends string>(values: readonly T[]): (text: string) => T {
  return (text) => {
    const found = values.find((value) => value === text);
    if (found !== undefined) return found;
    throw fault('value', text, `one of ${values.join(', ')}`);
  };
}

function within(text: string, min: number, max: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw fault('number', text, `${min} to ${max}`);
}
