// gRPC status codes (grpc.io, "Status codes and their use in gRPC") and the error that carries one. No gRPC library is
// needed here, so that code which only decides about codes stays light.

import { HeddleError, type HeddleErrorOptions } from '../errors.ts';

export const Status = {
  ok: 0,
  cancelled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  alreadyExists: 6,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  aborted: 10,
  outOfRange: 11,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  dataLoss: 15,
  unauthenticated: 16,
} as const;
export type Status = (typeof Status)[keyof typeof Status];

const NAMES = new Map<number, string>(
  Object.entries(Status).map(([name, code]) => [code, `${name[0]!.toUpperCase()}${name.slice(1)}`]),
);
NAMES.set(Status.ok, 'OK');

/** The name of a code as metrics spell it (`NotFound`); a number outside the standard is written as such. */
export function statusName(code: number): string {
  return NAMES.get(code) ?? `Code(${code})`;
}

/** A call that ends with a status other than OK. `message` travels to the peer: no secrets in it. */
export class GrpcError extends HeddleError {
  override readonly name = 'GrpcError';
  readonly status: Status;

  constructor(status: Status, message: string, options: HeddleErrorOptions = {}) {
    super(
      `grpc-${statusName(status)
        .replace(/(?<=[a-z])[A-Z]/g, '-$&')
        .toLowerCase()}`,
      message,
      options,
    );
    this.status = status;
  }
}
