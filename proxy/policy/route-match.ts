// Which route does a request take? Precedence as Linkerd has it: host (exact before the longest suffix before none),
// then the length of the matched path, the number of matched headers, of matched query parameters, and whether a method
// was named. Equals are decided by order, so the sender's order (oldest route first) counts.

import type { RequestHead } from '../http.ts';

export type HostMatch =
  | { readonly kind: 'exact'; readonly host: string }
  /** `*.example.com` as `.example.com`: at least one more label before it. */
  | { readonly kind: 'suffix'; readonly suffix: string };

export type TextMatch =
  | { readonly kind: 'exact'; readonly text: string }
  /** Matches the whole text. */
  | { readonly kind: 'regex'; readonly regex: RegExp };

export type PathMatch =
  | { readonly kind: 'exact'; readonly path: string }
  /** By whole segments: `/a` matches `/a` and `/a/b`, not `/ab`. */
  | { readonly kind: 'prefix'; readonly prefix: string }
  | { readonly kind: 'regex'; readonly regex: RegExp }
  /** A gRPC call; empty means any. */
  | { readonly kind: 'rpc'; readonly service: string; readonly method: string };

export interface RequestMatch {
  readonly path: PathMatch | null;
  readonly headers: readonly { readonly name: string; readonly value: TextMatch }[];
  readonly query: readonly { readonly name: string; readonly value: TextMatch }[];
  readonly method: string | null;
}

export interface Matchable {
  readonly matches: readonly RequestMatch[];
}

export interface Routable<Rule extends Matchable> {
  /** None: any host. */
  readonly hosts: readonly HostMatch[];
  readonly rules: readonly Rule[];
}

export interface Found<Rule, Route> {
  readonly route: Route;
  readonly rule: Rule;
  /** How many characters of the path a prefix match covered; null where the path was not matched by prefix. */
  readonly prefixLength: number | null;
}

/** How well something matched: compared from the first number on, more is better. */
type Rank = readonly [host: number, path: number, rpcMethod: number, headers: number, query: number, method: number];

/** Ranks an exact host above every suffix; hosts are at most 253 characters (RFC 1035 section 2.3.4). */
const EXACT_HOST = 0x10000;
const NO_MATCH = -1;
const SLASH = 0x2f;

/** The best rule for the request, or null where none matches. */
export function findRoute<Rule extends Matchable, Route extends Routable<Rule>>(
  routes: readonly Route[],
  request: RequestHead,
): Found<Rule, Route> | null {
  const only = routes.length === 1 ? routes[0]! : null;
  const rule = only?.hosts.length === 0 && only.rules.length === 1 ? only.rules[0]! : null;
  // The usual policy, one rule for everything, needs no ranking.
  if (only && rule && takesPath(rule.matches, request.path)) return { route: only, rule, prefixLength: 1 };
  let best: { rank: Rank; found: Found<Rule, Route> } | null = null;
  const target = new Target(request);
  for (const route of routes) {
    const host = rankHost(route.hosts, target.host);
    if (host === NO_MATCH) continue;
    for (const rule of route.rules) {
      const matched = rankRule(rule.matches, target, host);
      if (!matched || (best && !isBetter(matched.rank, best.rank))) continue;
      best = { rank: matched.rank, found: { route, rule, prefixLength: matched.prefixLength } };
    }
  }
  return best?.found ?? null;
}

/** There is one match, by the prefix `/` alone, and the path has it. */
function takesPath(matches: readonly RequestMatch[], requested: string): boolean {
  if (matches.length !== 1 || requested.charCodeAt(0) !== SLASH) return false;
  const { path, headers, query, method } = matches[0]!;
  return path?.kind === 'prefix' && path.prefix === '/' && headers.length + query.length === 0 && method === null;
}

/** The parts of a request that matches look at, cut out once and only when they are asked for. */
class Target {
  readonly request: RequestHead;
  readonly path: string;
  #host: string | null = null;
  #query: URLSearchParams | null = null;

  constructor(request: RequestHead) {
    this.request = request;
    const at = request.path.indexOf('?');
    this.path = at < 0 ? request.path : request.path.slice(0, at);
  }

