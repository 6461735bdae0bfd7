// The beginning of every outbound connection: where the application wanted to go, what discovery says about that, which
// protocol it speaks. Then HTTP is served request by request and everything else is carried as it is.

import type { Clock } from '#lib/clock.ts';
import type { Duplex } from '#lib/duplex.ts';
import { HeddleError } from '#lib/errors.ts';
import type { Log } from '#lib/log.ts';
import { formatAddress } from '../address.ts';
import { errnoOf } from '../errno.ts';
import type { HttpServerConnection } from '../io/http-connection.ts';
import type { Http1ServerOptions } from '../io/http1-server.ts';
import type { Http2ServerOptions } from '../io/http2-server.ts';
import type { LiveConnection, LiveConnections } from '../live-connections.ts';
import type { Recorder } from '../observe/recorder.ts';
import { peek } from '../peek.ts';
import { CLIENT_HELLO_BYTES_MAX, parseClientHello } from '../wire/client-hello.ts';
import { DETECT_BYTES_MAX, detectProtocol } from '../wire/detect.ts';
import type { Discover } from './discover.ts';
import type { Original } from './resolve.ts';
import type { Target } from './target.ts';

export interface AcceptOptions {
  clock: Clock;
  log: Log;
  recorder: Recorder;
  discover: Discover;
  live: LiveConnections;
  /** The worker's own outbound port: a connection to it is no redirected one. */
  proxyPort(): number;
  isLocal(address: string): boolean;
  /** For the first bytes, where the policy does not say how long. */
  detectTimeoutMs(): number;
  /** serveHttp1 and serveHttp2 of io/. */
  serveHttp1(stream: Duplex, options: Http1ServerOptions): HttpServerConnection;
  serveHttp2(stream: Duplex, options: Http2ServerOptions): HttpServerConnection;
}

/**
 * Serves a connection that the application made to `original`, to its end. Never rejects: what goes wrong is counted
 * and told, and ends with the connection, which the application sees reset.
 */
export async function acceptOutbound(stream: Duplex, original: Original, options: AcceptOptions): Promise<void> {
  try {
    assertForwardable(original, options);
    const target = options.discover.get(original);
    const release = target.acquire();
    try {
      await known(target);
      await new Accepted(stream, target, options).serve();
    } finally {
      release();
    }
  } catch (error) {
    stream.reset();
    // Opening a connection and closing it again, as probes do, is nobody's error.
    if (error instanceof HeddleError && error.code === 'client-gone') return;
    options.recorder.tcpError('outbound', tcpErrorLabel(error), {});
    const { address, port } = original;
    // An application can fail as often as it likes: the metric counts, the log does not flood.
    options.log.debug('outbound connection failed', { target: formatAddress(address, port), error });
  }
}

/** Loopback is never redirected: whoever arrives with such a destination dialled the listener itself. */
function assertForwardable({ address, port }: Original, options: AcceptOptions): void {
  const isLoopback = address === '::1' || address.startsWith('127.');
  const isUnspecified = address === '::' || address === '0.0.0.0';
  const isSelf = options.isLocal(address) && port === options.proxyPort();
  if (!isLoopback && !isUnspecified && !isSelf) return;
  throw new HeddleError(
    'loop-refused',
    `forward to "${formatAddress(address, port)}": expected a destination outside of this proxy`,
  );
}

function known(target: Target): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  if (target.whenKnown((error) => (error ? reject(error) : resolve())) === null) resolve();
  return promise;
}

/** A connection whose target is known. */
class Accepted {
  readonly #stream: Duplex;
  readonly #target: Target;
  readonly #options: AcceptOptions;

  constructor(stream: Duplex, target: Target, options: AcceptOptions) {
    this.#stream = stream;
    this.#target = target;
    this.#options = options;
  }

  /** Resolves when the connection is gone. */
  serve(): Promise<void> {
    const { protocol } = this.#target;
    switch (protocol.kind) {
      case 'http1':
        return this.#http1(null);
      case 'http2':
        return this.#http2(null);
      case 'opaque':
        return this.#opaque(null, null);
      case 'tls':
        return this.#tls();
      case 'detect':
      case 'invalid':
        // With an invalid policy HTTP clients are told, and others are reset for want of a route.
        return this.#detect(protocol.kind === 'detect' ? protocol.timeoutMs : this.#options.detectTimeoutMs());
    }
  }

