// A connection to an endpoint: TCP, mutual TLS where discovery knows whom to expect, and the transport header that
// tells the peer's proxy which port and protocol were meant. All of it within one connect timeout.

import { TRANSPORT_ALPN } from '#api/names.ts';
import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import { formatAddress } from '../address.ts';
import type { ConnectTarget } from '../io/connect.ts';
import type { TlsContext } from '../io/tls.ts';
import { encodeTransportHeader, type TransportHeader } from '../wire/transport-header.ts';
import type { EndpointInfo } from './endpoint-info.ts';

export type SessionProtocol = TransportHeader['sessionProtocol'];

export interface DialOptions {
  clock: Clock;
  /** connectTcp of io/connect.ts. */
  connect(target: ConnectTarget, signal?: AbortSignal): Promise<Duplex>;
  /** Null while the pod has no identity of its own: connections to meshed peers fail then, they are never in clear. */
  tls(): TlsContext | null;
  connectTimeoutMs(): number;
}

const KEEP_ALIVE_MS = 10_000;
const TRANSPORT_ALPNS = [TRANSPORT_ALPN];

export type Dial = (info: EndpointInfo, session: SessionProtocol, signal?: AbortSignal) => Promise<Duplex>;

/**
 * Makes the function that connects. It rejects with HeddleError; unless the code says it was aborted nothing reached
 * the application at the other end, so that `retry` is `yes`.
 */
export function createDial(options: DialOptions): Dial {
  return async (info, session, signal) => {
    const startedMs = options.clock.nowMs();
    const timeoutMs = options.connectTimeoutMs();
    // A transport header travels inside mesh TLS only.
    const transportPort = info.identity ? info.transportPort : null;
    const target = { address: info.address, port: transportPort ?? info.port, timeoutMs, keepAliveMs: KEEP_ALIVE_MS };
    const tcp = await options.connect(target, signal);
    if (!info.identity) return tcp;
    const tls = options.tls();
    if (!tls) {
      tcp.reset();
      const message = `connect to ${describe(info)}: expected this pod to have an identity`;
      throw new HeddleError('tls-not-ready', message, { source: 'upstream' });
    }
    const usedMs = options.clock.nowMs() - startedMs;
    const offersTransport = transportPort !== null || info.authorityOverride !== null;
    try {
      const session_ = await tls.connect(
        tcp,
        {
          serverName: info.identity.serverName,
          identity: info.identity.name,
          timeoutMs: Math.max(1, timeoutMs - usedMs),
          ...(offersTransport && { alpn: TRANSPORT_ALPNS }),
        },
        signal,
      );
      if (session_.alpn === TRANSPORT_ALPN) session_.write(headerFor(info, session));
      return session_;
    } catch (error) {
      throw unsent(error, info);
    }
  };
}

/** The port the application serves; a gateway is told the name instead. */
function headerFor(info: EndpointInfo, session: SessionProtocol): Uint8Array {
  if (info.authorityOverride === null) {
    return encodeTransportHeader({ port: info.port, name: '', sessionProtocol: session });
  }
  const colon = info.authorityOverride.lastIndexOf(':');
  const port = colon < 0 ? info.port : Number(info.authorityOverride.slice(colon + 1));
  const name = colon < 0 ? info.authorityOverride : info.authorityOverride.slice(0, colon);
  return encodeTransportHeader({ port, name, sessionProtocol: session });
}

/** A handshake that fails left nothing with the peer's application: the request may go elsewhere. */
function unsent(error: unknown, info: EndpointInfo): HeddleError {
  const code = error instanceof HeddleError ? error.code : 'tls-handshake-failed';
  return new HeddleError(code, `connect to ${describe(info)}`, {
    source: 'upstream',
    retry: code === 'tls-not-ready' || code.endsWith('-aborted') ? 'no' : 'yes',
    cause: error,
  });
}

function describe(info: EndpointInfo): string {
  const name = info.identity ? ` as "${info.identity.name}"` : '';
  return `"${formatAddress(info.address, info.port)}"${name}`;
}
