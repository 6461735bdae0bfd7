// The peer: two HAProxy processes of one thread, HTTP mode, mutual TLS 1.3 between them, as the two workers of a pair.

import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { makeAuthority, makeLeaf } from '../../test/support/certificates.ts';
import { startProgram } from '../program.ts';
import type { Pair, PairOptions } from './system.ts';

const CLIENT_PORT = 15_001;
const SERVER_PORT = 15_443;

/** Starts both and returns them with the address that the client's namespace dials. */
export async function startHaproxyPair(options: PairOptions): Promise<Pair> {
  const { directory, mode, serverAddress } = options;
  mkdirSync(directory, { recursive: true });
  writeCertificates(directory);
  const tls = `ssl crt ${directory}/leaf.pem ca-file ${directory}/anchor.pem verify required ssl-min-ver TLSv1.3`;
  const h2 = mode === 'http2' ? ' proto h2' : '';
  writeFileSync(
    path.join(directory, 'client.cfg'),
    config(
      mode,
      `127.0.0.1:${CLIENT_PORT}`,
      `${serverAddress}:${SERVER_PORT} ${tls} verifyhost server.bench.example sni str(server.bench.example)`,
    ),
  );
  writeFileSync(
    path.join(directory, 'server.cfg'),
    config(mode, `${serverAddress}:${SERVER_PORT} ${tls}${h2}`, `${options.origin}${h2}`),
  );
  const start = (name: string, netns: string, port: number, host: string) =>
    startProgram({
      name: `haproxy ${name}`,
      netns,
      argv: ['haproxy', '-db', '-f', path.join(directory, `${name}.cfg`)],
      listens: { host, port },
    });
  const programs = [
    await start('server', options.serverNetns, SERVER_PORT, serverAddress),
    await start('client', options.clientNetns, CLIENT_PORT, '127.0.0.1'),
  ];
  return { host: '127.0.0.1', port: CLIENT_PORT, programs };
}

function config(mode: PairOptions['mode'], bind: string, server: string): string {
  const isHttp = mode !== 'tcp';
  return `global
  nbthread 1
  maxconn 8000
defaults
  mode ${isHttp ? 'http' : 'tcp'}
  timeout connect 5s
  timeout client 60s
  timeout server 60s
${isHttp ? '  option http-keep-alive\n  http-reuse always\n' : ''}
frontend in
  bind ${bind}
  default_backend out
backend out
  server upstream ${server}
`;
}

function writeCertificates(directory: string): void {
  const authority = makeAuthority();
  const leaf = makeLeaf(authority, ['DNS:server.bench.example']);
  writeFileSync(path.join(directory, 'anchor.pem'), authority.certificatePem);
  writeFileSync(path.join(directory, 'leaf.pem'), leaf.certificatePem + leaf.privateKeyPem, { mode: 0o600 });
}
