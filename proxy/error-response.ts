// What a client gets when the proxy itself has to answer: one table from error codes to HTTP status, gRPC status and
// whether the connection may live on, and the answer made of it. Shared by both sides; who may see the reason differs
// (outbound: everyone, inbound: peers with a mesh identity). Statuses are Linkerd's.

import { describeError, findCause, HeddleError } from '#lib/errors.ts';
import type { RequestHead, ResponseHead, ResponseStream } from './http.ts';
import { HeaderList } from './wire/headers.ts';

export interface ErrorAnswer {
  readonly status: number;
  readonly grpcStatus: number;
  /** The client's connection ends with this answer. */
  readonly isClosing: boolean;
  /** The value of the label `error` in `{inbound,outbound}_http_errors_total`. */
  readonly label: string;
}

const answer = (status: number, grpcStatus: number, isClosing: boolean, label: string): ErrorAnswer => ({
  status,
  grpcStatus,
  isClosing,
  label,
});

const UNEXPECTED = answer(500, 13, true, 'unexpected');
const BAD_GATEWAY = answer(502, 14, true, 'i/o');
const TIMED_OUT = answer(504, 4, false, 'response timeout');

/** By {@link HeddleError.code}. */
const ANSWERS: ReadonlyMap<string, ErrorAnswer> = new Map([
  ['failfast', answer(504, 4, true, 'failfast')],
  ['connect-timeout', answer(504, 4, true, 'connect timeout')],
  ['tls-timeout', answer(504, 4, true, 'connect timeout')],
  ['profile-timeout', answer(504, 4, true, 'response timeout')],
  ['request-timeout', TIMED_OUT],
  ['response-headers-timeout', TIMED_OUT],
  ['response-timeout', TIMED_OUT],
  ['idle-timeout', TIMED_OUT],
  ['load-shed', answer(503, 14, true, 'loadshed')],
  ['pool-queue-full', answer(503, 14, true, 'loadshed')],
  ['identity-required', answer(502, 14, true, 'identity required')],
  ['tls-identity-mismatch', answer(502, 14, true, 'identity required')],
  ['invalid-backend', BAD_GATEWAY],
  ['no-route', answer(404, 5, false, 'route not found')],
  ['gateway-domain-invalid', answer(404, 5, false, 'gateway domain invalid')],
  ['unauthorized', answer(403, 7, false, 'unauthorized')],
  ['rate-limited', answer(429, 8, false, 'rate limited')],
  ['gateway-loop', answer(508, 10, true, 'gateway loop')],
  ['invalid-policy', UNEXPECTED],
]);

/** How to answer an error: by the first code of its chain that the table knows, else by whose fault it is. */
export function classifyError(error: HeddleError): ErrorAnswer {
  const known = findCause(
    error,
    (candidate): candidate is HeddleError => candidate instanceof HeddleError && ANSWERS.has(candidate.code),
  );
  if (known) return ANSWERS.get(known.code) ?? UNEXPECTED;
  return error.source === 'upstream' ? BAD_GATEWAY : UNEXPECTED;
}

export interface AnswerOptions {
  /** Adds `l5d-proxy-error` and `l5d-proxy-connection`. */
  withDetails: boolean;
}

/** Sends the response for `error` and ends it. Call before any head went out; never from inside `HttpService.call`. */
export function answerError(
  request: RequestHead,
  error: HeddleError,
  response: ResponseStream,
  { withDetails }: AnswerOptions,
): ErrorAnswer {
  const kind = classifyError(error);
  const head = isGrpc(request)
    ? grpcHead(request, kind.grpcStatus, describeError(error))
    : plainHead(request, kind.status);
  if (withDetails) {
    head.headers.add('l5d-proxy-error', headerText(describeError(error)));
    if (kind.isClosing) head.headers.add('l5d-proxy-connection', 'close');
  }
  if (kind.isClosing) head.closesConnection = true;
  response.head(head);
  response.end(null);
  return kind;
}

/** A response without a body. */
export function plainHead(request: RequestHead, status: number): ResponseHead {
  const headers = new HeaderList();
  headers.add('content-length', '0');
  return { status, reason: '', version: request.version, headers, bodyBytes: 0 };
}

/** Trailers-only (gRPC over HTTP/2, "Responses"): the status is in the head, and there is nothing else. */
export function grpcHead(request: RequestHead, grpcStatus: number, message: string): ResponseHead {
  const headers = new HeaderList();
  headers.add('content-type', 'application/grpc');
  headers.add('content-length', '0');
  headers.add('grpc-status', String(grpcStatus));
  if (message !== '') headers.add('grpc-message', percentEncode(message));
  return { status: 200, reason: '', version: request.version, headers, bodyBytes: 0 };
}

/** HTTP/2 with a content type of gRPC, with or without a codec suffix. */
export function isGrpc(request: RequestHead): boolean {
  if (request.version !== 'HTTP/2') return false;
  const contentType = request.headers.get('content-type');
  if (!contentType?.startsWith('application/grpc')) return false;
  return contentType.length === 16 || contentType[16] === '+' || contentType[16] === ';';
}

const HEADER_TEXT_MAX = 512;

/** Visible ASCII of one line (RFC 9110 section 5.5). */
function headerText(text: string): string {
  return text
    .slice(0, HEADER_TEXT_MAX)
    .replace(/[^\x20-\x7e]/g, ' ')
    .trim();
}

/** gRPC over HTTP/2, "Percent-Encoded": everything but visible ASCII and space, and the percent sign. */
function percentEncode(text: string): string {
  const bytes = Buffer.from(text.slice(0, HEADER_TEXT_MAX));
  let encoded = '';
  for (const byte of bytes) {
    encoded +=
      byte >= 0x20 && byte <= 0x7e && byte !== 0x25
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return encoded;
}
