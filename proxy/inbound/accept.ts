// The beginning of every inbound connection: whom it was meant for, and whose TLS it speaks. Connections to the proxy's
// own port come from peers' proxies and must say in a transport header what they want; on all other ports the SNI tells
// TLS that is for us from TLS that is the application's.

import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import type { TlsAcceptOptions, TlsContext, TlsDuplex } from '../io/tls.ts';
import { peek, unlessGone } from '../peek.ts';
import type { ServerPolicy } from '../policy/server-policy.ts';
import { CLIENT_HELLO_BYTES_MAX, parseClientHello } from '../wire/client-hello.ts';
import { decodeTransportHeader, TRANSPORT_HEADER_ALPN, type TransportHeaderResult } from '../wire/transport-header.ts';
import { inboundConnection } from './connection.ts';
import type { Target } from './labels.ts';
import type { InboundMetrics } from './metrics.ts';
import type { Ports } from './ports.ts';
import type { InboundServer } from './serve.ts';

export interface AcceptOptions {
  clock: Clock;
  log: Log;
  ports: Ports;
  metrics: InboundMetrics;
  server: InboundServer;
  /** Null: the pod has no identity, and no TLS is terminated. */
  identity(): { name: string; tls: TlsContext } | null;
  /** The port of connections with a transport header. */
  proxyPort(): number;
  podAddresses(): readonly string[];
  detectTimeoutMs(): number;
}

/** How long a connection waits to be judged by its port's own policy. Linkerd's wait for an inbound profile. */
const POLICY_WAIT_MS = 500;
/** What `TlsContext.accept` rejects with. */
const HANDSHAKE_ERRORS: ReadonlySet<string> = new Set([
  'tls-timeout',
  'tls-peer-unverified',
  'tls-handshake-failed',
  'tls-not-ready',
  'tls-aborted',
]);

/** Magic, length and the longest header. */
const TRANSPORT_PREFACE_BYTES_MAX = 23 + 4 + 1024;

/**
 * Finds out who is to serve an accepted connection whose original destination was `target`, and hands it over; resolves
 * then. Never rejects: what goes wrong is counted, told and ends with the connection.
 */
export async function acceptInbound(stream: Duplex, target: Target, options: AcceptOptions): Promise<void> {
  const { log, metrics } = options;
  const refusal = refuse(target, options);
  if (refusal) {
    metrics.refused(refusal);
    log.info('connection refused', { reason: refusal, address: target.address, port: target.port });
    stream.reset();
    return;
  }
  try {
    if (target.port === options.proxyPort()) await acceptDirect(stream, target, options);
    else await acceptByPort(stream, target, options);
  } catch (error) {
    if (error instanceof HeddleError && error.code === 'client-gone') return;
    const level = error instanceof HeddleError ? 'info' : 'error';
    log[level]('inbound connection failed', { client: stream.remoteAddress, port: target.port, error });
    metrics.tcpError(tcpErrorLabel(error), target);
    // A failed handshake closes by itself, behind its alert.
    if (!(error instanceof HeddleError && HANDSHAKE_ERRORS.has(error.code))) stream.reset();
  }
}

/**
 * Connections come by the redirection, to an address of the pod. One to a loopback address was made by somebody in the
 * pod who found the listener itself: serving it would dial that same listener for ever.
 */
function refuse(target: Target, options: AcceptOptions): string | null {
  const addresses = options.podAddresses();
  if (addresses.includes(target.address)) return null;
  if (isLoopback(target.address)) return 'loopback';
  return addresses.length > 0 ? 'not an address of the pod' : null;
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.');
}

async function acceptByPort(stream: Duplex, target: Target, options: AcceptOptions): Promise<void> {
  const { clock, server } = options;
  const policy = await policyOf(stream, target.port, options);
  const identity = options.identity();
  if (policy.protocol.kind === 'opaque') {
    return server.serve(inboundConnection(stream, undefined, target, { kind: 'none', reason: 'port_skipped' }));
  }
  if (!identity) return server.serve(inboundConnection(stream, undefined, target, { kind: 'disabled' }));
  const { bytes, reason } = await peek(stream, {
    clock,
    bytesMax: CLIENT_HELLO_BYTES_MAX,
    timeoutMs: options.detectTimeoutMs(),
    isEnough: (soFar) => parseClientHello(soFar).kind !== 'incomplete',
  });
  if (reason !== 'enough') {
    throw new HeddleError('tls-detect', `wait for the first bytes of a connection: ${reason}`, {
      source: 'downstream',
    });
  }
  const hello = parseClientHello(bytes);
  if (hello.kind !== 'hello') {
    return server.serve(inboundConnection(stream, bytes, target, { kind: 'none', reason: 'no_tls_from_remote' }));
  }
  const { serverName } = hello;
  if (serverName !== identity.name) {
    return server.opaque(inboundConnection(stream, bytes, target, { kind: 'opaque', serverName }));
  }
  const session = await handshake(stream, identity.tls, { received: bytes, timeoutMs: options.detectTimeoutMs() });
  return server.serve(meshConnection(session, undefined, target));
}

