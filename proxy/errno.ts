// The label `errno` of connections that ended or never began with an error.

import { HeddleError } from '#lib/errors.ts';

/** The label `errno` of a failed connection. */
export function errnoOf(error: unknown): string {
  for (let current = error; current instanceof Error; current = current.cause) {
    const { code } = current as { code?: unknown };
    if (typeof code === 'string' && /^E[A-Z]+$/.test(code)) return code;
  }
  if (!(error instanceof HeddleError)) return 'UNKNOWN';
  const byCode: Record<string, string> = {
    'connect-timeout': 'ETIMEDOUT',
    'tls-timeout': 'ETIMEDOUT',
    'connect-refused': 'ECONNREFUSED',
    'connect-unreachable': 'EHOSTUNREACH',
    'connect-reset': 'ECONNRESET',
  };
  return byCode[error.code] ?? 'UNKNOWN';
}
