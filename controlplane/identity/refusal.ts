// Why a certificate was not issued. The gRPC code tells a proxy whether asking again can help; the kebab-case code is
// the label of the metric and of the audit line.

import { HeddleError } from '#lib/errors.ts';
import type { Status } from '#lib/grpc/status.ts';

/** A refusal that the caller is told about, with the gRPC status to tell it by. */
export class Refusal extends HeddleError {
  override readonly name = 'Refusal';
  readonly status: Status;

  constructor(status: Status, code: string, message: string, cause?: unknown) {
    super(code, message, { source: 'downstream', cause });
    this.status = status;
  }
}
