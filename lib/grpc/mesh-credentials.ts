// Channel credentials of the mesh: the server is known by its identity (any DNS or URI name of its certificate), not by
// the address it was found at, and the anchors are asked for at each connection, so that rotation needs no new channel.

import tls from 'node:tls';
import { CallCredentials, ChannelCredentials, type experimental } from '@grpc/grpc-js';
import { HeddleError } from '../errors.ts';
import { identitiesOf, type KeyMaterial, TLS_SETTINGS } from './tls.ts';

export interface MeshTls {
  /** The identity the server must have; also sent as SNI. */
  serverIdentity: string;
  /** PEM certificates the server must chain to, as they are now. */
  trustAnchorsPem(): string;
  /** The client's own certificate as it is now, or null while there is none. */
  certificate?(): KeyMaterial | null;
}

/** A handshake that takes longer is a failed connection. */
const HANDSHAKE_TIMEOUT_MS = 10_000;

export class MeshCredentials extends ChannelCredentials {
  readonly #tls: MeshTls;

  constructor(options: MeshTls) {
    super();
    this.#tls = options;
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return other === this;
  }

  override _createSecureConnector(
    _target: unknown,
    _options: unknown,
    callCredentials?: CallCredentials,
  ): experimental.SecureConnector {
    return {
      connect: async (socket) => ({ socket: await secure(socket, this.#tls), secure: true }),
      waitForReady: async () => {},
      getCallCredentials: () => callCredentials ?? CallCredentials.createEmpty(),
      destroy: () => {},
    };
  }
}

/** Credentials of a channel without TLS. */
export function plainTextCredentials(): ChannelCredentials {
  return ChannelCredentials.createInsecure();
}

async function secure(socket: import('node:net').Socket, options: MeshTls): Promise<tls.TLSSocket> {
  const own = options.certificate?.();
  return await new Promise((resolve, reject) => {
    const fail = (cause: Error) => {
      clearTimeout(timer);
      secured.destroy();
      const message = `secure the connection to "${options.serverIdentity}": ${cause.message}`;
      reject(cause instanceof HeddleError ? cause : new HeddleError('control-tls', message, { cause }));
    };
    const secured = tls.connect({
      ...TLS_SETTINGS,
      socket,
      ca: options.trustAnchorsPem(),
      servername: options.serverIdentity,
      ALPNProtocols: ['h2'],
      checkServerIdentity: (_host, certificate) => checkIdentity(options.serverIdentity, certificate.raw),
      ...(own ? { cert: own.certificatePem, key: own.privateKeyPem } : {}),
    });
    const timer = setTimeout(
      () => fail(new Error(`no handshake within ${HANDSHAKE_TIMEOUT_MS} ms`)),
      HANDSHAKE_TIMEOUT_MS,
    );
    const closed = () => fail(new Error('the peer closed the connection'));
    secured.once('error', fail);
    secured.once('close', closed);
    secured.once('secureConnect', () => {
      clearTimeout(timer);
      secured.off('error', fail);
      secured.off('close', closed);
      resolve(secured);
    });
  });
}

function checkIdentity(expected: string, der: Buffer): Error | undefined {
  const identities = identitiesOf(der);
  if (identities.includes(expected)) return undefined;
  return new HeddleError(
    'control-identity',
    `trust the control plane as "${identities.join(', ')}": expected the identity "${expected}"`,
  );
}