  get host(): string {
    this.#host ??= hostOf(this.request.authority);
    return this.#host;
  }

  get query(): URLSearchParams {
    this.#query ??= new URLSearchParams(this.request.path.slice(this.path.length + 1));
    return this.#query;
  }
}

/** The host of an authority in lower case, without the port and without a final dot. */
export function hostOf(authority: string): string {
  const colon = authority.lastIndexOf(':');
  const hasPort = colon > authority.lastIndexOf(']');
  const host = (hasPort ? authority.slice(0, colon) : authority).toLowerCase();
  return host.endsWith('.') ? host.slice(0, -1) : host;
}

function rankHost(hosts: readonly HostMatch[], host: string): number {
  if (hosts.length === 0) return 0;
  let best = NO_MATCH;
  for (const match of hosts) {
    if (
      match.kind === 'exact' ? match.host === host : host.length > match.suffix.length && host.endsWith(match.suffix)
    ) {
      best = Math.max(best, match.kind === 'exact' ? EXACT_HOST : match.suffix.length);
    }
  }
  return best;
}

function rankRule(
  matches: readonly RequestMatch[],
  target: Target,
  host: number,
): { rank: Rank; prefixLength: number | null } | null {
  // A rule without matches takes everything, as the lowest of all.
  if (matches.length === 0) return { rank: [host, 0, 0, 0, 0, 0], prefixLength: null };
  let best: { rank: Rank; prefixLength: number | null } | null = null;
  for (const match of matches) {
    const { request } = target;
    if (match.method !== null && match.method !== request.method) continue;
    const [path, rpcMethod] = rankPath(match.path, target);
    if (path === NO_MATCH) continue;
    if (!match.headers.every(({ name, value }) => hasHeader(request, name, value))) continue;
    if (!match.query.every(({ name, value }) => target.query.getAll(name).some((text) => isText(value, text))))
      continue;
    const rank: Rank = [host, path, rpcMethod, match.headers.length, match.query.length, match.method === null ? 0 : 1];
    if (best && !isBetter(rank, best.rank)) continue;
    best = { rank, prefixLength: match.path?.kind === 'prefix' ? path : null };
  }
  return best;
}

/** Length of the matched path, and for gRPC that of the service and that of the method. */
function rankPath(match: PathMatch | null, target: Target): readonly [number, number] {
  if (match === null) return [0, 0];
  const { path } = target;
  switch (match.kind) {
    case 'exact':
      return [match.path === path ? path.length : NO_MATCH, 0];
    case 'prefix':
      return [hasPrefix(path, match.prefix) ? match.prefix.length : NO_MATCH, 0];
    case 'regex':
      return [match.regex.test(path) ? path.length : NO_MATCH, 0];
    case 'rpc':
      return rankRpc(match, target);
  }
}

function hasPrefix(path: string, prefix: string): boolean {
  if (!path.startsWith(prefix)) return false;
  return path.length === prefix.length || prefix.endsWith('/') || path[prefix.length] === '/';
}

/** gRPC over HTTP/2: POST to `/service/method`. */
function rankRpc(match: { service: string; method: string }, target: Target): readonly [number, number] {
  const { path, request } = target;
  const slash = path.indexOf('/', 1);
  if (request.method !== 'POST' || path[0] !== '/' || slash < 0) return [NO_MATCH, 0];
  if (match.service !== '' && match.service !== path.slice(1, slash)) return [NO_MATCH, 0];
  if (match.method !== '' && match.method !== path.slice(slash + 1)) return [NO_MATCH, 0];
  return [match.service.length, match.method.length];
}

function hasHeader(request: RequestHead, name: string, value: TextMatch): boolean {
  const { headers } = request;
  for (let index = 0; index < headers.length; index++) {
    if (headers.name(index) === name && isText(value, headers.value(index))) return true;
  }
  return false;
}

function isText(match: TextMatch, text: string): boolean {
  return match.kind === 'exact' ? match.text === text : match.regex.test(text);
}

function isBetter(rank: Rank, than: Rank): boolean {
  for (let index = 0; index < rank.length; index++) {
    if (rank[index] !== than[index]) return rank[index]! > than[index]!;
  }
  return false;
}
