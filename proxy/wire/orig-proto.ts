// `l5d-orig-proto`: what a message was before two proxies carried it over HTTP/2 between them (linkerd2-proxy). The
// value is the HTTP version, and `; absolute-form` where the request's target was one (RFC 9112 section 3.2.2).

import type { HttpVersion } from '../http.ts';

export const ORIG_PROTO = 'l5d-orig-proto';

export interface OrigProto {
  version: Exclude<HttpVersion, 'HTTP/2'>;
  isAbsoluteForm: boolean;
}

export function formatOrigProto({ version, isAbsoluteForm }: OrigProto): string {
  return isAbsoluteForm ? `${version}; absolute-form` : version;
}

/** Null for a value that is none. */
export function parseOrigProto(value: string): OrigProto | null {
  // What nearly every message says.
  if (value === 'HTTP/1.1') return { version: value, isAbsoluteForm: false };
  const [version, ...parameters] = value.split(';').map((part) => part.trim());
  if (version !== 'HTTP/1.1' && version !== 'HTTP/1.0') return null;
  return { version, isAbsoluteForm: parameters.includes('absolute-form') };
}
