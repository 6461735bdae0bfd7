// Matches and filters of route messages in the worker's own words. Regular expressions are compiled here once; they
// match whole texts. Patterns come from operators, texts from peers: main.ts makes V8 fall back to its linear-time
// engine when a pattern backtracks too much.

import type { GrpcFailureInjector, GrpcRouteMatch } from '#api/gen/grpc_route.ts';
import type {
  HeaderMatch,
  HostMatch as HostMatchMessage,
  HttpFailureInjector,
  HttpRouteMatch,
  PathMatch as PathMatchMessage,
  QueryParamMatch,
  Ratio as RatioMessage,
  RequestHeaderModifier,
  RequestRedirect,
} from '#api/gen/http_route.ts';
import { type Headers, type HttpMethod, HttpMethod_Registered, Scheme_Registered } from '#api/gen/http_types.ts';
import { HeddleError } from '#lib/errors.ts';
import { type HeaderField, type HttpFilter, type Ratio, REDIRECT_DEFAULT_STATUS } from './filters.ts';
import type { HostMatch, PathMatch, RequestMatch, TextMatch } from './route-match.ts';

export type FilterKind =
  | { $case: 'failureInjector'; value: HttpFailureInjector }
  | { $case: 'grpcFailureInjector'; value: GrpcFailureInjector }
  | { $case: 'requestHeaderModifier'; value: RequestHeaderModifier }
  | { $case: 'redirect'; value: RequestRedirect }
  | undefined;

export function translateHost(message: HostMatchMessage): HostMatch {
  switch (message.match?.$case) {
    case 'exact':
      return { kind: 'exact', host: message.match.value.toLowerCase() };
    case 'suffix': {
      const labels = message.match.value.reverseLabels.map((label) => `.${label.toLowerCase()}`);
      return { kind: 'suffix', suffix: labels.reverse().join('') };
    }
    default:
      throw invalid('hosts', 'none', 'an exact host or a suffix');
  }
}

export function translateHttpMatch(message: HttpRouteMatch): RequestMatch {
  return {
    path: message.path ? translatePath(message.path) : null,
    headers: message.headers.map(translateHeader),
    query: message.queryParams.map(translateQuery),
    method: message.method ? translateMethod(message.method) : null,
  };
}

export function translateGrpcMatch(message: GrpcRouteMatch): RequestMatch {
  const { service = '', method = '' } = message.rpc ?? {};
  return {
    path: { kind: 'rpc', service, method },
    headers: message.headers.map(translateHeader),
    query: [],
    method: null,
  };
}

export function translateFilter(kind: FilterKind): HttpFilter {
  switch (kind?.$case) {
    case 'failureInjector': {
      const { status, message, ratio } = kind.value;
      return { kind: 'http-failure', status: checkStatus(status), message, ratio: translateRatio(ratio) };
    }
    case 'grpcFailureInjector': {
      const { code, message, ratio } = kind.value;
      return { kind: 'grpc-failure', code, message, ratio: translateRatio(ratio) };
    }
    case 'requestHeaderModifier': {
      const { add, set, remove } = kind.value;
      return {
        kind: 'request-headers',
        add: translateHeaders(add),
        set: translateHeaders(set),
        remove: remove.map((name) => name.toLowerCase()),
      };
    }
    case 'redirect':
      return translateRedirect(kind.value);
    default:
      throw invalid('filters', 'none', 'a known kind of filter');
  }
}

function translateRedirect(message: RequestRedirect): HttpFilter {
  const replace = message.path?.replace;
  return {
    kind: 'redirect',
    scheme: translateScheme(message.scheme),
    host: message.host === '' ? null : message.host,
    port: message.port === 0 ? null : message.port,
    path: replace ? { kind: replace.$case, path: replace.value } : null,
    status: message.status === 0 ? REDIRECT_DEFAULT_STATUS : checkStatus(message.status),
  };
}

function translateScheme(message: RequestRedirect['scheme']): string | null {
  switch (message?.type?.$case) {
    case 'registered':
      return message.type.value === Scheme_Registered.HTTPS ? 'https' : 'http';
    case 'unregistered':
      return message.type.value;
    default:
      return null;
  }
}

function translatePath(message: PathMatchMessage): PathMatch {
  switch (message.kind?.$case) {
    case 'exact':
      return { kind: 'exact', path: message.kind.value };
    case 'prefix':
      return { kind: 'prefix', prefix: message.kind.value };
    case 'regex':
      return { kind: 'regex', regex: compilePattern(message.kind.value) };
    default:
      throw invalid('path', 'none', 'exact, prefix or regex');
  }
}

function translateHeader(message: HeaderMatch): { name: string; value: TextMatch } {
  const name = message.name.toLowerCase();
  switch (message.value?.$case) {
    case 'exact':
      return { name, value: { kind: 'exact', text: message.value.value.toString('latin1') } };
    case 'regex':
      return { name, value: { kind: 'regex', regex: compilePattern(message.value.value) } };
    default:
      throw invalid('headers', message.name, 'exact or regex');
  }
}

function translateQuery(message: QueryParamMatch): { name: string; value: TextMatch } {
  switch (message.value?.$case) {
    case 'exact':
      return { name: message.name, value: { kind: 'exact', text: message.value.value } };
    case 'regex':
      return { name: message.name, value: { kind: 'regex', regex: compilePattern(message.value.value) } };
    default:
      throw invalid('query_params', message.name, 'exact or regex');
  }
}

export function translateMethod(message: HttpMethod): string {
  switch (message.type?.$case) {
    case 'registered': {
      const { value } = message.type;
      const name = Object.entries(HttpMethod_Registered).find(([, number]) => number === value)?.[0];
      if (!name) throw invalid('method', String(value), 'a registered method');
      return name;
    }
    case 'unregistered':
      return message.type.value;
    default:
      throw invalid('method', 'none', 'a method');
  }
}

function translateHeaders(message: Headers | undefined): HeaderField[] {
  return (message?.headers ?? []).map(({ name, value }) => {
    const text = value.toString('latin1');
    // A header of an operator may not smuggle another one behind a line end (RFC 9110 section 5.5).
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)) throw invalid('header name', name, 'a token');
    if (/[\0\r\n]/.test(text)) throw invalid(`header "${name}"`, text, 'a value without NUL, CR or LF');
    return { name: name.toLowerCase(), value: text };
  });
}

function translateRatio(message: RatioMessage | undefined): Ratio | null {
  if (!message) return null;
  if (message.denominator === 0) throw invalid('ratio', `${message.numerator}/0`, 'a denominator other than 0');
  return { numerator: message.numerator, denominator: message.denominator };
}

function checkStatus(status: number): number {
  if (status < 200 || status > 599) throw invalid('status', String(status), 'an HTTP status from 200 to 599');
  return status;
}

/** Patterns are written for Rust's regex crate: a leading `(?i)` is the one inline flag that JavaScript lacks. */
export function compilePattern(pattern: string): RegExp {
  const ignoresCase = pattern.startsWith('(?i)');
  try {
    return new RegExp(`^(?:${ignoresCase ? pattern.slice(4) : pattern})$`, ignoresCase ? 'i' : '');
  } catch (cause) {
    throw new HeddleError('invalid-policy', `compile regular expression "${pattern}": expected a valid pattern`, {
      cause,
    });
  }
}

/** What a field holds and what it should: becomes the reason of an invalid policy. */
export function invalid(field: string, value: string, expected: string): HeddleError {
  return new HeddleError(
    'invalid-policy',
    `read inbound policy, field "${field}" with "${value}": expected ${expected}`,
  );
}
