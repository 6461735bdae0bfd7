// Why a certificate was not issued. The gRPC code tells a proxy whether asking again can help; the kebab-case code is
// the label of the metric and of the audit line.

import { HeddleError } from '#lib/errors.ts';

/** The gRPC status codes that this service answers with. */
export const GrpcCode = {
  unknown: 2,
  invalidArgument: 3,
  notFound: 5,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  unavailable: 14,
} as const;
export type GrpcCode = (typeof GrpcCode)[keyof typeof GrpcCode];

/** A refusal that the caller is told about, with the gRPC status to tell it by. */
export class Refusal extends HeddleError {
  override readonly name = 'Refusal';
  readonly grpcCode: GrpcCode;

  constructor(grpcCode: GrpcCode, code: string, message: string, cause?: unknown) {
    super(code, message, { source: 'downstream', cause });
    this.grpcCode = grpcCode;
  }
}
