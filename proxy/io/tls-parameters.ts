// What every mesh handshake offers and accepts, whichever library makes it. TLS 1.3 alone.

/** RFC 8446 and draft-ietf-tls-ecdhe-mlkem, in the order of linkerd2-proxy. */
export const TLS_GROUPS = 'X25519MLKEM768:X25519:P-256:P-384';
export const TLS_SUITES = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256';
