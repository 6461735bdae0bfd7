// The one error type. `code` is a metric label and an anchor in the docs, `source` says whose fault it is, `retry`
// says whether the same request may be sent again elsewhere.

export type ErrorSource = 'downstream' | 'upstream' | 'internal';
export type Retry = 'no' | 'yes' | 'if-reused';

export interface HeddleErrorOptions {
  source?: ErrorSource;
  retry?: Retry;
  cause?: unknown;
}

/** An error with a stable machine-readable code in kebab-case, such as `connect-timeout`. */
export class HeddleError extends Error {
  override readonly name: string = 'HeddleError';
  readonly code: string;
  readonly source: ErrorSource;
  readonly retry: Retry;

  constructor(code: string, message: string, options: HeddleErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.source = options.source ?? 'internal';
    this.retry = options.retry ?? 'no';
  }
}

/** The first error in the cause chain that `test` accepts, or undefined. Chains longer than 32 are cut. */
export function findCause<T extends Error>(error: unknown, test: (candidate: Error) => candidate is T): T | undefined {
  let current: unknown = error;
  for (let depth = 0; depth < 32 && current instanceof Error; depth++) {
    if (test(current)) return current;
    current = current.cause;
  }
  return undefined;
}

/** The messages of the cause chain joined with `: `, outermost first. */
export function describeError(error: unknown): string {
  const messages: string[] = [];
  let current: unknown = error;
  for (let depth = 0; depth < 32 && current !== undefined && current !== null; depth++) {
    if (!(current instanceof Error)) {
      messages.push(String(current));
      break;
    }
    messages.push(current.message || current.name);
    current = current.cause;
  }
  return messages.join(': ');
}

/** Crashes on a programmer's error: the condition must hold whatever a peer or a user does. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new HeddleError('assertion', `assertion failed: ${message}`);
}
