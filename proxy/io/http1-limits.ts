// Times and sizes of HTTP/1.1 connections. Listed in docs/LIMITS.md.

/** From a connection's first moment, or a head's first byte, to the head's end: 408, or a silent close. */
export const HEADER_TIMEOUT_MS = 10_000;
/** Between exchanges. Longer than clients keep idle connections, so that they close first and no request is lost. */
export const SERVER_IDLE_TIMEOUT_MS = 3_600_000;
/** A connection that drains waits so long for a request that is on its way, before it closes. */
export const DRAIN_IDLE_TIMEOUT_MS = 2_000;
/** After the last response, the client's unread bytes are dropped for so long before the connection is cut. */
export const LINGER_TIMEOUT_MS = 5_000;
/** How many bytes are dropped so. */
export const LINGER_BYTES_MAX = 1_048_576;
/** A last response of which not a byte left the write queue for so long is given up. */
export const WRITE_STALL_TIMEOUT_MS = 30_000;
/** Linkerd's pool. */
export const POOL_IDLE_TIMEOUT_MS = 3_000;
export const POOL_IDLE_MAX = 10_000;
export const POOL_CONNECTIONS_MAX = 10_000;
export const POOL_WAITING_MAX = 10_000;
