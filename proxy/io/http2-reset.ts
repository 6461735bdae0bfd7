// HTTP/2 stream errors as errors of ours, with the code of RFC 9113 section 7: it is passed on from stream to stream and
// named in metrics.

import { findCause, HeddleError } from '#lib/errors.ts';
import { ErrorCode, errorCodeName } from '../wire/http2/constants.ts';

export class StreamResetError extends HeddleError {
  readonly resetCode: number;

  constructor(resetCode: number, isRemote: boolean) {
    const name = errorCodeName(resetCode);
    super('h2-reset', `stream reset ${isRemote ? 'by the peer' : 'for a fault of the peer'}: ${name}`, {
      source: 'upstream',
      // Section 8.7: a refused stream was not processed.
      retry: resetCode === ErrorCode.REFUSED_STREAM ? 'yes' : 'no',
    });
    this.resetCode = resetCode;
  }
}

/** The code to reset a stream with because of `error`. */
export function resetCodeFor(error: HeddleError): ErrorCode {
  const reset = findCause(error, (candidate): candidate is StreamResetError => candidate instanceof StreamResetError);
  if (reset !== undefined) return reset.resetCode as ErrorCode;
  if (error.source === 'downstream') return ErrorCode.CANCEL;
  return error.retry === 'yes' ? ErrorCode.REFUSED_STREAM : ErrorCode.INTERNAL_ERROR;
}
