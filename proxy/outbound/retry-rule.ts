// Two ways to say what is retried. A policy route names conditions, a limit, a back-off and a time per try, and has no
// budget; a ServiceProfile retries what it classifies as failure, without limit or back-off, within a budget.

import { findCause, HeddleError } from '#lib/errors.ts';
import { judgeHead, type ResponseClasses, type Verdict } from '../classify.ts';
import type { ResponseHead } from '../http.ts';
import type { ProfileRouteRecorder, RouteRecorder } from '../observe/recorder.ts';
import type { RetryPolicy } from './policy.ts';
import type { RetryBudget } from './retry-budget.ts';

export interface RetryObserver {
  retried(): void;
  /** A request that was retried went well. */
  succeeded(): void;
  limitExceeded(): void;
  /** Not retried because of its body. */
  overflow(): void;
}

export interface RetryRule {
  readonly maxRetries: number;
  readonly bodyBytesMax: number;
  /** Only requests that were received completely are retried. */
  readonly needsWholeBody: boolean;
  readonly perTryMs: number | null;
  readonly observer: RetryObserver;
  /** Null: the trailers tell. */
  isHeadRetryable(head: ResponseHead): boolean | null;
  isGrpcRetryable(verdict: Verdict): boolean;
  isErrorRetryable(error: HeddleError): boolean;
  /** False: not now, there were too many retries. */
  takesBudget(nowMs: number): boolean;
  /** A request was answered for good. */
  deposit(nowMs: number): void;
  /** Milliseconds before attempt number `attempt` + 1. */
  nextDelayMs(attempt: number): number;
}

/** Of ServiceProfiles; of policy routes unless they say less. */
const BODY_BYTES_MAX = 64 * 1024;
/** A profile sets no limit; a loop needs one. */
const PROFILE_RETRIES_MAX = 100;

export function policyRetryRule(policy: RetryPolicy, recorder: RouteRecorder, random: () => number): RetryRule {
  return {
    maxRetries: policy.maxRetries,
    bodyBytesMax: policy.maxRequestBytes,
    needsWholeBody: false,
    perTryMs: policy.perTryMs,
    observer: {
      retried: () => recorder.retry(),
      succeeded: () => recorder.retrySuccess(),
      limitExceeded: () => recorder.retryLimitExceeded(),
      overflow: () => recorder.retryOverflow(),
    },
    isHeadRetryable: (head) => {
      if (policy.statuses.some(([from, to]) => head.status >= from && head.status <= to)) return true;
      if (policy.grpcCodes.size === 0) return false;
      const verdict = judgeHead(head, null);
      return verdict === null ? null : policy.grpcCodes.has(verdict.grpcStatus);
    },
    isGrpcRetryable: (verdict) => policy.grpcCodes.has(verdict.grpcStatus),
    isErrorRetryable,
    takesBudget: () => true,
    deposit: () => {},
    nextDelayMs: (attempt) => {
      if (!policy.backoff) return 0;
      const { minMs, maxMs, jitter } = policy.backoff;
      const baseMs = Math.min(maxMs, minMs * 2 ** (attempt - 1));
      return baseMs * (1 + random() * jitter);
    },
  };
}

/** Nothing reached an application, or nothing came back in time. What was shed is never tried again: it would add load. */
function isErrorRetryable(error: HeddleError): boolean {
  const isShed = findCause(
    error,
    (cause): cause is HeddleError => cause instanceof HeddleError && isShedCode(cause.code),
  );
  return !isShed && error.retry === 'yes';
}

function isShedCode(code: string): boolean {
  return code === 'load-shed' || code === 'pool-queue-full';
}

export function profileRetryRule(
  classes: ResponseClasses,
  budget: RetryBudget,
  recorder: ProfileRouteRecorder,
): RetryRule {
  const isFailure = (verdict: Verdict) => verdict.classification === 'failure';
  return {
    maxRetries: PROFILE_RETRIES_MAX,
    bodyBytesMax: BODY_BYTES_MAX,
    needsWholeBody: true,
    perTryMs: null,
    observer: { retried: () => {}, succeeded: () => {}, limitExceeded: () => {}, overflow: () => {} },
    isHeadRetryable: (head) => {
      const verdict = judgeHead(head, classes);
      return verdict && isFailure(verdict);
    },
    isGrpcRetryable: isFailure,
    isErrorRetryable: () => false,
    takesBudget: (nowMs) => {
      const hasBudget = budget.withdraw(nowMs);
      recorder.retryable(!hasBudget);
      return hasBudget;
    },
    deposit: (nowMs) => budget.deposit(nowMs),
    nextDelayMs: () => 0,
  };
}
