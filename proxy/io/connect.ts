// Connecting to an address with a deadline.

import net from 'node:net';
import { HeddleError } from '#lib/errors.ts';
import { type SocketDuplex, wrapSocket } from './socket.ts';

export interface ConnectTarget {
  /** An IPv4 or IPv6 literal: names are resolved by discovery, never here. */
  address: string;
  port: number;
  timeoutMs: number;
  /** TCP keep-alive on the connection; off when absent or 0. */
  keepAliveMs?: number;
}

const CODES: Record<string, string> = {
  ECONNREFUSED: 'connect-refused',
  EHOSTUNREACH: 'connect-unreachable',
  ENETUNREACH: 'connect-unreachable',
  EADDRNOTAVAIL: 'connect-unreachable',
  ETIMEDOUT: 'connect-timeout',
  ECONNRESET: 'connect-reset',
};

/**
 * Connects; the stream starts paused. Rejects with HeddleError `connect-timeout`, `connect-refused`,
 * `connect-unreachable`, `connect-reset`, `connect-aborted` (the signal) or `connect-failed`; all have source
 * `upstream` and retry `yes`, but `connect-aborted`, which is not to be retried.
 */
export function connectTcp(target: ConnectTarget, signal?: AbortSignal): Promise<SocketDuplex> {
  const { address, port, timeoutMs, keepAliveMs = 0 } = target;
  const family = net.isIP(address);
  const fail = (code: string, reason: string, cause?: unknown): HeddleError =>
    new HeddleError(code, `connect to "${describe(address, port)}": ${reason}`, {
      source: 'upstream',
      retry: code === 'connect-aborted' ? 'no' : 'yes',
      cause,
    });
  if (family === 0) return Promise.reject(fail('connect-failed', 'expected an IP address'));
  if (signal?.aborted) return Promise.reject(fail('connect-aborted', 'not wanted any more', signal.reason));
  const { promise, resolve, reject } = Promise.withResolvers<SocketDuplex>();
  const socket = net.connect({
    host: address,
    port,
    family,
    allowHalfOpen: true,
    noDelay: true,
    keepAlive: keepAliveMs > 0,
    keepAliveInitialDelay: keepAliveMs,
  });
  // Otherwise Node starts to read on its own as soon as the connection stands.
  socket.pause();
  const settle = (error: HeddleError | null): void => {
    clearTimeout(timer);
    clearImmediate(lastLook);
    signal?.removeEventListener('abort', onAbort);
    socket.removeListener('error', onError);
    socket.removeListener('connect', onConnect);
    if (error === null) {
      resolve(wrapSocket(socket));
      return;
    }
    socket.on('error', ignoreLate);
    socket.destroy();
    reject(error);
  };
  const onError = (cause: NodeJS.ErrnoException): void =>
    settle(fail(CODES[cause.code ?? ''] ?? 'connect-failed', cause.code ?? cause.message, cause));
  const onConnect = (): void => settle(null);
  const onAbort = (): void => settle(fail('connect-aborted', 'not wanted any more', signal?.reason));
  // A process that was not scheduled for a while finds its timers due before it sees that the connection stands:
  // immediates run after one look at the sockets.
  let lastLook: NodeJS.Immediate | undefined;
  const timer = setTimeout(() => {
    lastLook = setImmediate(() => settle(fail('connect-timeout', `no answer for ${timeoutMs} ms`)));
  }, timeoutMs);
  socket.on('error', onError);
  socket.on('connect', onConnect);
  signal?.addEventListener('abort', onAbort, { once: true });
  return promise;
}

/** The attempt was settled already: what the dying socket still reports concerns nobody. */
function ignoreLate(): void {}

function describe(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
