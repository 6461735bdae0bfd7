// What a route does to a request before it goes on: change headers, answer with a redirect, or answer with a failure
// on purpose. Filters run in the order given; one that answers ends the chain.

import type { RequestHead } from '../http.ts';
import type { Found } from './route-match.ts';

export interface HeaderField {
  readonly name: string;
  readonly value: string;
}

export interface Ratio {
  readonly numerator: number;
  readonly denominator: number;
}

export type HttpFilter =
  | {
      readonly kind: 'request-headers';
      readonly add: readonly HeaderField[];
      readonly set: readonly HeaderField[];
      readonly remove: readonly string[];
    }
  | {
      readonly kind: 'redirect';
      readonly scheme: string | null;
      readonly host: string | null;
      readonly port: number | null;
      readonly path: { readonly kind: 'full' | 'prefix'; readonly path: string } | null;
      readonly status: number;
    }
  /** Null ratio: every request. */
  | { readonly kind: 'http-failure'; readonly status: number; readonly message: string; readonly ratio: Ratio | null }
  | { readonly kind: 'grpc-failure'; readonly code: number; readonly message: string; readonly ratio: Ratio | null };

/** How a filter ended the request. */
export type FilterAnswer =
  | { readonly kind: 'redirect'; readonly status: number; readonly location: string }
  | { readonly kind: 'http-failure'; readonly status: number; readonly message: string }
  | { readonly kind: 'grpc-failure'; readonly code: number; readonly message: string }
  /** The filter cannot be applied to this request. */
  | { readonly kind: 'invalid'; readonly message: string };

export const REDIRECT_DEFAULT_STATUS = 301;

/**
 * Applies the filters to the head, in place. Null: the request goes on. `random` returns a number from 0 to below 1;
 * `prefixLength` is what the match says about the path (see {@link Found}).
 */
export function applyFilters(
  filters: readonly HttpFilter[],
  request: RequestHead,
  prefixLength: Found<unknown, unknown>['prefixLength'],
  random: () => number,
): FilterAnswer | null {
  for (const filter of filters) {
    switch (filter.kind) {
      case 'request-headers':
        for (const { name, value } of filter.add) request.headers.add(name, value);
        for (const { name, value } of filter.set) request.headers.set(name, value);
        for (const name of filter.remove) request.headers.remove(name);
        break;
      case 'redirect': {
        const answer = redirect(filter, request, prefixLength);
        if (answer) return answer;
        break;
      }
      case 'http-failure':
        if (isHit(filter.ratio, random)) return { kind: filter.kind, status: filter.status, message: filter.message };
        break;
      case 'grpc-failure':
        if (isHit(filter.ratio, random)) return { kind: filter.kind, code: filter.code, message: filter.message };
        break;
    }
  }
  return null;
}

function isHit(ratio: Ratio | null, random: () => number): boolean {
  return ratio === null || random() * ratio.denominator < ratio.numerator;
}

/** Null where the redirect would lead back to the very same URI: such a request goes on. */
function redirect(
  filter: Extract<HttpFilter, { kind: 'redirect' }>,
  request: RequestHead,
  prefixLength: number | null,
): FilterAnswer | null {
  const path = redirectPath(filter.path, request.path, prefixLength);
  if (path === null) {
    const message = 'apply redirect: expected a route that matches by path prefix to replace the prefix';
    return { kind: 'invalid', message };
  }
  const location = `${filter.scheme ?? request.scheme}://${redirectAuthority(filter, request.authority)}${path}`;
  if (location === `${request.scheme}://${request.authority}${request.path}`) return null;
  return { kind: 'redirect', status: filter.status, location };
}

function redirectPath(
  modifier: Extract<HttpFilter, { kind: 'redirect' }>['path'],
  path: string,
  prefixLength: number | null,
): string | null {
  if (modifier === null) return path;
  const queryAt = path.indexOf('?');
  const query = queryAt < 0 ? '' : path.slice(queryAt);
  if (modifier.kind === 'full') return withSlash(modifier.path) + query;
  if (prefixLength === null) return null;
  const rest = path.slice(prefixLength, queryAt < 0 ? undefined : queryAt);
  // One slash between the two parts, whichever of them brings it.
  const head = modifier.path.endsWith('/') ? modifier.path.slice(0, -1) : modifier.path;
  const tail = rest === '' || rest.startsWith('/') ? rest : `/${rest}`;
  return withSlash(head + tail) + query;
}

function withSlash(path: string): string {
  return path.startsWith('/') ? path : `/${path}`;
}

function redirectAuthority(filter: { host: string | null; port: number | null }, authority: string): string {
  if (filter.host === null && filter.port === null) return authority;
  const colon = authority.lastIndexOf(':');
  const portAt = colon > authority.lastIndexOf(']') ? colon : authority.length;
  const host = filter.host ?? authority.slice(0, portAt);
  return filter.port === null ? host + authority.slice(portAt) : `${host}:${filter.port}`;
}
