// Operating system errors of an established connection as HeddleErrors. Whose fault they are only the owner knows.

import { getSystemErrorName } from 'node:util';
import { HeddleError } from '#lib/errors.ts';

const CODES: Record<string, string> = {
  ECONNRESET: 'connection-reset',
  EPIPE: 'connection-reset',
  ECONNABORTED: 'connection-reset',
  ETIMEDOUT: 'connection-timeout',
  EHOSTUNREACH: 'connection-unreachable',
  ENETUNREACH: 'connection-unreachable',
};

/** From a negative errno as libuv reports it. */
export function socketError(errno: number, action: string): HeddleError {
  const name = getSystemErrorName(errno);
  return new HeddleError(CODES[name] ?? 'connection-failed', `${action}: ${name}`);
}

/** From what an `error` event carries. */
export function wrapSocketError(cause: Error): HeddleError {
  if (cause instanceof HeddleError) return cause;
  const { code } = cause as { code?: unknown };
  return new HeddleError(CODES[String(code)] ?? 'connection-failed', `use a connection: ${cause.message}`, { cause });
}

/** A stream that was reset by its user. */
export function resetError(): HeddleError {
  return new HeddleError('stream-reset', 'reset by its user');
}
