// An inbound connection once TLS has been dealt with: who is there, where they want to go, and what was read already.

import type { Duplex } from '#lib/duplex.ts';
import { parseIp } from '#lib/ip-address.ts';
import type { Client } from '../policy/authorization.ts';
import type { Target, TlsStatus } from './labels.ts';

export interface InboundConnection {
  /** Inside TLS where it was terminated. Paused. */
  readonly stream: Duplex;
  /** What was read from it. */
  readonly received: Uint8Array | undefined;
  readonly target: Target;
  readonly tls: TlsStatus;
  readonly client: Client;
  /** For logs. */
  readonly clientName: string;
}

/** Nobody's address: a client that closed before its address could be read. */
const NO_ADDRESS = new Uint8Array(16);

export function inboundConnection(
  stream: Duplex,
  received: Uint8Array | undefined,
  target: Target,
  tls: TlsStatus,
): InboundConnection {
  const identity = tls.kind === 'mesh' ? tls.clientIdentity : null;
  return {
    stream,
    received: received && received.length > 0 ? received : undefined,
    target,
    tls,
    client: {
      address: parseIp(stream.remoteAddress) ?? NO_ADDRESS,
      isMeshTls: tls.kind === 'mesh',
      identity,
    },
    clientName: identity ?? `${stream.remoteAddress}:${stream.remotePort}`,
  };
}
