// Mesh TLS over an established connection, both ways: TLS 1.3 only, hybrid key exchange first, identities in SANs. This
// is the narrow interface behind which the TLS library lives.

import type { Duplex } from '#lib/duplex.ts';
import { OpenSslTls } from './tls-openssl.ts';

export interface TlsCertificate {
  /** PKCS #8 private key, PEM. */
  keyPem: string;
  /** Leaf first, then the issuers up to, not including, the anchor, PEM. */
  chainPem: string;
}

/** What handshakes are made with. Replacing it affects new handshakes only. */
export interface TlsMaterial {
  /** Peers must chain to one of these certificates, PEM. */
  anchorsPem: string;
  /** Null until the first certificate is issued: a client then presents none, a server cannot accept. */
  certificate: TlsCertificate | null;
}

/** An established session. Paused, as every stream is that changes hands. */
export interface TlsDuplex extends Duplex {
  /** DNS and URI SANs of the peer's verified certificate, in its order; empty when it presented none. */
  readonly peerIdentities: readonly string[];
  /** The negotiated application protocol, or null. */
  readonly alpn: string | null;
  /** The peer's SNI as seen by a server, or what a client sent. */
  readonly serverName: string | null;
}

export interface TlsAcceptOptions {
  /** Bytes of the connection that were read already. */
  received?: Uint8Array;
  /** Protocols to select from when the client offers one of them; without a match TLS goes on without ALPN. */
  alpn?: readonly string[];
  timeoutMs: number;
}

export interface TlsConnectOptions {
  /** Sent as SNI. */
  serverName: string;
  /** One of the server's SANs must equal this; absent: same as `serverName`. */
  identity?: string;
  /** Offered in this order. */
  alpn?: readonly string[];
  timeoutMs: number;
}

/** The TLS of one worker: holds the material, makes sessions. */
export interface TlsContext {
  /** Swaps certificate and anchors for new handshakes. Throws HeddleError `tls-material-invalid` and keeps the old. */
  update(material: TlsMaterial): void;
  /**
   * Server handshake. A client certificate is requested, not required, and verified when sent. Rejects with HeddleError
   * `tls-timeout`, `tls-peer-unverified`, `tls-handshake-failed`, `tls-not-ready`, `tls-aborted`; the stream is closed
   * then. Source `downstream`.
   */
  accept(duplex: Duplex, options: TlsAcceptOptions, signal?: AbortSignal): Promise<TlsDuplex>;
  /** Client handshake. Rejects as `accept` does, and with `tls-identity-mismatch`. Source `upstream`, retry `yes`. */
  connect(duplex: Duplex, options: TlsConnectOptions, signal?: AbortSignal): Promise<TlsDuplex>;
}

/** Makes a context. Throws HeddleError `tls-material-invalid`. */
export function createTlsContext(material: TlsMaterial): TlsContext {
  return new OpenSslTls(material);
}
