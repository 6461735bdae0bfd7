// Was a response a success? gRPC tells by `grpc-status` in the head or the trailers, HTTP by status; a ServiceProfile's
// response classes come before both. Decides metrics, circuit breaking and which responses are worth a retry.

import type { Headers, ResponseHead } from './http.ts';
import { type Classification, NO_GRPC_STATUS } from './observe/recorder.ts';

/** A ServiceProfile's judgement of a status; null where it has none. */
export type ResponseClasses = (status: number) => Classification | null;

const GRPC_RESOURCE_EXHAUSTED = 8;
/** Unknown, DeadlineExceeded, PermissionDenied, Internal, Unavailable, DataLoss. All other codes count as success. */
const GRPC_FAILURES = new Set([2, 4, 7, 13, 14, 15]);

/** What a breaker makes of it; `limited`: 429 or RESOURCE_EXHAUSTED. */
export type Outcome = 'success' | 'failure' | 'limited';

export interface Verdict {
  readonly classification: Classification;
  readonly outcome: Outcome;
  readonly grpcStatus: number;
}

const SUCCESS: Verdict = { classification: 'success', outcome: 'success', grpcStatus: NO_GRPC_STATUS };
const LIMITED: Verdict = { classification: 'success', outcome: 'limited', grpcStatus: NO_GRPC_STATUS };
export const FAILURE: Verdict = { classification: 'failure', outcome: 'failure', grpcStatus: NO_GRPC_STATUS };

/** Judges a response by its head; null: the trailers decide. */
export function judgeHead(head: ResponseHead, classes: ResponseClasses | null): Verdict | null {
  const classified = classes?.(head.status) ?? null;
  if (classified !== null) return classified === 'success' ? SUCCESS : FAILURE;
  if (head.version === 'HTTP/2' && head.headers.get('content-type')?.startsWith('application/grpc')) {
    const status = readGrpcStatus(head.headers);
    return status === NO_GRPC_STATUS ? null : judgeGrpc(status);
  }
  if (head.status >= 500) return FAILURE;
  return head.status === 429 ? LIMITED : SUCCESS;
}

/** Judges a gRPC response by its trailers. A stream that ends without a status counts as success. */
export function judgeTrailers(trailers: Headers | null): Verdict {
  const status = trailers ? readGrpcStatus(trailers) : NO_GRPC_STATUS;
  return status === NO_GRPC_STATUS ? SUCCESS : judgeGrpc(status);
}

/** The code, or {@link NO_GRPC_STATUS} where there is none or it is no number. */
export function readGrpcStatus(headers: Headers): number {
  const text = headers.get('grpc-status');
  return text !== undefined && /^\d{1,3}$/.test(text) ? Number(text) : NO_GRPC_STATUS;
}

function judgeGrpc(grpcStatus: number): Verdict {
  if (GRPC_FAILURES.has(grpcStatus)) return { classification: 'failure', outcome: 'failure', grpcStatus };
  const outcome = grpcStatus === GRPC_RESOURCE_EXHAUSTED ? 'limited' : 'success';
  return { classification: 'success', outcome, grpcStatus };
}

/** Milliseconds the server asks to wait before the next request: `Retry-After` in seconds, or gRPC's pushback. */
export function readRetryAfterMs(headers: Headers): number | null {
  const pushback = headers.get('grpc-retry-pushback-ms');
  if (pushback !== undefined && /^\d{1,9}$/.test(pushback)) return Number(pushback);
  const seconds = headers.get('retry-after');
  return seconds !== undefined && /^\d{1,6}$/.test(seconds) ? Number(seconds) * 1000 : null;
}
