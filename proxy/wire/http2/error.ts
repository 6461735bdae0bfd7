// A peer's fault, with the code to send back. Stream 0: the connection is over (RFC 9113 section 5.4.1); otherwise only
// that stream is (section 5.4.2).

import { type ErrorCode, errorCodeName } from './constants.ts';

export class Http2Error extends Error {
  override readonly name = 'Http2Error';
  readonly code: ErrorCode;
  readonly streamId: number;

  constructor(code: ErrorCode, message: string, streamId = 0) {
    super(`${errorCodeName(code)}: ${message}`);
    this.code = code;
    this.streamId = streamId;
  }
}