/** From a peer's proxy: mesh TLS with a client certificate, and a header that says which port is meant. */
async function acceptDirect(stream: Duplex, target: Target, options: AcceptOptions): Promise<void> {
  const { clock, metrics, server } = options;
  const identity = options.identity();
  if (!identity) throw refusedDirect('expected the pod to have an identity');
  const timeoutMs = options.detectTimeoutMs();
  const session = await handshake(stream, identity.tls, { alpn: [TRANSPORT_HEADER_ALPN], timeoutMs });
  const clientId = session.peerIdentities[0];
  if (session.serverName !== identity.name || clientId === undefined || session.alpn !== TRANSPORT_HEADER_ALPN) {
    session.reset();
    throw refusedDirect('expected mesh TLS with a client certificate and a transport header');
  }
  const { bytes } = await peek(session, {
    clock,
    bytesMax: TRANSPORT_PREFACE_BYTES_MAX,
    timeoutMs,
    isEnough: (soFar) => decodeTransportHeader(soFar).kind !== 'incomplete',
  });
  const decoded = decodeTransportHeader(bytes);
  if (decoded.kind !== 'header' || !isPort(decoded.header.port) || decoded.header.name !== '') {
    session.reset();
    throw refusedDirect(`expected a transport header for a port of this pod: ${describeHeader(decoded)}`);
  }
  const { port, sessionProtocol } = decoded.header;
  metrics.transportHeader(sessionProtocol ?? 'none', port, clientId);
  const connection = meshConnection(session, bytes.subarray(decoded.bytesUsed), { address: target.address, port });
  const { kind } = (await policyOf(session, port, options)).protocol;
  if (kind === 'opaque' || kind === 'tls' || sessionProtocol === null) return server.opaque(connection);
  if (sessionProtocol === 'http2') server.http2(connection);
  else server.http1(connection);
}

/** The policy of a port that a connection is meant for: its own where that can be had soon. */
async function policyOf(stream: Duplex, port: number, { ports }: AcceptOptions): Promise<ServerPolicy> {
  const policy = ports.get(port);
  const known = policy.whenKnown(POLICY_WAIT_MS);
  if (known) await unlessGone(stream, known);
  return policy.current;
}

function meshConnection(session: TlsDuplex, received: Uint8Array | undefined, target: Target) {
  const clientIdentity = session.peerIdentities[0] ?? null;
  return inboundConnection(session, received, target, { kind: 'mesh', clientIdentity });
}

/** A failed handshake says what it is in its code; the stream is closed by then. */
async function handshake(stream: Duplex, tls: TlsContext, accept: TlsAcceptOptions): Promise<TlsDuplex> {
  return tls.accept(stream, accept);
}

function refusedDirect(reason: string): HeddleError {
  return new HeddleError('direct-refused', `accept on the proxy's own port: ${reason}`, { source: 'downstream' });
}

function isPort(port: number): boolean {
  return port >= 1 && port <= 65_535;
}

function describeHeader(result: TransportHeaderResult): string {
  if (result.kind === 'invalid') return result.reason;
  if (result.kind === 'incomplete') return 'nothing of the kind came';
  return `"${result.header.name}" port "${result.header.port}"`;
}

/** The label `error` of `inbound_tcp_errors_total`. */
function tcpErrorLabel(error: unknown): string {
  const code = error instanceof HeddleError ? error.code : '';
  if (code === 'tls-detect' || code === 'tls-timeout') return 'tls detection timeout';
  if (code === 'too-many-ports') return 'loadshed';
  if (code.startsWith('tls-') || code === 'direct-refused') return 'identity required';
  return code === '' ? 'unexpected' : 'i/o';
}
