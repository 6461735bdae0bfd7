// The smallest HTTP that all layers share. HTTP/1.1 and HTTP/2 both end in these types, so nothing above `io/` knows
// which one carried a request. Calls, not promises or streams: a request costs few allocations and its bytes are
// passed on from the buffer they were read into.

import type { HeddleError } from '#lib/errors.ts';

export type HttpVersion = 'HTTP/1.0' | 'HTTP/1.1' | 'HTTP/2';

/**
 * Header fields in order, names in lower case as HTTP/2 has them; `rawNames` keeps what an HTTP/1 peer wrote so that
 * it can be passed on letter for letter. Values are latin1 strings.
 */
export interface Headers {
  readonly length: number;
  name(index: number): string;
  value(index: number): string;
  /** The name as the HTTP/1 peer spelled it; the lower-case name where none is known. */
  rawName(index: number): string;
  /** The first value, or undefined. `name` is in lower case. */
  get(name: string): string | undefined;
  has(name: string): boolean;
  /** Adds a field behind the others. */
  add(name: string, value: string): void;
  /** Replaces every field of that name by one. */
  set(name: string, value: string): void;
  remove(name: string): void;
  clone(): Headers;
}

export interface RequestHead {
  method: string;
  /** `http` or `https`; HTTP/1 origin-form requests have `http`. */
  scheme: string;
  /** Host header or `:authority`, with the port if the client sent one. */
  authority: string;
  /** Path and query; `*` for OPTIONS *, empty for CONNECT. */
  path: string;
  version: HttpVersion;
  headers: Headers;
  /** Null: no body. A number: Content-Length. `unknown`: chunked, or an HTTP/2 stream that goes on. */
  bodyBytes: number | null | 'unknown';
  /**
   * What the client asks to speak instead of HTTP (RFC 9110 section 7.8): the value of Upgrade, `connect` for CONNECT,
   * `:protocol` of an extended CONNECT; else null. Such a request has no body, and its stream stays open: once the
   * response's head is 101, or 2xx to a CONNECT, `data` and `end` of both streams carry the tunnel's bytes and its
   * half-closes. Any other head ends the request without a call.
   */
  upgrade: string | null;
  /** The HTTP/1 target was an absolute URI, as a client of a forward proxy sends; it is sent on as one. */
  isAbsoluteForm?: boolean;
}

export interface ResponseHead {
  status: number;
  /** HTTP/1 reason phrase; empty in HTTP/2. */
  reason: string;
  version: HttpVersion;
  headers: Headers;
  bodyBytes: number | null | 'unknown';
  /** An HTTP/1 connection of the client ends behind this response; HTTP/2 connections live on. */
  closesConnection?: boolean;
}

/**
 * The request half of an exchange, as the layer nearer to the client drives it. `data` views are valid during the
 * call only. After `end` or `reset` no further call but `resumeResponse` is made.
 */
export interface RequestStream {
  /** Body bytes. False: stop until `ResponseStream.resumeRequest`; what was read already may still follow. */
  data(bytes: Uint8Array): boolean;
  /** The body is complete. `trailers` is null where there are none. */
  end(trailers: Headers | null): void;
  /** The client is gone or gave up: forget the exchange. Nothing is called back afterwards. */
  reset(error: HeddleError): void;
  /** The client can take response bytes again after a `ResponseStream.data` that returned false. */
  resumeResponse(): void;
}

/**
 * The response half, as the layer nearer to the server drives it: any number of `informational`, one `head`, `data`
 * as often as needed, then `end`; or `fail` at any point, which is always the last call. `end` and `fail` end the whole
 * exchange, also where the request has not ended: its stream is not called any more then. In a tunnel (`RequestHead.upgrade`)
 * `end` is a half-close, and both streams' `end` end the exchange.
 */
export interface ResponseStream {
  /** A 1xx response other than 101 (RFC 9110 section 15.2). */
  informational(head: ResponseHead): void;
  head(head: ResponseHead): void;
  /** Body bytes. False: stop until `RequestStream.resumeResponse`; what was read already may still follow. */
  data(bytes: Uint8Array): boolean;
  end(trailers: Headers | null): void;
  /** The exchange failed. Before `head` the outermost layer turns it into an error response, after it the stream is cut. */
  fail(error: HeddleError): void;
  /** The server can take request bytes again after a `RequestStream.data` that returned false. */
  resumeRequest(): void;
}

/** What is known about the connection a request came on; layers add what they learn for metrics and tap. */
export interface Exchange {
  readonly clientAddress: string;
  readonly clientPort: number;
  /** The peer's mesh identity, or null. Inbound only. */
  readonly clientIdentity: string | null;
  /** When the request head was complete, on the worker's clock. */
  readonly startedMs: number;
}

/**
 * A layer's inside: takes a request head and where the response goes, returns where the body goes. It must not call
 * `response` before it returned (answers that are known at once are sent from a microtask), so that callers need no
 * re-entrancy guard.
 */
export interface HttpService {
  call(request: RequestHead, exchange: Exchange, response: ResponseStream): RequestStream;
}

/** Wraps a service. Stacks are composed once per route or endpoint, never per request. */
export type HttpLayer = (inner: HttpService) => HttpService;
