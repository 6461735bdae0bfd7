// Which protocol a connection speaks, told from its first bytes as linkerd2-proxy tells it: one read of at most 1024
// bytes decides, and fewer than 14 bytes are opaque.

export type DetectedProtocol = 'http1' | 'http2' | 'opaque';

/** What one read takes into account. */
export const DETECT_BYTES_MAX = 1024;
/** Fewer bytes than this in the first read are opaque: `PRI * HTTP/2.0`, the shortest HTTP/1 request line. */
export const DETECT_BYTES_MIN = 14;

/** Judges the first read of a connection. */
export declare function detectProtocol(bytes: Uint8Array): DetectedProtocol;
