// SNI and ALPN of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3, RFC 7301), read without terminating.

export type ClientHello =
  /** The bytes so far could begin a ClientHello; more are needed. */
  { kind: 'incomplete' } | { kind: 'not-tls' } | { kind: 'hello'; serverName: string | null; alpn: string[] };

/** Linkerd peeks this much before it gives up. */
export const CLIENT_HELLO_BYTES_MAX = 8192;

/** Judges the first bytes of a connection. Records may split the message anywhere. */
export declare function parseClientHello(bytes: Uint8Array): ClientHello;
