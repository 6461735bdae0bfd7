// Undoes what the client's proxy did to carry HTTP/1 over HTTP/2: the application gets the version its client spoke, and
// the client's proxy is told the version of the answer. Tunnels are never carried so: their bytes would follow an HTTP/1
// head that nobody has answered yet, where the application reads them as its next request.

import type { Exchange, HttpService, RequestHead, RequestStream, ResponseHead, ResponseStream } from '../http.ts';
import { formatOrigProto, ORIG_PROTO, parseOrigProto } from '../wire/orig-proto.ts';

/**
 * Wraps what serves the application. `isMeshed`: the client is a proxy of the mesh; from anybody else the header is a
 * forgery and only removed.
 */
export function downgradeFromHttp2(inner: HttpService, isMeshed: boolean): HttpService {
  return {
    call(request: RequestHead, exchange: Exchange, response: ResponseStream): RequestStream {
      const told = request.headers.get(ORIG_PROTO);
      if (told === undefined) return inner.call(request, exchange, response);
      request.headers.remove(ORIG_PROTO);
      const isCarried = isMeshed && request.version === 'HTTP/2' && request.method !== 'CONNECT';
      const original = isCarried ? parseOrigProto(told) : null;
      if (original === null) return inner.call(request, exchange, response);
      return inner.call({ ...request, version: original.version }, exchange, new Told(response));
    },
  };
}

class Told implements ResponseStream {
  readonly #response: ResponseStream;

  constructor(response: ResponseStream) {
    this.#response = response;
  }

  informational(head: ResponseHead): void {
    this.#response.informational(head);
  }

  head(head: ResponseHead): void {
    if (head.version !== 'HTTP/2') {
      head.headers.set(ORIG_PROTO, formatOrigProto({ version: head.version, isAbsoluteForm: false }));
    }
    this.#response.head(head);
  }

  data(bytes: Uint8Array): boolean {
    return this.#response.data(bytes);
  }

  end(trailers: Parameters<ResponseStream['end']>[0]): void {
    this.#response.end(trailers);
  }

  fail(error: Parameters<ResponseStream['fail']>[0]): void {
    this.#response.fail(error);
  }

  resumeRequest(): void {
    this.#response.resumeRequest();
  }
}
