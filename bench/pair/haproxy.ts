// The peer: two HAProxy processes of one thread, mutual TLS 1.3 between them, as the two workers of a pair. HTTP/1.1
// stays HTTP/1.1 between the two and HTTP/2 stays HTTP/2: what costs HAProxy least.

import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { makeAuthority, makeLeaf } from '../../test/support/certificates.ts';
import { startProgram } from '../program.ts';
import type { Pair, PairOptions, Route } from './system.ts';

/** Starts both and returns them when they listen. */
export async function startHaproxyPair(options: PairOptions): Promise<Pair> {
  const { directory, routes, serverAddress } = options;
  mkdirSync(directory, { recursive: true });
  writeCertificates(directory);
  const tls = `ssl crt ${directory}/leaf.pem ca-file ${directory}/anchor.pem verify required ssl-min-ver TLSv1.3`;
  const verify = 'verifyhost server.bench.example sni str(server.bench.example)';
  const start = async (name: 'client' | 'server', netns: string, host: string, sections: string[]) => {
    const file = path.join(directory, `${name}.cfg`);
    writeFileSync(file, [GLOBAL, ...sections].join('\n'));
    const port = routes[0]![`${name}Port`];
    return await startProgram({
      name: `haproxy ${name}`,
      netns,
      argv: ['haproxy', '-db', '-f', file],
      listens: { host, port },
    });
  };
  const server = await start(
    'server',
    options.serverNetns,
    serverAddress,
    routes.map((route) =>
      section(route, `${serverAddress}:${route.serverPort} ${tls}${h2(route)}`, `127.0.0.1:${route.originPort}`),
    ),
  );
  const client = await start(
    'client',
    options.clientNetns,
    '127.0.0.1',
    routes.map((route) =>
      section(
        route,
        `127.0.0.1:${route.clientPort}${h2(route)}`,
        `${serverAddress}:${route.serverPort} ${tls} ${verify}`,
      ),
    ),
  );
  return { client, server };
}

const GLOBAL = `global
  nbthread 1
  maxconn 8000
defaults
  timeout connect 5s
  timeout client 60s
  timeout server 60s
`;

function section(route: Route, bind: string, server: string): string {
  const isHttp = route.mode !== 'tcp';
  return `frontend in-${route.clientPort}
  mode ${isHttp ? 'http' : 'tcp'}
  bind ${bind}
  default_backend out-${route.clientPort}
backend out-${route.clientPort}
  mode ${isHttp ? 'http\n  http-reuse always' : 'tcp'}
  server upstream ${server}${h2(route)}
`;
}

function h2({ mode }: Route): string {
  return mode === 'http2' ? ' proto h2' : '';
}

function writeCertificates(directory: string): void {
  const authority = makeAuthority();
  const leaf = makeLeaf(authority, ['DNS:server.bench.example']);
  writeFileSync(path.join(directory, 'anchor.pem'), authority.certificatePem);
  writeFileSync(path.join(directory, 'leaf.pem'), leaf.certificatePem + leaf.privateKeyPem, { mode: 0o600 });
}