  /** One read decides. Silence means a server that speaks first. */
  async #detect(timeoutMs: number): Promise<void> {
    const { clock, log, recorder } = this.#options;
    const startedMs = clock.nowMs();
    const { bytes, reason } = await peek(this.#stream, {
      clock,
      bytesMax: DETECT_BYTES_MAX,
      timeoutMs,
      isEnough: () => true,
    });
    if (reason === 'end' && bytes.length === 0) {
      throw new HeddleError('client-gone', 'detect protocol: the client closed first', { source: 'downstream' });
    }
    const protocol = reason === 'timeout' ? 'opaque' : detectProtocol(bytes);
    recorder.detected('outbound', reason === 'timeout' ? 'read_timeout' : protocol, clock.nowMs() - startedMs, {});
    if (reason === 'timeout') {
      const { address, port } = this.#target.original;
      const target = formatAddress(address, port);
      log.info('Continuing after timeout: no bytes to tell the protocol by', { target, timeoutMs });
    }
    if (protocol === 'http1') return this.#http1(bytes);
    if (protocol === 'http2') return this.#http2(bytes);
    return this.#opaque(bytes, null);
  }

  /** The server's name in the ClientHello chooses the route; the bytes go on as they are. */
  async #tls(): Promise<void> {
    const { bytes } = await peek(this.#stream, {
      clock: this.#options.clock,
      bytesMax: CLIENT_HELLO_BYTES_MAX,
      timeoutMs: this.#options.detectTimeoutMs(),
      isEnough: (soFar) => parseClientHello(soFar).kind !== 'incomplete',
    });
    const hello = parseClientHello(bytes);
    if (hello.kind !== 'hello' || hello.serverName === null) {
      throw new HeddleError('tls-detect', 'read server name: expected a TLS ClientHello with one', {
        source: 'downstream',
      });
    }
    return this.#opaque(bytes, hello.serverName);
  }

  #http1(received: Buffer | null): Promise<void> {
    const { clock, serveHttp1 } = this.#options;
    return this.#account((onClose) =>
      serveHttp1(this.#stream, {
        service: this.#target.http1,
        clock,
        clientIdentity: null,
        ...(received && { received }),
        onBadRequest: (_status, error) => this.#onBadRequest(error),
        onClose,
      }),
    );
  }

  #http2(received: Buffer | null): Promise<void> {
    const { clock, serveHttp2 } = this.#options;
    return this.#account((onClose) =>
      serveHttp2(this.#stream, {
        service: this.#target.http2,
        clock,
        clientIdentity: null,
        ...(received && { received }),
        onFault: (error) => this.#onBadRequest(error),
        onClose,
      }),
    );
  }

  #opaque(received: Buffer | null, serverName: string | null): Promise<void> {
    return this.#account((onClose) => {
      const connection = this.#target.opaque.open({
        client: this.#stream,
        received,
        serverName,
        onDone: (error) => {
          if (error && error.code !== 'client-aborted') this.#onOpaqueFailed(error);
          onClose(error);
        },
      });
      // Opaque connections cannot be told to end: they just go on.
      return { drain: () => {}, close: (error) => connection.close(error) };
    });
  }

  #onBadRequest(error: Error): void {
    const { log, recorder } = this.#options;
    recorder.httpError('outbound', 'bad request', {});
    log.debug('request refused: not HTTP as it should be', { error });
  }

  #onOpaqueFailed(error: HeddleError): void {
    const { log, recorder } = this.#options;
    const { address, port } = this.#target.original;
    recorder.tcpError('outbound', tcpErrorLabel(error), {});
    log.debug('opaque connection ended with an error', { target: formatAddress(address, port), error });
  }

  /** Keeps the connection in the account of live ones until it is gone; resolves then. */
  #account(
    serve: (onClose: (error: HeddleError | null) => void) => Pick<HttpServerConnection, 'drain' | 'close'>,
  ): Promise<void> {
    const { live } = this.#options;
    const { promise, resolve } = Promise.withResolvers<void>();
    // Serving may end before `serve` returns.
    let server: Pick<HttpServerConnection, 'drain' | 'close'> | null = null;
    const closed = this.#target.source.opened(this.#stream);
    const connection: LiveConnection = { drain: () => server?.drain(), cut: (error) => server?.close(error) };
    const leave = live.enter(connection);
    server = serve((error) => {
      leave();
      closed(error ? errnoOf(error) : '');
      resolve();
    });
    if (live.isDraining) server.drain();
    return promise;
  }
}

/** The label `error` of `outbound_tcp_errors_total`. */
function tcpErrorLabel(error: unknown): string {
  const code = error instanceof HeddleError ? error.code : '';
  if (code === 'failfast') return 'failfast';
  if (code === 'load-shed') return 'loadshed';
  if (code === 'tls-detect') return 'tls detection timeout';
  if (code === 'tls-identity-mismatch') return 'identity required';
  if (code === 'targets-exhausted') return 'targets exhausted';
  if (code === 'discovery-unavailable') return 'discovery unavailable';
  if (code === 'forbidden' || code === 'invalid-policy' || code === 'invalid-backend') return code.replace('-', '_');
  return error instanceof HeddleError && error.source !== 'internal' ? 'i/o' : 'unexpected';
}
