// Connecting to an address with a deadline.

import type { SocketDuplex } from './socket.ts';

export interface ConnectTarget {
  /** An IPv4 or IPv6 literal: names are resolved by discovery, never here. */
  address: string;
  port: number;
  timeoutMs: number;
  /** TCP keep-alive on the connection; off when absent or 0. */
  keepAliveMs?: number;
}

/**
 * Connects; the stream starts paused. Rejects with HeddleError `connect-timeout`, `connect-refused`,
 * `connect-unreachable`, `connect-reset`, `connect-aborted` (the signal) or `connect-failed`; all have source
 * `upstream` and retry `yes`, but `connect-aborted`, which is not to be retried.
 */
export declare function connectTcp(target: ConnectTarget, signal?: AbortSignal): Promise<SocketDuplex>;
