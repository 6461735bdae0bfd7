// HTTP/1 requests of the application leave over HTTP/2 when the peer is a proxy: one connection carries them all.
// The peer undoes it (inbound/orig-proto.ts), so neither application notices.

import { HeddleError } from '#lib/errors.ts';
import type { Exchange, HttpService, RequestHead, RequestStream, ResponseHead, ResponseStream } from '../http.ts';
import { formatOrigProto, ORIG_PROTO, parseOrigProto } from '../wire/orig-proto.ts';

/**
 * Wraps an HTTP/2 connection or pool so that HTTP/1 requests can be sent to it. HTTP/2 requests pass as they are, but
 * for what an application may not say in this proxy's name.
 */
export function upgradeToHttp2(inner: HttpService): HttpService {
  return {
    call(request: RequestHead, exchange: Exchange, response: ResponseStream): RequestStream {
      const { headers } = request;
      if (request.version === 'HTTP/2') {
        headers.remove(ORIG_PROTO);
        return inner.call(request, exchange, response);
      }
      headers.set(ORIG_PROTO, formatOrigProto({ version: request.version, isAbsoluteForm: false }));
      headers.remove('transfer-encoding');
      return inner.call({ ...request, version: 'HTTP/2', headers }, exchange, new Restored(request, response));
    },
  };
}

/** Whether a request may be upgraded: what leaves HTTP, or tunnels, needs a connection of its own (RFC 9110 section 7.8). */
export function isUpgradable(request: RequestHead): boolean {
  return request.version === 'HTTP/2' || (request.upgrade === null && request.method !== 'CONNECT');
}

/** Gives the response the version the client speaks. */
class Restored implements ResponseStream {
  readonly #request: RequestHead;
  readonly #response: ResponseStream;

  constructor(request: RequestHead, response: ResponseStream) {
    this.#request = request;
    this.#response = response;
  }

  informational(head: ResponseHead): void {
    this.#response.informational(this.#restore(head));
  }

  head(head: ResponseHead): void {
    this.#response.head(this.#restore(head));
  }

  #restore(head: ResponseHead): ResponseHead {
    const told = head.headers.get(ORIG_PROTO);
    head.headers.remove(ORIG_PROTO);
    const version = (told === undefined ? null : parseOrigProto(told))?.version ?? 'HTTP/1.1';
    return { ...head, version: this.#request.version === 'HTTP/1.0' ? 'HTTP/1.0' : version };
  }

  data(bytes: Uint8Array): boolean {
    return this.#response.data(bytes);
  }

  end(trailers: Parameters<ResponseStream['end']>[0]): void {
    this.#response.end(trailers);
  }

  /** HTTP/1 clients know no stream errors: they get 502, which is what `upstream` errors become. */
  fail(error: HeddleError): void {
    if (error.code !== 'h2-reset' || error.retry === 'yes') this.#response.fail(error);
    else this.#response.fail(new HeddleError('upgraded-h2', error.message, { source: 'upstream', cause: error }));
  }

  resumeRequest(): void {
    this.#response.resumeRequest();
  }
}
