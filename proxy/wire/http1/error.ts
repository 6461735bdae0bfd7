// What a peer did wrong in HTTP/1.1. A server answers with the status and closes, a client fails the exchange with 502.

export type Http1ErrorStatus = 400 | 414 | 431;

/** The peer's fault; nothing of the message was passed on. `code` is in kebab-case, for metrics and docs. */
export class Http1Error extends Error {
  override readonly name = 'Http1Error';
  readonly code: string;
  readonly status: Http1ErrorStatus;

  constructor(code: string, message: string, status: Http1ErrorStatus = 400) {
    super(message);
    this.code = code;
    this.status = status;
  }
}
