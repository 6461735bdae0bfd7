// Peers of the mesh for tests: TLS clients with certificates of the test's own authority, by Node's tls and not by the
// worker's code.

import { generateKeyPairSync } from 'node:crypto';
import type net from 'node:net';
import tls from 'node:tls';
import { toPem } from '#controlplane/identity/authority.ts';
import { CertificateAuthority } from '#controlplane/identity/ca.ts';
import { type Issuer, partsOf } from './agent.ts';
import { WEB } from './config.ts';
import { inboundAddress, onCleanUp, type Sockets } from './process.ts';

export interface PeerCertificate {
  key: string;
  cert: string;
}

/** A certificate for `name`, valid for `lifetimeMs` from `atMs` on. */
export function peerCertificate(
  issuer: Issuer,
  name: string,
  lifetimeMs = 3_600_000,
  atMs = Date.now(),
): PeerCertificate {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const ca = new CertificateAuthority(issuer.authority.files, Date.now());
  const leaf = ca.signLeaf(publicKey.export({ type: 'spki', format: 'der' }), partsOf(name), lifetimeMs, atMs);
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    cert: [leaf.der, ...ca.intermediates].map(toPem).join(''),
  };
}

export interface MeshOptions {
  /** Who dials; none: no client certificate. */
  certificate?: PeerCertificate;
  serverName?: string;
  alpn?: string[];
  /** Reached at this address and port instead of the inbound listener for `port`. */
  at?: { host: string; port: number };
  from?: string;
  /** Takes whatever name the server proves. */
  isTrusting?: boolean;
}

/** A TLS connection to `port` of the pod through the worker, which must prove to be `serverName`. */
export function meshSocket(sockets: Sockets, issuer: Issuer, port: number, options: MeshOptions = {}): tls.TLSSocket {
  const { certificate, serverName = WEB, alpn, from = '127.0.0.9' } = options;
  const { host, port: dialled } = options.at ?? { host: inboundAddress(port), port: sockets.ports.inbound4 };
  const socket = tls.connect({
    host,
    port: dialled,
    localAddress: from,
    servername: serverName,
    ca: issuer.anchorsPem,
    minVersion: 'TLSv1.3',
    ...(options.isTrusting && { checkServerIdentity: () => undefined }),
    ...(certificate ?? {}),
    ...(alpn && { ALPNProtocols: alpn }),
  } as tls.ConnectionOptions);
  onCleanUp(() => socket.destroy());
  return socket;
}

/** Resolves when the handshake is done on both sides as far as a client can know; rejects when the connection fails. */
export function secured<T extends net.Socket>(socket: T): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  socket.once('secureConnect', () => resolve(socket));
  socket.once('error', reject);
  socket.once('close', () => reject(new Error('closed before the handshake was done')));
  return promise;
}
